import csv
import json
import logging
from collections import deque

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from fewseg.annotations.formats import read_supports
from fewseg.annotations.options import ReadOptions
from fewseg.inference.folder_run import label_images
from fewseg.inference.options import RunOptions
from fewseg.inference.segmentation import Segmentation
from fewseg.types import DataError
from small_segmenters import picture, segmenter


def segmentation(labels, classes=("a", "b"), sure=4.0):
    """One that gives these labels, with one log-odds on all pixels of a class."""
    margins = torch.stack(
        [torch.from_numpy(np.where(labels == j + 1, sure, -9.0)) for j in range(len(classes))]
    )
    return Segmentation(
        classes=classes, size=labels.shape, margins=margins.float(), floors=dict.fromkeys(classes, 0.0)
    )


def flooded(labels, j):
    """Connected pieces of a class by a plain flood from each pixel: sets of (y, x)."""
    height, width = labels.shape
    left = {(y, x) for y in range(height) for x in range(width) if labels[y, x] == j}
    pieces = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        piece, waiting = set(), deque([start])
        while waiting:
            y, x = waiting.popleft()
            piece.add((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    waiting.append(near)
        pieces.append(piece)
    return pieces


def pixels(instance, size):
    return set(map(tuple, np.argwhere(instance.mask(size)).tolist()))


def discs(size, *circles):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.any([(y - cy) ** 2 + (x - cx) ** 2 <= r * r for cy, cx, r in circles], axis=0).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("min_area", [1, 4])
def test_components_are_those_of_a_plain_flood(seed, min_area):
    size = (23, 31)
    labels = np.random.default_rng(seed).choice([0, 0, 0, 0, 1, 2], size=size).astype(np.uint8)
    found = segmentation(labels).instances("components", min_area)
    expected = [("ab"[j - 1], p) for j in (1, 2) for p in flooded(labels, j) if len(p) >= min_area]
    assert [(own.class_name, pixels(own, size)) for own in found] == expected
    for own, (_, piece) in zip(found, expected, strict=True):
        ys, xs = [y for y, _ in piece], [x for _, x in piece]
        assert own.area == len(piece)
        assert own.box == (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)


def test_the_score_of_a_thing_is_the_mean_probability_of_its_class_over_its_pixels():
    margins = torch.full((2, 8, 9), -3.0)
    margins[0, 1:3, 1:4] = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 4.0]])
    margins[1, 5:7, 6:8] = 2.0
    found = Segmentation(classes=("a", "b"), size=(8, 9), margins=margins, floors={"a": 0.0, "b": 0.0})
    one, other = found.instances(min_area=1)
    expected = found.probability[0, 1:3, 1:4].mean()
    assert one.score == pytest.approx(float(expected), abs=1e-6)
    assert other.score == pytest.approx(float(np.exp(2) / (1 + np.exp(2) + np.exp(-3))), abs=1e-6)


def test_a_large_image_in_strips_has_the_scores_of_the_whole(monkeypatch):
    margins = torch.randn(2, 12, 15, generator=torch.Generator().manual_seed(0)) * 3
    found = Segmentation(classes=("a", "b"), size=(60, 75), margins=margins, floors={"a": 0.0, "b": 0.0})
    whole = found.instances()
    monkeypatch.setattr("fewseg.inference.segmentation._STRIP", 2 * 75 * 7)
    strips = Segmentation(classes=("a", "b"), size=(60, 75), margins=margins, floors={"a": 0.0, "b": 0.0})
    assert [(o.class_name, o.box, o.area) for o in strips.instances()] == [
        (o.class_name, o.box, o.area) for o in whole
    ]
    assert [o.score for o in strips.instances()] == pytest.approx([o.score for o in whole], abs=2e-6)


@pytest.mark.parametrize(
    ("circles", "count"),
    [
        ([(20, 20, 10)], 1),
        ([(20, 15, 10), (20, 32, 10)], 2),
        ([(20, 15, 10), (20, 22, 10)], 1),  # so close that there is no neck
        ([(14, 14, 9), (14, 31, 9), (29, 22, 9)], 3),
        ([(20, 14, 12), (20, 31, 5)], 2),
        ([(10, 10, 6), (30, 45, 8)], 2),
    ],
)
def test_a_watershed_parts_discs_that_touch(circles, count):
    labels = discs((48, 60), *circles)
    found = segmentation(labels, ("a",)).instances("watershed")
    assert len(found) == count
    assert np.array_equal(sum(own.mask(labels.shape) for own in found), labels)  # parted, nothing lost
    if count == len(circles):
        for cy, cx, _ in circles:
            assert sum(int(own.mask(labels.shape)[cy, cx]) for own in found) == 1
        assert all(sum(own.mask(labels.shape)[cy, cx] for cy, cx, _ in circles) == 1 for own in found)
    first = [int(own.mask(labels.shape).argmax()) for own in found]
    assert first == sorted(first)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_thin_throughout_has_no_neck(turned):
    labels = np.kron(np.eye(6, dtype=np.uint8), np.ones((3, 3), np.uint8))
    assert len(segmentation(labels[::-1].copy() if turned else labels).instances("watershed")) == 1


def test_two_equal_discs_are_parted_where_they_meet():
    labels = discs((40, 60), (20, 18, 10), (20, 35, 10))
    left, right = segmentation(labels, ("a",)).instances("watershed")
    assert left.box[0] + left.box[2] in (26, 27, 28)
    assert abs(left.area - right.area) < 25


@pytest.mark.parametrize("labels", [np.ones((90, 110), np.uint8), np.zeros((9, 11), np.uint8)])
def test_all_pixels_of_a_class_are_one_thing_and_none_is_none(labels):
    for split in ("components", "watershed"):
        assert [own.area for own in segmentation(labels).instances(split)] == [9900] * int(labels[0, 0])


@pytest.mark.parametrize(
    ("split", "area", "match"), [("blobs", 1, "components"), ("components", 0, "1 pixel")]
)
def test_an_invalid_way_to_find_instances_is_an_error(split, area, match):
    with pytest.raises(ValueError, match=match):
        segmentation(np.ones((3, 3), np.uint8)).instances(split, area)


LABELS = np.zeros((40, 60), np.uint8)
LABELS[2:10, 3:12] = 1  # with a hole
LABELS[4:6, 5:8] = 0
LABELS[20:30, 0:9] = 1
LABELS[30:36, 9:15] = 1  # touches it at a corner
LABELS[5:15, 40:60] = 2
LABELS[38, 30] = 1  # too small
SURE = np.linspace(1, 4, 40)[:, None].repeat(60, 1)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Labels a folder of one image, whose segmentation is LABELS."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((*LABELS.shape, 3), 90, np.uint8)).save(tmp_path / "photos" / "x.png")
    found, classes = segmenter(), ("scratch", "dent")
    pixels, mask = picture(0)
    found.add_image(pixels, {"scratch": mask, "dent": np.roll(mask, 20, 1)})
    monkeypatch.setattr(
        "fewseg.inference.segmentation.Session.segment_all",
        lambda self, images, quality=True: [segmentation(LABELS, classes, SURE) for _ in images],
    )

    def run(*formats, **options):
        images = {"x.png": tmp_path / "photos" / "x.png"}
        label_images(found, images, tmp_path / "out", RunOptions(formats=formats, quiet=True, **options))
        return tmp_path / "out"

    return run


EXPECTED = [
    ("scratch", [3, 2, 9, 8], 66),
    ("scratch", [0, 20, 15, 16], 126),
    ("dent", [40, 5, 20, 10], 200),
]


def test_instances_are_in_the_json_lines_and_the_coco_files_to_the_pixel(written):
    out = written("coco", "coco-results", "jsonl", instances="components")
    line = json.loads((out / "predictions.jsonl").read_text().splitlines()[1])
    assert [(o["class"], o["bbox"], o["area"]) for o in line["instances"]] == EXPECTED
    assert [o["area"] for o in line["regions"]] == [66 + 126 + 1, 200]  # of the classes, as without instances
    coco = COCO(out / "coco.json")
    results = json.loads((out / "coco-results.json").read_text())
    found = coco.loadAnns(coco.getAnnIds())
    for own, result, (name, box, area) in zip(found, results, EXPECTED, strict=True):
        assert coco.cats[own["category_id"]]["name"] == name
        assert (own["bbox"], own["area"], own["iscrowd"]) == (box, area, 0)
        mask = coco.annToMask(own)
        chance = np.exp(SURE) / (1 + np.exp(SURE) + np.exp(-9))
        assert own["score"] == result["score"] == pytest.approx(chance[mask == 1].mean(), abs=1e-5)
        assert mask.sum() == area
        assert (LABELS[mask == 1] == own["category_id"]).all()
        assert result["segmentation"] == own["segmentation"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("coco", "coco.json"),
        ("labelme", "labelme/x.json"),
        ("labelme-polygons", "labelme/x.json"),
        ("label-studio", "label-studio.json"),
        ("yolo", "yolo/data.yaml"),
    ],
)
def test_instances_read_back_as_the_classes_that_they_are_of(written, tmp_path, name, place):
    (item,) = read_supports(
        written(name, instances="components") / place,
        ReadOptions(images=tmp_path / "photos", predictions=True),
    )
    expected = np.where(np.arange(LABELS.size).reshape(LABELS.shape) == 38 * 60 + 30, 0, LABELS)
    for j, own in enumerate(("scratch", "dent"), 1):
        assert np.array_equal(item.masks[own] == 1, expected == j)


@pytest.mark.parametrize("name", ["labelme", "labelme-polygons", "label-studio", "yolo"])
def test_a_file_has_a_shape_for_each_instance(written, name):
    out = written(name, instances="components")
    if name == "yolo":
        shapes = [line.split()[0] for line in (out / "yolo/labels/x.txt").read_text().splitlines()]
        assert shapes == ["0", "0", "1"]
    elif name == "label-studio":
        (task,) = json.loads((out / "label-studio.json").read_text())
        shapes = task["predictions"][0]["result"]
        assert [o["value"]["brushlabels"] for o in shapes] == [["scratch"], ["scratch"], ["dent"]]
        assert len({o["id"] for o in shapes}) == 3
    else:
        shapes = json.loads((out / "labelme/x.json").read_text())["shapes"]
        assert [o["label"] for o in shapes] == ["scratch", "scratch", "dent"]


def test_the_summary_counts_and_measures_each_class_of_each_image(written, caplog):
    with caplog.at_level(logging.INFO):
        out = written("png", "coco", instances="components")
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert rows == [
        {"image": "x.png", "class": "scratch", "count": "2", "area": "192", "share": f"{192 / 2400:.6f}"},
        {"image": "x.png", "class": "dent", "count": "1", "area": "200", "share": f"{200 / 2400:.6f}"},
    ]
    assert "png: classes of pixels, without instances" in caplog.text
    assert "coco" not in caplog.text.split("png: ")[1].split(":")[0]


def test_without_instances_the_files_are_those_of_classes(written, caplog):
    with caplog.at_level(logging.INFO):
        out = written("png", "coco")
    assert "instances" not in caplog.text
    assert not (out / "summary.csv").exists()
    assert [own["area"] for own in json.loads((out / "coco.json").read_text())["annotations"]] == [193, 200]
    with pytest.raises(DataError, match="a different instances"):
        written("coco", instances="watershed")


def test_a_smaller_least_area_counts_more(written):
    out = written(instances="components", min_area=1)
    assert [row["count"] for row in csv.DictReader((out / "summary.csv").open())] == ["3", "1"]
