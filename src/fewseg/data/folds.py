"""Folds: which classes are trained on and which are tested, of VOC, COCO and both crossed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fewseg.data.index import Index
from fewseg.data.source import Source
from fewseg.types import IGNORE

VOC_CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)


@dataclass(frozen=True)
class ClassSplit:
    """The base (training) and novel (test) classes of one fold.

    Attributes:
        name: the family of splits, such as "pascal-5i".
        fold: which one of the family, from 0.
        base: class ids to train on, ascending.
        novel: class ids to test on, ascending; disjoint from ``base``.
        class_names: id -> name of every class of both.
    """

    name: str
    fold: int
    base: tuple[int, ...]
    novel: tuple[int, ...]
    class_names: Mapping[int, str]

    def __post_init__(self) -> None:
        both = sorted(set(self.base) & set(self.novel))
        if both:
            raise ValueError(f"split {self.name} fold {self.fold}: classes {both} are both base and novel")
        unnamed = sorted((set(self.base) | set(self.novel)) - set(self.class_names))
        if unnamed:
            raise ValueError(f"split {self.name} fold {self.fold}: class ids {unnamed} have no name")

    def label(self, class_id: int) -> str:
        """Returns "id name", as messages and tables print a class."""
        return f"{class_id} {self.class_names[class_id]}"


def numbered(class_names: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    """Returns id -> name; a plain sequence of names is numbered from 1 (0 is background)."""
    if isinstance(class_names, Mapping):
        named = {int(k): str(v) for k, v in sorted(class_names.items())}
    else:
        named = {i + 1: str(v) for i, v in enumerate(class_names)}
    wrong = [i for i in named if not 1 <= i <= 254]
    if not named or wrong:
        raise ValueError(
            f"class ids must lie in 1..254 (0 is background, 255 ignore) and there must be one at least; "
            f"got {len(named)} classes, ids out of range: {wrong[:5]}"
        )
    return named


def numbered_in_16_bits(names: Sequence[str]) -> dict[int, str]:
    """Returns id -> name of up to 65 534 names from 1 on, without 255; maps with ids above 254 are int32."""
    if not 1 <= len(names) <= 65_534:
        raise ValueError(f"there must be 1 to 65534 classes, got {len(names)}: ids have 16 bits")
    return {i + 1 + (i + 1 >= IGNORE): str(name) for i, name in enumerate(names)}


def even_split(
    class_names: Sequence[str] | Mapping[int, str], folds: int, fold: int, name: str
) -> ClassSplit:
    """Splits classes into ``folds`` contiguous groups, in id order; fold ``fold`` tests its group.

    When the classes do not divide evenly, the first groups get one class more.

    Raises:
        ValueError: the fold does not exist, or there are fewer classes than folds.
    """
    named = numbered(class_names)
    if folds < 2 or len(named) < folds:
        raise ValueError(
            f"split {name}: {len(named)} classes cannot make {folds} folds; "
            "use 2 folds at least and no more folds than classes"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"split {name} has folds 0..{folds - 1}, not {fold}: choose one of those")
    ids = list(named)
    size, extra = divmod(len(ids), folds)
    start = fold * size + min(fold, extra)
    novel = tuple(ids[start : start + size + (fold < extra)])
    base = tuple(i for i in ids if i not in novel)
    return ClassSplit(name=name, fold=fold, base=base, novel=novel, class_names=named)


def pascal_5i(fold: int) -> ClassSplit:
    """Returns PASCAL-5i: fold i tests classes 5i+1 .. 5i+5 of VOC's alphabetical 20.

    Raises:
        ValueError: the fold is not 0, 1, 2 or 3.
    """
    return even_split(VOC_CLASSES, folds=4, fold=fold, name="pascal-5i")


@dataclass(frozen=True, kw_only=True)
class FoldData:
    """One fold of a data set.

    Attributes:
        dataset: its name in results.
        source: reads every image of both lists.
        split: base and novel classes.
        train: index of the training images.
        test: index of the test images.
    """

    dataset: str
    source: Source
    split: ClassSplit
    train: Index
    test: Index

    def held_out(self, classes: Collection[int]) -> FoldData:
        """The fold with some base classes in the place of the novel ones, to choose a model by.

        Every second of the training images that show one of them is tested on, and is no training image. The
        others stay, as images of the novel classes do.

        Args:
            classes: base classes.

        Raises:
            ValueError: there is none, or one is not a base class.
        """
        unknown = sorted(set(classes) - set(self.split.base))
        if unknown or not classes:
            raise ValueError(
                f"held-out classes must be base classes of the fold, {self.split.base}, got {tuple(classes)}"
            )
        tested = self.train.images_with_any(classes)[::2]
        base = tuple(c for c in self.split.base if c not in classes)
        return replace(
            self,
            dataset=f"{self.dataset}, held-out base classes",
            split=replace(self.split, base=base, novel=tuple(sorted(classes))),
            train=self.train.only(id for id in self.train.ids if id not in set(tested)),
            test=self.train.only(tested),
        )


COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock"),
    *("vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Names in the order of their category ids; class x of COCO-20i is the x-th of them, from 1."""

_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # category ids without annotations
CATEGORY_IDS: tuple[int, ...] = tuple(i for i in range(1, 91) if i not in _UNUSED)
"""Category ids of the annotation files, 1 .. 90 with gaps, in the order of ``COCO_CLASSES``."""

CLASS_OF_CATEGORY: Mapping[int, int] = {
    category: number for number, category in enumerate(CATEGORY_IDS, start=1)
}
"""Category id 1 .. 90 -> class id 1 .. 80."""

_OTHER_NAMES = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"}
_OTHER_NAMES |= {"pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}

COCO_NAME_OF_VOC: Mapping[str, str] = {name: _OTHER_NAMES.get(name, name) for name in VOC_CLASSES}
"""VOC's name of a class -> COCO's name of the same: COCO has all 20."""

COCO_OF_VOC: Mapping[int, int] = {
    number: COCO_CLASSES.index(COCO_NAME_OF_VOC[name]) + 1 for number, name in numbered(VOC_CLASSES).items()
}
"""VOC class id 1 .. 20 -> COCO class id 1 .. 80."""


CocoSplit = Literal["B", "A"]
"""B: interleaved (FWB; PFENet, SCL, SD-AANet, HSNet). A: contiguous blocks of 20 (PANet)."""

_NAMES = numbered(COCO_CLASSES)


def coco_20i_novel(fold: int, split: CocoSplit = "B") -> tuple[int, ...]:
    """Returns the 20 test classes of a fold of COCO-20i, ascending; see :func:`coco_20i`."""
    if fold not in range(4):
        raise ValueError(f"split coco-20i has folds 0..3, not {fold}: choose one of those")
    if split not in ("A", "B"):
        raise ValueError(f"COCO-20i has splits 'B' (interleaved) and 'A' (blocks of 20), not {split!r}")
    return tuple(range(fold + 1, 81, 4) if split == "B" else range(20 * fold + 1, 20 * fold + 21))


def coco_20i(fold: int, split: CocoSplit = "B") -> ClassSplit:
    """Returns COCO-20i: a fold tests 20 of the 80 classes and trains on the others.

    Args:
        fold: 0 to 3.
        split: "B" tests {4x - 3 + fold : x = 1 .. 20}; "A" tests the block 20 fold + 1 .. 20 fold + 20.

    Returns:
        The split, named "coco-20i", and "coco-20i-a" for split A.

    Raises:
        ValueError: the fold or split is unknown.

    Source: FWB (Nguyen and Todorovic, ICCV 2019) for B, as SD-AANet, Sec. IV-A states it; PANet (Wang et al.,
    ICCV 2019), Sec. 4.1 for A.
    """
    novel = coco_20i_novel(fold, split)
    return _split("coco-20i", split, fold, novel, not_in=novel)


def coco_40_20_20(
    fold: int = 0, test: Literal["test", "validation"] = "test", split: CocoSplit = "B"
) -> ClassSplit:
    """Returns 40 training, 20 validation and 20 test classes.

    SRPNet (Ding et al. 2022), Sec. 4.5, gives the numbers (39 107, 5 895 and 9 763 images of "a subset of the
    original") and not which class is in which part, nor how the subset was made. Here a fold's test classes
    are those of COCO-20i, the validation classes those of the next fold (after 3 comes 0), and the other two
    folds are trained on; the images are those of COCO 2014 without further choice.

    Args:
        fold: 0 to 3.
        test: which 20 classes the split calls novel; the other 20 are in neither part. The base classes are
            the same, so a checkpoint may be tested on both.
        split: of COCO-20i.

    Raises:
        ValueError: the fold, part or split is unknown.
    """
    if test not in ("test", "validation"):
        raise ValueError(f"coco-40-20-20 tests on 'test' or 'validation' classes, not {test!r}")
    tested, validated = coco_20i_novel(fold, split), coco_20i_novel((fold + 1) % 4, split)
    novel = tested if test == "test" else validated
    return _split("coco-40-20-20", split, fold, novel, not_in={*tested, *validated})


def coco_to_voc(
    fold: int, folds: Literal["coco-20i", "pascal-5i"] = "coco-20i", split: CocoSplit = "B"
) -> ClassSplit:
    """Returns a split that trains on COCO and tests on VOC, in COCO's class ids.

    Args:
        fold: 0 to 3.
        folds: "coco-20i" trains on a fold's 60 base classes and tests those VOC classes that are not among
            them, as in the literature (RePRI, Boudiaf et al., CVPR 2021, Sec. 4: 6, 4, 6, 4 classes);
            "pascal-5i" tests a fold of PASCAL-5i and trains on the 75 COCO classes that are none of its five.
        split: of COCO-20i.

    Raises:
        ValueError: the fold or ``folds`` is unknown.
    """
    if folds == "coco-20i":
        unseen = coco_20i_novel(fold, split)
        novel = sorted(set(unseen) & set(COCO_OF_VOC.values()))
        return _split("coco-to-voc", split, fold, novel, not_in=unseen)
    if folds != "pascal-5i":
        raise ValueError(f"folds of coco-to-voc are those of 'coco-20i' or 'pascal-5i', not {folds!r}")
    novel = sorted(COCO_OF_VOC[c] for c in pascal_5i(fold).novel)
    return _split("coco-to-voc-5i", "B", fold, novel, not_in=novel)


def voc_to_coco(fold: int, split: CocoSplit = "B") -> ClassSplit:
    """Returns a split that trains on all 20 classes of VOC and tests on COCO classes that VOC has not.

    Args:
        fold: 0 to 3: of the 60 classes those that a fold of COCO-20i tests.
        split: of COCO-20i.

    Raises:
        ValueError: the fold or split is unknown.
    """
    voc = set(COCO_OF_VOC.values())
    novel = [c for c in coco_20i_novel(fold, split) if c not in voc]
    return _split("voc-to-coco", split, fold, novel, not_in=set(_NAMES) - voc)


def _split(
    family: str, split: CocoSplit, fold: int, novel: Iterable[int], not_in: Collection[int]
) -> ClassSplit:
    """Trains on all classes that are not in ``not_in``; the names of split A end in ``-a``."""
    base = tuple(c for c in _NAMES if c not in not_in)
    return ClassSplit(f"{family}-a" if split == "A" else family, fold, base, tuple(novel), _NAMES)
