"""Self-contained pages: escaped, accessible, and silent on the network."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fewseg.reports.html import Markup, bar, element, figure, joined, page, png_uri, table


class Tags(HTMLParser):
    """Collects (tag, attributes) and checks that every element is closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "1 < 2 & 'x'")
    assert inner.text == "<b>1 &lt; 2 &amp; &#x27;x&#x27;</b>"
    assert element("p", inner, "<i>", class_="a", aria_label='say "b"').text == (
        '<p class="a" aria-label="say &quot;b&quot;"><b>1 &lt; 2 &amp; &#x27;x&#x27;</b>&lt;i&gt;</p>'
    )
    assert joined([Markup("<br>"), "&"]).text == "<br>\n&amp;"


def test_a_table_names_its_rows_and_columns_for_screen_readers():
    made = table(
        ["method", "kind", "mIoU"], [["SCL", "a<b", bar(0.5, "50.0")]], "scores & more", text_columns=2
    )
    tags = Tags(made.text)
    assert tags.found[0] == (
        "div",
        {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": "scores & more"},
    )
    heads = [a for tag, a in tags.found if tag == "th"]
    assert [a["scope"] for a in heads] == ["col", "col", "col", "row"]
    assert [a["class"] for a in heads] == ["text", "text", "number", "text"]
    assert [a["class"] for tag, a in tags.found if tag == "td"] == ["text", "number"]
    assert "<caption>scores &amp; more</caption>" in made.text
    assert "a&lt;b" in made.text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"every row needs 2 cells.*\[2, 1\]"):
        table(["a", "b"], [["1", "2"], ["1"]], "c")


@pytest.mark.parametrize(("value", "width"), [(0.5, "50.0"), (-0.1, "0.0"), (1.2, "100.0"), (0.1234, "12.3")])
def test_bars_stay_inside_their_frame_and_are_hidden_from_screen_readers(value, width):
    made = bar(value, "<x>").text
    assert f"width:{width}%" in made
    assert 'aria-hidden="true"' in made
    assert made.endswith("&lt;x&gt;")


def test_a_picture_is_embedded_as_a_png_that_shows_the_same():
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    picture[5:, :, 1] = 255
    picture[:, 12:, 0] = 128
    kind, data = png_uri(picture).split(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert np.abs(shown.astype(int) - picture).max() <= 4


def test_a_figure_has_a_text_for_those_who_do_not_see_it():
    tags = Tags(figure(np.zeros((4, 6, 3), dtype=np.uint8), 'a "cat"', "query").text)
    (image,) = [a for tag, a in tags.found if tag == "img"]
    assert image["alt"] == 'a "cat"'
    assert (image["width"], image["height"]) == ("6", "4")


def test_a_page_is_whole_and_asks_the_network_for_nothing():
    text = page("t & u", element("h1", "hello"))
    tags = Tags(text.replace("<!doctype html>", ""))
    assert ("html", {"lang": "en"}) in tags.found
    assert "<title>t &amp; u</title>" in text
    assert "default-src 'none'; img-src data:" in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", text)
