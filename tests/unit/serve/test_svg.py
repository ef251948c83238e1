"""Pictures that are programs (SVG), however they come: they are refused or shown as text, never served."""

import io
import zipfile

import pytest

from serve_page import png, refusal
from small_segmenters import picture

SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>"
PICTURE = png(picture(0)[0])
TRICKS = {
    "script": SCRIPT,
    "declared": b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + SCRIPT,
    "behind a PNG's first bytes": PICTURE[:8] + SCRIPT,
    "behind a PNG's head": PICTURE[:33] + SCRIPT,
    "behind a GIF's name": b"GIF89a" + SCRIPT,
}
tricks = pytest.mark.parametrize("content", TRICKS.values(), ids=TRICKS)


def served(page, id):
    """Every answer that a browser gets for an image."""
    for address in ("picture", "picture?small=true", "file", "labels"):
        answer = page.http.get(f"/api/images/{id}/{address}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src" not in answer.headers["content-security-policy"]  # that of default-src: 'self'
        yield address, answer.headers["content-type"]


@tricks
@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_as_an_image_it_is_refused(page, content, name):
    assert "cannot be read" in refusal(page.upload(content, name))
    assert not page.state()["images"]


@tricks
def test_as_a_mask_or_strokes_it_is_refused(page, content):
    id = page.image(PICTURE)
    page.add_class("square")
    assert "cannot be read" in refusal(page.settle(id, content))
    assert "cannot be read" in refusal(page.http.post(f"/api/images/{id}/complete", content=content))
    assert page.state()["images"][0]["role"] == "open"


@tricks
@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_in_an_archive_it_is_left_out(page, content, folder, suffix):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in {"images": PICTURE, "masks": png(picture(0)[1])}.items():
            archive.writestr(f"{name}/good.png", part)
            wrong = folder == name
            archive.writestr(f"{name}/trick.{suffix if wrong else 'png'}", content if wrong else part)
    found = page.http.post("/api/masks?name=a.zip", content=file.getvalue())
    assert found.headers["content-type"] == "application/json"
    assert [image["name"] for image in page.state()["images"]] in (["good.png"], [])
    for image in page.state()["images"]:
        assert not [kind for _, kind in served(page, image["id"]) if "svg" in kind or "html" in kind]


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.svg.png"])
@pytest.mark.parametrize("content", [PICTURE, PICTURE + SCRIPT], ids=["picture", "with a script behind it"])
def test_a_picture_is_served_as_what_it_is_whatever_its_name(page, name, content):
    id = page.image(content, name)
    assert dict(served(page, id)) == {
        "picture": "image/png",
        "picture?small=true": "image/jpeg",
        "file": "application/octet-stream",
        "labels": "image/png",
    }


def test_as_the_name_of_a_class_or_an_image_it_is_text(page):
    text = "<svg onload=alert(1)>"
    id = page.image(PICTURE, f"{text}.png")
    added = page.add_class(text)
    for answer in (added, page.http.get("/api/session"), page.add_class(text)):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.state()["classes"] == [text]
    assert page.state()["images"][0]["name"] == f"{text}.png"
    assert page.settle(id, picture(0)[1]).status_code == 200
    for form, kind in {"png": "application/zip", "coco": "application/json", "table": "text/csv"}.items():
        answer = page.download(form)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith("attachment")
