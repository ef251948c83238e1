from __future__ import annotations

import pytest

from fewseg.data.folds import VOC_CLASSES, ClassSplit, even_split, numbered, pascal_5i


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


def test_an_even_split_keeps_the_ids_of_a_mapping():
    split = even_split({40: "d", 10: "a", 20: "b", 30: "c"}, folds=2, fold=1, name="m")
    assert (split.base, split.novel) == ((10, 20), (30, 40))


def test_a_fold_may_be_a_single_class():
    assert even_split("ab", folds=2, fold=0, name="x").novel == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pascal_5i(-1), r"folds 0\.\.3"),
        (lambda: pascal_5i(4), r"folds 0\.\.3"),
        (lambda: even_split("ab", folds=3, fold=0, name="x"), "cannot make"),
        (lambda: even_split("abc", folds=1, fold=0, name="x"), "cannot make"),
        (lambda: numbered({}), r"1\.\.254"),
        (lambda: numbered({0: "background"}), r"1\.\.254"),
        (lambda: numbered({255: "x"}), r"1\.\.254"),
        (lambda: ClassSplit("x", 0, (1, 2), (2,), {1: "a", 2: "b"}), "both base and novel"),
        (lambda: ClassSplit("x", 0, (1,), (3,), {1: "a"}), r"\[3\] have no name"),
    ],
)
def test_folds_and_classes_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
