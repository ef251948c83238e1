"""A server of a small network with random weights."""

import pytest

from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from serve_page import Page
from small_segmenters import model, picture


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture
def app(limits):
    return create_app(model(), limits, hosts=("127.0.0.1", "localhost"))


@pytest.fixture
def page(app):
    return Page(app)


@pytest.fixture
def annotated(page):
    """A page with a class, a support and an image to predict: (page, support, other, mask)."""
    image, mask = picture(0)
    support = page.image(image, "one.png")
    other = page.image(picture(9, hw=(60, 40), box=(5, 30, 8, 30))[0], "two é.png")
    page.add_class("square")
    assert page.settle(support, mask).status_code == 200
    return page, support, other, mask
