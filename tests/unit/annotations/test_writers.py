import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from fewseg.annotations import labelme
from fewseg.annotations.coco import CocoResultsWriter, CocoWriter, image_id
from fewseg.annotations.formats import FORMATS, read_supports
from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.label_studio import LabelStudioWriter
from fewseg.annotations.labelme import LabelMePolygonWriter, LabelMeWriter
from fewseg.annotations.mask_files import IndexPngWriter, ProbabilityPngWriter
from fewseg.annotations.names import output_stems
from fewseg.annotations.options import Format, LabelStudioNames, ReadOptions
from fewseg.annotations.rle import encode_coco
from fewseg.annotations.shapes import outlines
from fewseg.annotations.values import Prediction
from fewseg.annotations.writer import LinesWriter, WriteOptions
from fewseg.types import DataError

CLASSES = ("rust", "crack é")
NAMES = ("a.png", "b c é.png", "d/a.png")


@pytest.fixture
def photos(tmp_path, write_image):
    for name in NAMES:
        write_image(tmp_path / "photos" / name, (40, 50))
    return tmp_path / "photos"


@pytest.fixture
def predictions(predict):
    return [predict(name, seed) for seed, name in enumerate(NAMES)]


def write_all(writer, predictions):
    with writer:
        for prediction in predictions:
            writer.write(prediction)


def check_read_back(path, written, unknown=0, **options):
    """The supports read back are the predictions; 255 is kept as ``unknown``."""
    items = read_supports(path, ReadOptions(**options))
    for item, prediction in zip(items, written, strict=True):
        for j, name in enumerate(CLASSES, 1):
            expected = prediction.mask(j)
            expected[prediction.labels == 255] = unknown
            assert np.array_equal(item.masks[name], expected)
        assert set(item.masks) == set(CLASSES)
    return items


def test_index_maps_read_back_as_masks_to_the_pixel(tmp_path, photos, predictions):
    write_all(IndexPngWriter(tmp_path, CLASSES), predictions)
    with Image.open(tmp_path / "masks" / "d" / "a.png") as file:
        assert file.mode == "P"
        assert file.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
        assert np.array_equal(np.array(file), predictions[2].labels)
    check_read_back(tmp_path / "masks", predictions, 255, images=photos)


def test_probabilities_are_written_for_each_class(tmp_path, predictions):
    write_all(ProbabilityPngWriter(tmp_path, CLASSES), predictions)
    folder = tmp_path / "probability"
    for prediction in predictions:
        for j, name in enumerate(CLASSES):
            with Image.open(folder / f"{prediction.name[:-4]}.{name}.png") as file:
                stored = np.array(file)
            assert np.abs(stored / 255 - prediction.probability[j]).max() <= 0.5 / 255 + 1e-7
    whole = replace(predictions[0], probability=np.full((2, 40, 50), 128, np.uint8))
    write_all(ProbabilityPngWriter(tmp_path, CLASSES), [whole])
    assert np.array(Image.open(folder / "a.rust.png"))[0, 0] == 128


def test_names_that_file_systems_refuse_are_made_safe(tmp_path):
    classes = ("a/b", "..", "c:d")
    labels = np.zeros((2, 2), np.uint8)
    one = Prediction(
        name="x?.png", labels=labels, classes=classes, scores=(0, 0, 0), probability=np.zeros((3, 2, 2))
    )
    write_all(ProbabilityPngWriter(tmp_path, classes), [one])
    assert sorted(p.name for p in (tmp_path / "probability").iterdir()) == [
        "x%3F.%2E%2E.png",
        "x%3F.a%2Fb.png",
        "x%3F.c%3Ad.png",
    ]


def test_a_coco_data_set_reads_back_to_the_pixel_and_in_pycocotools(tmp_path, photos, predictions):
    path = tmp_path / "out" / "coco.json"
    write_all(CocoWriter(path.parent, CLASSES), predictions)
    check_read_back(path, predictions, 255, images=photos)
    data = COCO(str(path))
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == list(CLASSES)
    for prediction in predictions:
        k = image_id(prediction.name)
        assert data.loadImgs(k)[0]["file_name"] == prediction.name
        crowds = data.loadAnns(data.getAnnIds(imgIds=[k], iscrowd=True))
        assert [crowd["category_id"] for crowd in crowds] == [1, 2]
        assert all(np.array_equal(data.annToMask(crowd), prediction.labels == 255) for crowd in crowds)
        for annotation in data.loadAnns(data.getAnnIds(imgIds=[k], iscrowd=False)):
            j = annotation["category_id"]
            assert np.array_equal(data.annToMask(annotation), prediction.mask(j))
            assert annotation["score"] == prediction.scores[j - 1]
            assert annotation["area"] == prediction.mask(j).sum()


@pytest.mark.parametrize("form", ["png", "coco", "yolo", "cvat"])
def test_the_list_of_classes_is_read_with_the_images_in_its_order(tmp_path, photos, predictions, form):
    for prediction in predictions:
        prediction.labels[prediction.labels == 1] = 0  # of the first class nothing is found
    writer = FORMATS[form](tmp_path, CLASSES)
    write_all(writer, predictions)
    place = {"png": ".", "coco": "coco.json"}.get(form, form)
    for item in read_supports(tmp_path / place, ReadOptions(images=photos)):
        assert item.listed == CLASSES
        assert tuple(item.masks) == CLASSES[1:]


def test_an_image_where_nothing_was_found_reads_back_as_a_negative(tmp_path, photos, predictions):
    nothing = replace(predictions[1], labels=np.zeros((40, 50), np.uint8))
    write_all(CocoWriter(tmp_path, CLASSES), [predictions[0], nothing])
    found, negative = read_supports(tmp_path / "coco.json", ReadOptions(images=photos))
    assert set(found.masks) == set(CLASSES)
    assert (negative.image.name, negative.masks) == (nothing.name, {})


def test_a_data_set_and_results_that_were_written_in_another_order_agree(tmp_path, predictions):
    write_all(CocoWriter(tmp_path, CLASSES), predictions)
    write_all(CocoResultsWriter(tmp_path, CLASSES), predictions[::-1])
    results = COCO(str(tmp_path / "coco.json")).loadRes(str(tmp_path / "coco-results.json"))
    for prediction in predictions:
        annotations = results.loadAnns(results.getAnnIds(imgIds=[image_id(prediction.name)]))
        assert len(annotations) == sum(prediction.mask(j).any() for j in (1, 2))
        for annotation in annotations:
            assert annotation["file_name"] == prediction.name
            assert np.array_equal(results.annToMask(annotation), prediction.mask(annotation["category_id"]))


def test_labelme_masks_read_back_to_the_pixel(tmp_path, photos, predictions):
    write_all(LabelMeWriter(tmp_path, CLASSES, WriteOptions(images=photos)), predictions)
    for prediction in predictions:
        path = tmp_path / "labelme" / Path(prediction.name).with_suffix(".json")
        value = json.loads(path.read_text())
        assert (path.parent / value["imagePath"]).samefile(photos / prediction.name)
        check_read_back(path, [prediction], 255, images=(photos / prediction.name).parent)


def test_labelme_polygons_are_near_the_masks_and_exact_without_tolerance(
    tmp_path, photos, predictions, monkeypatch
):
    write_all(LabelMePolygonWriter(tmp_path, CLASSES), predictions[:2])
    for item, prediction in zip(
        read_supports(tmp_path / "labelme", ReadOptions(images=photos)), predictions, strict=False
    ):
        found, mask = item.masks["rust"] == 1, prediction.mask(1) == 1
        assert (found & mask).sum() / (found | mask).sum() > 0.9
    monkeypatch.setattr(labelme, "outlines", partial(outlines, tolerance=0))
    write_all(LabelMePolygonWriter(tmp_path, CLASSES), predictions[:2])
    check_read_back(tmp_path / "labelme", predictions[:2], 255, images=photos)


def test_label_studio_tasks_read_back_to_the_pixel(tmp_path, photos, predictions):
    path = tmp_path / "label-studio.json"
    names = WriteOptions(label_studio=LabelStudioNames(from_name="brush"))
    write_all(LabelStudioWriter(tmp_path, CLASSES, names), predictions)
    items = check_read_back(path, predictions, images=photos, predictions=True)
    assert [item.image for item in items] == [photos / prediction.name for prediction in predictions]
    tasks = json.loads(path.read_text())
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=b%20c%20%C3%A9.png"
    made = tasks[0]["predictions"][0]
    assert made["score"] == min(predictions[0].scores)
    assert [r["score"] for r in made["result"]] == list(predictions[0].scores)
    assert {(r["from_name"], r["to_name"], r["type"]) for r in made["result"]} == {
        ("brush", "image", "brushlabels")
    }


def test_what_a_person_settled_is_an_annotation_of_label_studio(tmp_path, photos, predictions):
    path = tmp_path / "label-studio.json"
    write_all(LabelStudioWriter(tmp_path, CLASSES), [replace(p, settled=True) for p in predictions])
    check_read_back(path, predictions, images=photos)
    task = json.loads(path.read_text())[0]
    assert "predictions" not in task
    assert {r["origin"] for r in task["annotations"][0]["result"]} == {"manual"}
    assert not any("score" in r for r in task["annotations"][0]["result"])


def test_json_lines_read_back_as_predictions(tmp_path, predictions):
    path = tmp_path / "predictions.jsonl"
    writer = LinesWriter(tmp_path, CLASSES)
    writer.write(predictions[0])
    assert [p.name for p in read_jsonl(path)] == ["a.png"]
    for prediction in predictions[1:]:
        writer.write(prediction)
    writer.close()
    path.chmod(0o400)
    for back, prediction in zip(read_jsonl(path), predictions, strict=True):
        assert np.array_equal(back.labels, prediction.labels)
        assert (back.name, back.classes, back.scores) == (prediction.name, CLASSES, prediction.scores)
        assert back.facts == {"quality": 0.5}
    line = json.loads(path.read_text().splitlines()[1])
    assert line["regions"][0]["segmentation"] == encode_coco(predictions[0].mask(1))


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def open_writer(request):
    return lambda folder: request.param(folder, CLASSES)


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_in_two_parts_writes_what_one_run_writes(tmp_path, predictions, open_writer):
    write_all(open_writer(tmp_path / "one"), predictions)
    writer = open_writer(tmp_path / "two")
    writer.write(predictions[0])
    assert "a.png" in writer
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    if isinstance(writer, LinesWriter):
        assert (tmp_path / "two" / writer.file).exists() == (type(writer) is LinesWriter)
    with open_writer(tmp_path / "two") as writer:
        assert [name in writer for name in NAMES] == [True, False, False]
        for prediction in predictions[1:]:
            writer.write(prediction)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    write_all(open_writer(tmp_path / "two"), [])
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_prediction_written_again_replaces_the_first(tmp_path, predictions, open_writer):
    write_all(open_writer(tmp_path / "one"), predictions)
    write_all(open_writer(tmp_path / "two"), [replace(predictions[1], name="a.png"), *predictions])
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    journals = {name for name in one if name.endswith((".jsonl", ".journal"))}
    assert {k: v for k, v in one.items() if k not in journals} == {
        k: v for k, v in two.items() if k not in journals
    }


def test_other_classes_and_a_file_in_the_way_are_refused(tmp_path, predict, open_writer):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError), open_writer(tmp_path / "file") as writer:  # noqa: PT011
        writer.write(predict())
    with open_writer(tmp_path) as writer, pytest.raises(ValueError, match="in this order, got"):
        writer.write(replace(predict(), classes=("rust", "moss")))


@pytest.mark.parametrize("form", sorted({*FORMATS} - {"labelme", "labelme-polygons", "probability"}))
def test_a_run_with_other_classes_does_not_continue_an_output(tmp_path, form):
    for _ in range(2):
        FORMATS[form](tmp_path / "out", CLASSES).close()
    with pytest.raises(DataError, match="choose another output"):
        FORMATS[form](tmp_path / "out", ("rust",))


def test_a_killed_run_leaves_whole_lines_and_no_half_file(tmp_path, predictions):
    child = os.fork()
    if child == 0:  # a run that dies in the middle of a line
        writer = CocoWriter(tmp_path, CLASSES)
        for prediction in predictions[:2]:
            writer.write(prediction)
        writer.journal._file.write(b'{"name": "half')
        writer.journal._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "coco.json").exists()
    with CocoWriter(tmp_path, CLASSES) as writer:
        assert [name in writer for name in NAMES] == [True, True, False]
        writer.write(predictions[2])
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 3
    with CocoWriter(tmp_path, CLASSES) as writer:
        assert len(list(writer.journal)) == 3


class FullDisk:
    """A file that takes half of what it is given."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_whole_lines_and_the_writer_goes_on(tmp_path, predictions):
    path = tmp_path / "predictions.jsonl"
    writer = LinesWriter(tmp_path, CLASSES)
    writer.write(predictions[0])
    before = path.read_bytes()
    writer.journal._file = FullDisk(writer.journal._file)
    with pytest.raises(OSError, match=r"could not write .*predictions\.jsonl: No space left.*run again"):
        writer.write(predictions[1])
    assert path.read_bytes() == before
    assert predictions[1].name not in writer
    write_all(writer, predictions[1:])
    assert [p.name for p in read_jsonl(path)] == list(NAMES)


def test_a_disk_that_is_full_at_the_end_is_reported_with_the_file(tmp_path, predictions, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    writer = LinesWriter(tmp_path, CLASSES)
    writer.write(predictions[0])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*predictions\.jsonl: No space left on device"):
        writer.close()


@pytest.mark.parametrize(
    "text", ["", "x\n", "[]\n", '{"format": "other"}\n', '{"format": "fewseg-predictions-1"}\n']
)
def test_a_file_that_holds_no_predictions_is_reported(tmp_path, text):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"p\.jsonl"):
        list(read_jsonl(tmp_path / "p.jsonl"))
    with pytest.raises(DataError, match="does not exist"):
        list(read_jsonl(tmp_path / "none"))


def test_outputs_of_images_that_differ_by_suffix_are_kept_apart():
    names = ["x.jpg", "d/x.jpg", "y.jpg", "Y.png", "z.jpg", "z.png", "z.jpg.bmp", "w"]
    assert output_stems(names) == {
        "x.jpg": "x", "d/x.jpg": "d/x", "y.jpg": "y.jpg", "Y.png": "Y.png",
        "z.jpg": "z.jpg", "z.png": "z.png", "z.jpg.bmp": "z.jpg.bmp", "w": "w",
    }  # fmt: skip


def test_stems_name_the_outputs(tmp_path, photos, write_image, predict):
    write_image(photos / "a.jpg", (40, 50))
    stems = output_stems(["a.jpg", "a.png"])
    writer = IndexPngWriter(tmp_path, CLASSES, WriteOptions(stems=stems))
    write_all(writer, [predict("a.jpg"), predict("a.png", 1)])
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.jpg.png", "a.png.png", "classes.txt"]


GOOD = {"name": "a.png", "labels": np.zeros((2, 3), np.uint8), "classes": ("a", "b"), "scores": (0.5, 1)}


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in ("", "/a", "../a", "a/../../b", "a\\b", "a//b", "./a", "a/", "\0")),
        {"labels": np.zeros((2, 3))},
        {"labels": np.zeros((2, 0), np.uint8)},
        {"labels": np.full((2, 3), 3, np.uint8)},
        *({"classes": classes} for classes in (("a",), ("a", "a"), ("a", ""), ())),
        *({"scores": scores} for scores in ((0.5,), (0.5, 1.01), (-0.1, 0), (float("nan"), 0))),
        {"probability": np.zeros((2, 3, 2))},
    ],
)  # fmt: skip
def test_a_prediction_that_does_not_fit_together_is_reported(change):
    Prediction(**GOOD)
    with pytest.raises(ValueError, match=r"must|invalid"):
        Prediction(**{**GOOD, **change})


def test_probabilities_out_of_range_and_missing_ones_are_reported(tmp_path):
    writer = ProbabilityPngWriter(tmp_path, ("a", "b"))
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"must|invalid"):
            writer.write(Prediction(**GOOD, probability=np.full((2, 2, 3), value)))
    with pytest.raises(ValueError, match="has no probability"):
        writer.write(Prediction(**GOOD))
    assert not list(tmp_path.iterdir())
    for make in (
        lambda: ProbabilityPngWriter(tmp_path, ("a", "A")),
        lambda: IndexPngWriter(tmp_path, ("a\nb",)),
    ):
        with pytest.raises(ValueError, match=r"must|invalid"):
            make()


WRITTEN = {"png": "masks/a.png", "probability": "probability/a.rust.png", "coco": "coco.json"}
WRITTEN |= {"coco-results": "coco-results.json", "labelme": "labelme/a.json"}
WRITTEN |= {"labelme-polygons": "labelme/a.json", "label-studio": "label-studio.json"}
WRITTEN |= {"yolo": "yolo/labels/a.txt", "cvat": "cvat/SegmentationClass/a.png"}
WRITTEN |= {"jsonl": "predictions.jsonl"}


def test_every_name_of_a_format_opens_its_writer(tmp_path, predict):
    assert tuple(FORMATS) == get_args(Format)
    assert set(FORMATS) == set(WRITTEN)
    for name, file in WRITTEN.items():
        write_all(FORMATS[name](tmp_path / name, CLASSES), [predict()])
        assert (tmp_path / name / file).is_file()
