"""Known counts of data sets, and the reports of what one on disk holds."""

import csv

import numpy as np
import pytest

from fewseg.data.check import (
    IMAGES,
    NOVEL_IMAGES,
    NOVEL_PAIRS,
    check_counts,
    check_source,
    fold_line,
)
from fewseg.data.folder import ListFileSource
from fewseg.data.folds import VOC_CLASSES, even_split, numbered, pascal_5i
from fewseg.data.index import ImageFacts, Index, build_index

NAMES = ["cat", "dog"]


def test_the_check_counts_images_per_class_and_shots_per_fold(tmp_path, write_list):
    images = {"a": np.array([[1, 1, 2]]), "b": np.array([[1, 1, 0]]), "c": np.array([[1, 1, 1]])}
    source = ListFileSource(tmp_path, write_list({**images, "d": np.array([[0, 255, 0]])}), NAMES)
    splits = [even_split(NAMES, 2, fold, "s") for fold in range(2)]
    lines = check_source(source, min_area=2, splits=splits)
    assert lines[0].startswith("list: 4 images, 2 classes, content ")
    assert lines[0].endswith("; 1 images without any class")
    assert lines[1].split() == ["1", "cat", "3", "images", "from", "2", "px", "(3", "with", "any)"]
    assert lines[2].split() == ["2", "dog", "0", "images", "from", "2", "px", "(1", "with", "any)"]
    assert lines[3:] == ("s fold 0: cat 3; up to 2 shots", "s fold 1: dog 0; TOO FEW IMAGES for 1 shot")


def test_the_shots_of_a_fold_are_those_of_its_rarest_class(make_index):
    index = make_index({f"i{k}": {1: 9, **({2: 9} if k < 2 else {})} for k in range(8)})
    split = even_split(["a", "b", "c", "d"], 2, 0, "s")
    assert fold_line(index, split, 9) == "s fold 0: a 8, b 2; up to 1 shots"


@pytest.fixture
def areas(shared):
    """(index of all 12 031 masks of VOC and SBD, ids with void pixels: VOC's own masks)."""
    table = shared / "reference" / "voc_class_areas.csv"
    if not table.exists():
        pytest.skip(f"no class areas at {table}")
    found: dict[str, ImageFacts] = {}
    own = set()
    with table.open() as file:
        for row in csv.DictReader(file):
            facts = found.setdefault(row["id"], ImageFacts(int(row["height"]), int(row["width"]), {}))
            facts.areas[int(row["class"])] = int(row["pixels"])
            if int(row["void_pixels"]):
                own.add(row["id"])
    return Index("voc+sbd", numbered(VOC_CLASSES), found), own


def test_an_index_with_the_right_counts_passes_and_any_other_does_not():
    def build(extra):
        images = {}
        for fold in range(4):
            novel = pascal_5i(fold).novel
            both = NOVEL_PAIRS[fold] - NOVEL_IMAGES[fold]
            for k in range(NOVEL_IMAGES[fold]):
                shown = {novel[k % 5]: 2048, novel[(k + 1) % 5]: 2048 if k < both else 2047}
                images[f"{fold}-{k}"] = ImageFacts(9, 9, shown)
        for k in range(IMAGES["val"] - sum(NOVEL_IMAGES)):
            images[f"x{k}"] = ImageFacts(9, 9, {})
        return Index("val", {}, {**images, **extra})

    assert sum(NOVEL_IMAGES) > IMAGES["val"]  # some images count for several folds
    lines = list(check_counts(build({}), "val"))
    assert [line.split()[0] for line in lines] == ["WRONG"] + ["ok"] * 8
    expected = [1449, 364, 365, 445, 467, 592, 734, 336, 357]
    assert [line.split("expected ")[1] for line in lines] == [f"{n})" for n in expected]
    more = check_counts(build({"more": ImageFacts(9, 9, {16: 2048})}), "val")
    assert [line for line in more if line.startswith("WRONG")][1:] == [
        "WRONG fold 3 val images with a novel class: 337 (expected 336)",
        "WRONG fold 3 val (image, novel class) pairs: 358 (expected 357)",
    ]


def test_a_training_list_is_checked_for_base_classes():
    images = {"a": ImageFacts(9, 9, {1: 2048}), "b": ImageFacts(9, 9, {6: 2048, 11: 2047})}
    for which, expected in (
        ("trainaug", (10582, 8535, 8199, 7154, 9119)),
        ("voc+sbd_noval", (5953, 4760, 4588, 4097, 5108)),
    ):
        lines = check_counts(Index("t", {}, images), which)
        found = [line.split(": ")[1] for line in lines]
        assert found == [f"{n} (expected {m})" for n, m in zip((2, 1, 1, 2, 2), expected, strict=True)]


@pytest.fixture
def mini(shared):
    root = shared / "data" / "voc5i-mini"
    if not root.is_dir():
        pytest.skip(f"no voc5i-mini at {root}")
    source = ListFileSource(root, root / "lists" / "fold0_val.txt", VOC_CLASSES)
    return build_index(source, progress=False)


def test_the_index_of_real_masks_has_the_pixel_counts_of_the_reference_table(mini, areas):
    assert len(mini) == 97
    assert {id: areas[0].images[id] for id in mini.ids} == mini.images
