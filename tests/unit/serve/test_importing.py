"""Masks of other tools on a page."""

import io
import json
import zipfile

import numpy as np
import pytest

from fewseg.annotations.formats import FORMATS
from serve_page import Page, png, refusal
from small_segmenters import picture


def archive(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, part in files.items():
            file.writestr(name.replace("__", "/"), part)
    return content.getvalue()


def damaged(compression):
    """An archive whose directory is whole, and whose file is not."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        file.writestr("masks/one.png", bytes(range(256)) * 4)
    data = bytearray(content.getvalue())
    start = 30 + len("masks/one.png") + 9 * (compression == zipfile.ZIP_LZMA)  # with its properties
    data[start : start + 20] = b"\xff" * 20
    return bytes(data)


def import_masks(page, content, name="masks.zip", **params):
    return page.http.post("/api/masks", params={"name": name, **params}, content=content)


@pytest.fixture
def labelled(annotated):
    """A page of two images, of two classes, all settled, and their masks."""
    page, _, other, mask = annotated
    page.add_class("second")
    corrected = np.zeros((60, 40), np.uint8)
    corrected[:9, :7] = 2
    corrected[20:40, 10:30] = 1
    page.settle(other, corrected, "accepted")
    return page, (mask, corrected)


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"probability", "jsonl", "coco-results"}))
def test_what_is_downloaded_is_imported_again_in_every_format(labelled, app, form):
    page, masks = labelled
    answer = page.download(form, settled=True)
    fresh = Page(app)
    fresh.add_class("object")  # as the page has it from the start
    ids = [fresh.image(picture(0)[0], "one.png")]
    ids.append(fresh.image(picture(9, hw=(60, 40), box=(5, 30, 8, 30))[0], "two é.png"))
    name = answer.headers["content-disposition"].split('"')[1]
    found = import_masks(fresh, answer.content, name, role="accepted")
    assert found.status_code == 200, found.text
    assert (found.json()["count"], found.json()["notes"]) == (2, [])
    classes = found.json()["classes"]
    assert sorted(classes) == ["second", "square"]
    assert {image["role"] for image in found.json()["images"]} == {"accepted"}
    numbers = np.array([0, *(classes.index(name) + 1 for name in ("square", "second"))], np.uint8)
    for id, mask in zip(ids, masks, strict=True):
        differ = (fresh.labels(id) != numbers[mask]).mean()
        assert differ <= (0.03 if form in ("yolo", "labelme-polygons") else 0)  # polygons cut corners


def test_pictures_that_come_with_masks_are_added_and_predict(page):
    image, mask = picture(0)
    other = page.image(picture(9)[0], "other.png")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("set/rust/images/new.png", png(image))
        file.writestr("set/rust/masks/new.png", png(mask * 255))
    found = import_masks(page, content.getvalue()).json()
    assert [(i["name"], i["role"]) for i in found["images"]] == [
        ("other.png", "open"),
        ("new.png", "support"),
    ]
    assert found["classes"] == ["rust"]
    assert page.labels(other).any()
    page.http.post("/api/undo")
    assert page.state()["images"][1]["role"] == "open"
    assert page.state()["classes"] == []


def test_an_entry_of_an_archive_without_a_name_is_left_out(page):
    image, mask = picture(0)
    page.image(image, "one.png")
    content = archive(nameless=b"lost", **{"one.png": png(mask * 255)})
    found = import_masks(page, content.replace(b"nameless", b"\0ameless")).json()
    assert found["count"] == 1


@pytest.mark.parametrize("names", [("one.png",), ("rust/one.png", "moss/one.png"), ("masks/one.png",)])
def test_masks_alone_find_the_images_of_their_names(page, names):
    image, mask = picture(0)
    id = page.image(image, "one.png")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for k, name in enumerate(names):
            part = mask.copy()
            part[: 25 if k else 0] = 0
            file.writestr(name, png(part * 255))
    found = import_masks(page, content.getvalue()).json()
    assert (found["count"], found["notes"]) == (1, [])
    assert (page.labels(id) > 0).sum() == mask.sum()


def test_what_cannot_be_imported_is_named_and_the_rest_is(page):
    image, mask = picture(0)
    page.image(image, "one.png")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("masks/one.png", png(mask))
        file.writestr("masks/absent.png", png(mask))
    found = import_masks(page, content.getvalue()).json()
    assert found["count"] == 1
    (note,) = found["notes"]
    assert "absent.png belongs to no image" in note
    assert "tmp" not in note


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{}", "unknown format"),
        (b"no json", "holds no annotated images"),
        (archive(a__b_txt="x"), "holds no annotated images"),
        (archive(masks__one_png="x")[:-30], "holds no annotated images"),
        (damaged(zipfile.ZIP_DEFLATED), "cannot be unpacked"),
        (damaged(zipfile.ZIP_LZMA), "cannot be unpacked"),
    ],
    ids=["empty", "no json", "other files", "cut off", "damaged", "damaged, lzma"],
)
def test_a_file_that_holds_no_masks_is_refused_in_a_line(page, content, text):
    page.image(picture(0)[0], "one.png")
    found = refusal(import_masks(page, content, "masks.json" if content[:1] == b"{" else "masks.zip"))
    assert text in found
    assert "\n" not in found
    assert "/tmp" not in found


def test_an_archive_stays_in_its_folder_and_within_its_size(page, monkeypatch, tmp_path):
    image, mask = picture(0)
    page.image(image, "one.png")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("../escaped.png", png(mask))
        file.writestr("/escaped.png", png(mask))
        file.writestr("masks/one.png", png(mask))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert import_masks(page, content.getvalue()).json()["count"] == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "secret/images").mkdir(parents=True)
    (tmp_path / "secret/labels").mkdir()
    (tmp_path / "secret/images/key.png").write_bytes(png(image))
    (tmp_path / "secret/labels/key.txt").write_text("0 .2 .2 .2 .4 .4 .4 .4 .2")
    yaml = f"path: {tmp_path}/secret\ntrain: images\nnames: [a]\n"
    found = import_masks(page, yaml.encode(), "data.yaml")
    assert found.status_code == 422 or found.json()["count"] == 0
    assert len(page.state()["images"]) == 1
    monkeypatch.setattr("fewseg.serve.importing._MOST_FILES", 1)
    assert "import it in parts" in refusal(import_masks(page, content.getvalue()))


@pytest.mark.parametrize(
    ("names", "entry"),
    [
        ([f"masks/{'x' * 300}.png"], "masks/xxx"),
        (["a", "a/b.png"], "a/b.png"),
        (["a/b.png", "a"], "a"),
        (["images", "masks/one.png"], "images"),
        (["/".join(["y" * 250] * 20)], "yyy"),
    ],
    ids=["long", "below a file", "a folder", "pictures", "deep"],
)
def test_an_entry_whose_name_no_disk_takes_is_refused_by_its_name(page, names, entry):
    page.image(picture(0)[0], "one.png")
    found = refusal(import_masks(page, archive(**dict.fromkeys(names, png(picture(0)[1])))))
    assert found.startswith(f"masks.zip has an entry '{entry}")
    assert "pack it with different names" in found


def test_a_full_disk_is_not_the_fault_of_an_archive(page, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "a")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    assert "free space" in refusal(import_masks(page, archive(a=b"")), 507)


def test_names_of_any_letters_fit_on_a_disk(page):
    image, _ = picture(0)
    id = page.image(image, f"{'é€' * 100}.png")
    (shown,) = page.state()["images"]
    assert shown["name"].endswith("€é€.png")
    assert len(shown["name"].encode()) in range(195, 201)
    coco = {
        "images": [{"id": 1, "file_name": shown["name"], "width": 70, "height": 50}],
        "categories": [{"id": 3, "name": "leaf"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[9, 9, 30, 9, 30, 30]]}],
    }
    found = import_masks(page, json.dumps(coco).encode(), f"{'é€' * 100}.json").json()
    assert (found["count"], found["notes"]) == (1, [])
    assert page.labels(id).any()


def test_coco_masks_of_images_by_name(page):
    page.image(picture(0)[0], "one.png")
    coco = {
        "images": [{"id": 1, "file_name": "one.png", "width": 70, "height": 50}],
        "categories": [{"id": 3, "name": "leaf"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
        ],
    }
    found = import_masks(page, json.dumps(coco).encode(), "coco.json").json()
    assert (found["count"], found["classes"]) == (1, ["leaf"])
