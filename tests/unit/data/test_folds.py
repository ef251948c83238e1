import pytest

from fewseg.data.folds import (
    COCO_CLASSES,
    COCO_NAME_OF_VOC,
    COCO_OF_VOC,
    VOC_CLASSES,
    ClassSplit,
    FoldData,
    coco_20i,
    coco_40_20_20,
    coco_to_voc,
    even_split,
    numbered,
    pascal_5i,
    voc_to_coco,
)

OTHER_NAMES = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"}
OTHER_NAMES |= {"pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}


@pytest.mark.parametrize(
    ("fold", "novel"),
    [(0, (1, 2, 3, 4, 5)), (1, (6, 7, 8, 9, 10)), (2, (11, 12, 13, 14, 15)), (3, (16, 17, 18, 19, 20))],
)
def test_a_pascal_fold_tests_five_classes_and_trains_on_the_other_fifteen(fold, novel):
    split = pascal_5i(fold)
    assert split.novel == novel
    assert split.base == tuple(c for c in range(1, 21) if c not in novel)
    assert (split.name, split.fold) == ("pascal-5i", fold)


def test_voc_classes_are_alphabetical_and_numbered_from_one():
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    names = pascal_5i(0).class_names
    assert (len(names), names[1], names[8], names[15], names[20]) == (
        20,
        "aeroplane",
        "cat",
        "person",
        "tvmonitor",
    )
    assert pascal_5i(0).label(8) == "8 cat"


def test_uneven_classes_go_to_the_first_folds_and_every_class_is_novel_once():
    splits = [even_split("abcdefg", folds=3, fold=f, name="letters") for f in range(3)]
    assert [s.novel for s in splits] == [(1, 2, 3), (4, 5), (6, 7)]
    assert splits[1].base == (1, 2, 3, 6, 7)
    assert even_split("ab", folds=2, fold=0, name="x").novel == (1,)


def test_an_even_split_keeps_the_ids_of_a_mapping():
    split = even_split({40: "d", 10: "a", 20: "b", 30: "c"}, folds=2, fold=1, name="m")
    assert (split.base, split.novel) == ((10, 20), (30, 40))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: even_split("ab", folds=3, fold=0, name="x"), "cannot make"),
        (lambda: even_split("abc", folds=1, fold=0, name="x"), "cannot make"),
        (lambda: numbered({}), r"1\.\.254"),
        (lambda: numbered({0: "background"}), r"1\.\.254"),
        (lambda: numbered({255: "x"}), r"1\.\.254"),
        (lambda: coco_20i(0, split="C"), r"'B' \(interleaved\)"),
        (lambda: coco_40_20_20(0, test="val"), "'validation' classes, not 'val'"),
        (lambda: coco_to_voc(0, folds="voc"), "not 'voc'"),
        (lambda: ClassSplit("x", 0, (1, 2), (2,), {1: "a", 2: "b"}), "both base and novel"),
        (lambda: ClassSplit("x", 0, (1,), (3,), {1: "a"}), r"\[3\] have no name"),
    ],
)
def test_invalid_folds_and_classes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def names(split, which="novel"):
    return [split.class_names[c] for c in getattr(split, which)]


def test_every_voc_class_has_its_name_in_coco():
    assert dict(COCO_NAME_OF_VOC) == {name: OTHER_NAMES.get(name, name) for name in VOC_CLASSES}
    for number, name in enumerate(VOC_CLASSES, start=1):
        assert COCO_CLASSES[COCO_OF_VOC[number] - 1] == OTHER_NAMES.get(name, name)


def test_split_b_takes_every_fourth_class_and_split_a_blocks():
    assert coco_20i(0).novel == tuple(range(1, 81, 4))
    assert coco_20i(3).novel == tuple(range(4, 81, 4))
    assert coco_20i(1, split="A").novel == tuple(range(21, 41))
    for split in "AB":
        folds = [coco_20i(fold, split) for fold in range(4)]
        assert all(sorted((*fold.base, *fold.novel)) == list(range(1, 81)) for fold in folds)
        assert sorted(c for fold in folds for c in fold.novel) == list(range(1, 81))
    assert (coco_20i(2).name, coco_20i(2, split="A").name, coco_20i(2).fold) == ("coco-20i", "coco-20i-a", 2)
    assert names(coco_20i(0))[:5] == ["person", "airplane", "boat", "parking meter", "dog"]


@pytest.mark.parametrize("make", [pascal_5i, coco_20i, coco_40_20_20, coco_to_voc, voc_to_coco])
@pytest.mark.parametrize("fold", [-1, 4])
def test_a_fold_that_does_not_exist_is_refused(make, fold):
    with pytest.raises(ValueError, match=r"folds 0\.\.3"):
        make(fold)


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
    assert tested == set(COCO_CLASSES) - set(COCO_NAME_OF_VOC.values())
    assert {tuple(names(s, "base")) for s in splits} == {
        tuple(n for n in COCO_CLASSES if n in COCO_NAME_OF_VOC.values())
    }


@pytest.fixture
def fold(make_index, split):
    """Base classes 1 to 3, of which 2 is in half of the training images; every image shows a novel class."""
    train = make_index({f"i{k}": {1: 9, 4: 9} | ({2: 5} if k % 2 else {}) for k in range(8)})
    return FoldData(dataset="made", source=None, split=split, train=train, test=make_index({"t": {4: 9}}))


def test_held_out_classes_are_tested_on_every_second_of_their_images_which_are_not_trained_on(fold):
    held_out = fold.held_out([2])
    assert held_out.test.ids == ("i1", "i5")
    assert held_out.train.ids == ("i0", "i2", "i3", "i4", "i6", "i7")
    assert (held_out.split.base, held_out.split.novel) == ((1, 3), (2,))
    assert (held_out.split.name, held_out.split.fold) == (fold.split.name, fold.split.fold)
    assert held_out.dataset == "made, held-out base classes"
    assert fold.held_out([2, 1]).split.novel == (1, 2)


@pytest.mark.parametrize("classes", [(), (4,), (2, 9)])
def test_only_base_classes_are_held_out(fold, classes):
    with pytest.raises(ValueError, match=r"must be base classes of the fold, \(1, 2, 3\), got"):
        fold.held_out(classes)
