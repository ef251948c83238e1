from __future__ import annotations

import pytest

from fewseg.data.folds import (
    COCO_CLASSES,
    COCO_NAME_OF_VOC,
    COCO_OF_VOC,
    VOC_CLASSES,
    coco_20i,
    coco_40_20_20,
    coco_to_voc,
    voc_to_coco,
)

MAPPING = {
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "diningtable": "dining table",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorcycle",
    "person": "person",
    "pottedplant": "potted plant",
    "sheep": "sheep",
    "sofa": "couch",
    "train": "train",
    "tvmonitor": "tv",
}


def names(split, which="novel"):
    return [split.class_names[c] for c in getattr(split, which)]


def test_every_voc_class_has_its_name_in_coco():
    assert dict(COCO_NAME_OF_VOC) == MAPPING
    for number, name in enumerate(VOC_CLASSES, start=1):
        assert COCO_CLASSES[COCO_OF_VOC[number] - 1] == MAPPING[name]
    assert (len(COCO_OF_VOC), len(set(COCO_OF_VOC.values()))) == (20, 20)


def test_split_b_takes_every_fourth_class_and_split_a_blocks():
    assert coco_20i(0).novel == tuple(range(1, 81, 4))
    assert coco_20i(3).novel == tuple(range(4, 81, 4))
    assert coco_20i(1, split="A").novel == tuple(range(21, 41))
    assert (coco_20i(2).name, coco_20i(2, split="A").name, coco_20i(2).fold) == ("coco-20i", "coco-20i-a", 2)
    assert names(coco_20i(0))[:5] == ["person", "airplane", "boat", "parking meter", "dog"]


@pytest.mark.parametrize("split", ["A", "B"])
def test_the_folds_part_the_classes(split):
    folds = [coco_20i(fold, split) for fold in range(4)]
    assert sorted(c for fold in folds for c in fold.novel) == list(range(1, 81))
    for fold in folds:
        assert (len(fold.base), len(fold.novel)) == (60, 20)
        assert not set(fold.base) & set(fold.novel)


@pytest.mark.parametrize("make", [coco_20i, coco_40_20_20, coco_to_voc, voc_to_coco])
@pytest.mark.parametrize("fold", [-1, 4])
def test_a_fold_that_does_not_exist_is_refused(make, fold):
    with pytest.raises(ValueError, match=r"folds 0\.\.3"):
        make(fold)


def test_other_choices_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="'B' \\(interleaved\\)"):
        coco_20i(0, split="C")
    with pytest.raises(ValueError, match="'validation' classes, not 'val'"):
        coco_40_20_20(0, test="val")
    with pytest.raises(ValueError, match="not 'voc'"):
        coco_to_voc(0, folds="voc")


@pytest.mark.parametrize("fold", range(4))
def test_srpnets_three_parts_are_forty_twenty_and_twenty_classes(fold):
    test, validation = coco_40_20_20(fold), coco_40_20_20(fold, "validation")
    assert (len(test.base), len(test.novel), len(validation.novel)) == (40, 20, 20)
    assert test.base == validation.base
    assert test.novel == coco_20i(fold).novel
    assert validation.novel == coco_20i((fold + 1) % 4).novel
    assert not set(test.novel) & set(validation.novel)
    assert (test.name, test.fold) == (validation.name, validation.fold) == ("coco-40-20-20", fold)


def test_coco_to_voc_tests_the_voc_classes_that_the_fold_was_not_trained_on():
    """The classes of each fold as RePRI (Boudiaf et al. 2021) lists them."""
    found = [names(coco_to_voc(fold)) for fold in range(4)]
    assert found == [
        ["person", "airplane", "boat", "dog", "chair", "dining table"],
        ["bicycle", "bus", "horse", "couch"],
        ["car", "train", "bird", "sheep", "potted plant", "tv"],
        ["motorcycle", "cat", "cow", "bottle"],
    ]
    for fold in range(4):
        assert coco_to_voc(fold).base == coco_20i(fold).base


def test_coco_to_voc_by_the_folds_of_pascal_trains_on_all_classes_but_the_five_it_tests():
    split = coco_to_voc(2, folds="pascal-5i")
    assert sorted(names(split)) == ["dining table", "dog", "horse", "motorcycle", "person"]
    assert (len(split.base), split.name) == (75, "coco-to-voc-5i")


def test_voc_to_coco_tests_the_sixty_classes_that_voc_has_not():
    splits = [voc_to_coco(fold) for fold in range(4)]
    assert [len(s.novel) for s in splits] == [14, 16, 14, 16]
    tested = {name for s in splits for name in names(s)}
    assert tested == set(COCO_CLASSES) - set(MAPPING.values())
    assert {tuple(names(s, "base")) for s in splits} == {
        tuple(n for n in COCO_CLASSES if n in MAPPING.values())
    }
