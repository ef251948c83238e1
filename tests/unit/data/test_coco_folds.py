"""Folds of COCO, and of VOC and COCO crossed, on files that the tests write."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from fewseg.recipes import datasets
from fewseg.recipes.registry import recipe
from fewseg.types import DataError

SIZE = (6, 8)


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    """VOC, SBD and COCO below one folder; every COCO image shows a person (1) and a zebra (category 24)."""
    coco = tmp_path / "coco2014"
    for part in ("train", "val"):
        images = [{"id": i, "file_name": f"{part}{i}.jpg", "height": 6, "width": 8} for i in (1, 2)]
        things = [(1, [0, 0, 3, 0, 3, 3, 0, 3]), (24, [4, 0, 8, 0, 8, 6, 4, 6])]
        annotations = [
            {"id": 10 * i + c, "image_id": i, "category_id": c, "iscrowd": 0, "segmentation": [polygon]}
            for i in (1, 2)
            for c, polygon in things
        ]
        categories = [{"id": 1, "name": "person"}, {"id": 24, "name": "zebra"}]
        file = coco / "annotations" / f"instances_{part}2014.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        for image in images:
            write_image(coco / f"{part}2014" / image["file_name"], SIZE)
    voc, sbd = tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "benchmark_RELEASE" / "dataset"
    for id in ("t1", "v1", "s1"):
        write_image(voc / "JPEGImages" / f"{id}.jpg", SIZE)
        if id != "s1":
            labels = np.full(SIZE, 15)
            labels[0], labels[1] = 255, 20
            write_mask(voc / "SegmentationClass" / f"{id}.png", labels)
    (sbd / "cls").mkdir(parents=True)
    savemat(sbd / "cls" / "s1.mat", {"GTcls": {"Segmentation": np.full(SIZE, 12, np.uint8)}})
    lists = {"Segmentation/train": "t1", "Segmentation/val": "v1", "Main/train": "t1\ns1"}
    for name, ids in lists.items():
        path = voc / "ImageSets" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ids)
    (sbd / "train.txt").write_text("s1")
    (sbd / "val.txt").write_text("s1")
    return tmp_path


@pytest.mark.parametrize(("split", "name"), [("B", "coco-20i"), ("A", "coco-20i-a")])
def test_a_fold_of_coco_trains_on_train_and_tests_on_val(root, split, name):
    data = datasets.coco(0, root, split=split)
    assert (data.dataset, data.split.name, data.train.ids, data.test.ids) == (
        name,
        name,
        ("train1", "train2"),
        ("val1", "val2"),
    )
    assert data.test.images["val1"].areas == {1: 9, 23: 24}
    assert data.source.read_labels("val2")[0].tolist() == [1, 1, 1, 0, 23, 23, 23, 23]
    assert (1 in data.split.novel, 23 in data.split.base) == (True, True)


def test_srpnets_parts_share_their_training_images(root):
    test, validation = (
        datasets.coco_three_parts(0, root),
        datasets.coco_three_parts(0, root, test="validation"),
    )
    assert test.train == validation.train
    assert test.split.base == validation.split.base
    assert test.split.novel != validation.split.novel


def test_coco_to_voc_reads_voc_val_in_cocos_numbers(root):
    data = recipe("coco_to_voc_matcher_resnet50").read(0, root)
    assert (data.train.ids, data.test.ids) == (("train1", "train2"), ("v1",))
    assert data.test.images["v1"].areas == {1: 32, 63: 8}
    assert data.source.read_labels("v1")[:3, 0].tolist() == [255, 63, 1]
    assert 1 in data.split.novel
    assert 1 not in data.split.base
    assert datasets.coco_tested_on_voc(3, root, folds="pascal-5i").split.name == "coco-to-voc-5i"


def test_voc_to_coco_trains_on_voc_and_tests_classes_that_it_has_not(root):
    data = recipe("voc_to_coco_matcher_resnet50").read(2, root)
    assert (data.train.ids, data.test.ids) == (("s1", "t1"), ("val1", "val2"))
    assert data.train.images["s1"].areas == {17: 48}
    assert 23 in data.split.novel
    assert data.test.images_of(23) == ("val1", "val2")
    trained = {c for facts in data.train.images.values() for c in facts.areas}
    assert trained <= set(data.split.base)


@pytest.fixture
def mini(tmp_path, write_image, write_mask):
    """coco-mini with images of a person (1), of a zebra, and of both; and voc5i-mini beside it."""
    things = {"p": [1], "both": [24, 1], "z": [24]}
    polygons = {1: [0, 0, 3, 0, 3, 3, 0, 3], 24: [4, 0, 8, 0, 8, 6, 4, 6]}
    images = [{"id": i, "file_name": f"{n}.jpg", "height": 6, "width": 8} for i, n in enumerate(things, 1)]
    annotations = [
        {"id": 10 * i + c, "image_id": i, "category_id": c, "iscrowd": 0, "segmentation": [polygons[c]]}
        for i, classes in enumerate(things.values(), 1)
        for c in classes
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 24, "name": "zebra"}]
    coco, voc = tmp_path / "coco-mini", tmp_path / "voc5i-mini"
    coco.mkdir()
    (coco / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    for name in things:
        write_image(coco / "images" / f"{name}.jpg", SIZE)
    (voc / "lists").mkdir(parents=True)
    for id, label in (("cat1", 8), ("man1", 15)):
        write_image(voc / "images" / f"{id}.jpg", SIZE)
        write_mask(voc / "masks" / f"{id}.png", np.full(SIZE, label))
    for fold in range(4):
        for part, id in (("train", "cat1"), ("val", "man1")):
            (voc / "lists" / f"fold{fold}_{part}.txt").write_text(f"images/{id}.jpg masks/{id}.png\n")
    return tmp_path


def test_a_fold_of_coco_mini_trains_on_no_image_that_shows_a_novel_class(mini, monkeypatch):
    monkeypatch.setattr(datasets, "COCO_MINI", replace(datasets.COCO_MINI, min_area=9))
    data = datasets.coco_mini(0, mini / "coco-mini")  # tests persons, trains on zebras
    assert (data.dataset, data.train.ids, data.test.ids) == ("coco-mini", ("z",), ("both", "p"))
    assert data.split.novel == ()  # six images of a class are needed to test it
    assert 1 not in data.split.base
    contiguous = datasets.coco_mini_contiguous(1, mini / "coco-mini")  # the other way round
    assert (contiguous.dataset, contiguous.train.ids) == ("coco-mini-a", ("p",))


def test_coco_mini_adds_classes_and_images_to_the_training_of_voc5i_mini_alone(mini):
    data, own = datasets.voc5i_mini_with_coco(2, mini), datasets.voc5i_mini(2, mini / "voc5i-mini")
    assert data.train.ids == (*own.train.ids, "z")  # fold 2 tests persons, 15 in VOC
    assert data.test.images == own.test.images
    assert data.split.novel == own.split.novel
    assert len(data.split.base) == 75
    (zebra,) = data.source.read_labels("z").unique()[1:].tolist()
    assert (data.split.class_names[zebra], zebra > 20) == ("zebra", True)


@pytest.mark.parametrize(
    "read",
    [datasets.coco, datasets.coco_three_parts, datasets.coco_tested_on_voc, datasets.voc_tested_on_coco],
)
def test_without_a_root_what_it_must_hold_is_reported(read, tmp_path):
    with pytest.raises(DataError, match="needs --root: the folder that holds"):
        read(0)
    with pytest.raises(DataError, match="is empty"):
        read(0, tmp_path)
