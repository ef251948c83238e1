import io
import json
import zipfile

import numpy as np
import pytest

from fewseg.annotations.formats import FORMATS
from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.rle import decode_brush, decode_coco
from fewseg.inference import Segmenter
from serve_page import read_png, refusal
from small_segmenters import model, picture


@pytest.fixture
def settled(annotated):
    page, _, other, mask = annotated
    page.add_class("second")
    corrected = page.labels(other)
    corrected[:9, :7] = 2
    page.settle(other, corrected, "accepted")
    page.image(picture(3)[0], "two é.jpg")
    return page, mask, corrected


def archive(answer):
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_masks_are_downloaded_to_the_pixel(settled):
    page, mask, corrected = settled
    files = archive(page.download("png"))
    assert set(files) == {f"masks/{n}" for n in ("one.png", "two é.png.png", "two é.jpg.png", "classes.txt")}
    assert files["masks/classes.txt"].decode() == "background\nsquare\nsecond\n"
    np.testing.assert_array_equal(read_png(files["masks/one.png"]), mask)
    np.testing.assert_array_equal(read_png(files["masks/two é.png.png"]), corrected)
    third = page.state()["images"][2]["id"]
    np.testing.assert_array_equal(read_png(files["masks/two é.jpg.png"]), page.labels(third))


def test_the_json_formats_hold_the_same_pixels(settled, tmp_path):
    page, mask, corrected = settled
    coco = page.download("coco").json()
    names = {c["id"]: c["name"] for c in coco["categories"]}
    images = {i["id"]: i for i in coco["images"]}
    assert [i["file_name"] for i in coco["images"]] == ["one.png", "two é.png", "two é.jpg"]
    found = {(images[a["image_id"]]["file_name"], names[a["category_id"]]): a for a in coco["annotations"]}
    shape = found["two é.png", "second"]
    np.testing.assert_array_equal(decode_coco(shape["segmentation"], (60, 40), ""), corrected == 2)
    tasks = page.download("label-studio").json()
    brush = tasks[0]["annotations"][0]["result"][0]["value"]["rle"]
    assert [sorted(set(task) - {"data"}) for task in tasks] == [["annotations"]] * 2 + [["predictions"]]
    np.testing.assert_array_equal(decode_brush(brush, (50, 70), ""), mask)
    (tmp_path / "lines").write_bytes(page.download("jsonl").content)
    lines = list(read_jsonl(tmp_path / "lines"))
    np.testing.assert_array_equal(lines[1].labels, corrected)
    assert lines[1].scores == (1.0, 1.0)
    labelme = json.loads(archive(page.download("labelme"))["labelme/one.json"])
    assert labelme["imagePath"] == "one.png"


def test_probabilities_have_a_plane_for_each_class(settled):
    files = archive(settled[0].download("probability"))
    assert "probability/one.square.png" in files
    assert read_png(files["probability/one.square.png"]).shape == (50, 70)
    assert not read_png(files["probability/one.second.png"]).any()


def test_settled_masks_alone_on_request_and_the_threshold_counts_for_the_others(settled):
    page, *_ = settled
    files = archive(page.download("png", settled=True))
    assert set(files) == {"masks/one.png", "masks/two é.png", "masks/classes.txt"}
    low, high = (archive(page.download("png", threshold=t)) for t in (0.1, 0.9))
    assert low["masks/one.png"] == high["masks/one.png"]
    areas = [(read_png(f["masks/two é.jpg.png"]) > 0).sum() for f in (low, high)]
    assert areas[0] > areas[1]


def test_there_is_nothing_to_download_before_a_mask(page):
    page.image(picture(0)[0])
    page.add_class("square")
    assert page.download("png").status_code == 409
    assert page.download("tiff").status_code == 422


def test_names_of_classes_and_images_stay_inside_the_archive(annotated):
    page, *_ = annotated
    page.http.put("/api/classes/1", params={"name": "../x/ü"})
    page.image(picture(2)[0], "con: *?.png")
    for form in FORMATS:
        answer = page.download(form)
        assert answer.status_code == 200, (form, answer.text)
        assert len(answer.content) > 50
        if answer.headers["content-type"] != "application/zip":
            continue
        for name in archive(answer):
            assert ".." not in name.split("/")
            assert name.count("/") <= (3 if name.startswith(("yolo/", "cvat/")) else 1)
            assert not set(':*?"<>|\\') & set(name)
        if form == "cvat":
            files = archive(answer)
            listed = files["cvat/ImageSets/Segmentation/default.txt"].decode().splitlines()
            assert {f"cvat/SegmentationClass/{name}.png" for name in listed} < set(files)


def test_things_are_counted_in_a_table(settled):
    page, mask, corrected = settled
    answer = page.download("table", settled=True)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = [line.split(",") for line in answer.text.splitlines()]
    assert rows[0] == ["image", "class", "count", "area", "share"]
    assert rows[1] == ["one.png", "square", "1", str(mask.sum()), f"{mask.mean():.6f}"]
    assert rows[4][:2] + rows[4][3:4] == ["two é.png", "second", str((corrected == 2).sum())]
    everything = page.download("table").text.splitlines()
    assert len(everything) == 1 + 3 * 2


def test_single_things_take_the_place_of_whole_classes_in_formats_that_hold_them(annotated):
    page, support, _, mask = annotated
    two = mask.copy()
    two[:5, :5] = 1
    page.settle(support, two)
    counts = [
        len(page.download("coco", settled=True, **split).json()["annotations"])
        for split in ({}, {"instances": "components"})
    ]
    assert counts == [1, 2]


def test_the_examples_are_handed_to_a_folder_run(annotated, tmp_path):
    page, _, other, _ = annotated
    answer = page.http.get("/api/examples")
    (tmp_path / "examples.safetensors").write_bytes(answer.content)
    segmenter = Segmenter(model())
    segmenter.load_supports(tmp_path / "examples.safetensors")
    found = segmenter.segment(picture(9, hw=(60, 40), box=(5, 30, 8, 30))[0]).labels
    assert found.any()
    np.testing.assert_array_equal(found, page.labels(other))


def test_without_an_example_there_is_none_to_hand_over(page):
    assert "annotate an image" in refusal(page.http.get("/api/examples"), 409)
