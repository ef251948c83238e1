"""COCO's 80 classes: names, category ids and their numbers here; VOC's classes among them."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal

from fewseg.data.folds import VOC_CLASSES, ClassSplit, numbered, pascal_5i

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

CLASS_OF_CATEGORY: MappingProxyType[int, int] = MappingProxyType(
    {category: number for number, category in enumerate(CATEGORY_IDS, start=1)}
)
"""Category id 1 .. 90 -> class id 1 .. 80."""

_OTHER_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

COCO_NAME_OF_VOC: MappingProxyType[str, str] = MappingProxyType(
    {name: _OTHER_NAMES.get(name, name) for name in VOC_CLASSES}
)
"""VOC's name of a class -> COCO's name of the same: COCO has all 20."""

COCO_OF_VOC: MappingProxyType[int, int] = MappingProxyType(
    {number: COCO_CLASSES.index(COCO_NAME_OF_VOC[name]) + 1 for number, name in numbered(VOC_CLASSES).items()}
)
"""VOC class id 1 .. 20 -> COCO class id 1 .. 80."""


CocoSplit = Literal["B", "A"]
"""B: interleaved (FWB; PFENet, SCL, SD-AANet, HSNet). A: contiguous blocks of 20 (PANet)."""

_NAMES = numbered(COCO_CLASSES)


def coco_20i_novel(fold: int, split: CocoSplit = "B") -> tuple[int, ...]:
    """Returns the 20 test classes of a fold of COCO-20i, ascending; see :func:`coco_20i`.

    Raises:
        ValueError: there is no such fold or split.
    """
    if fold not in range(4):
        raise ValueError(f"split coco-20i has folds 0..3, not {fold}: choose one of those")
    if split not in ("A", "B"):
        raise ValueError(f"COCO-20i has splits 'B' (interleaved) and 'A' (blocks of 20), not {split!r}")
    if split == "B":
        return tuple(4 * x - 3 + fold for x in range(1, 21))
    return tuple(range(20 * fold + 1, 20 * fold + 21))


def coco_20i(fold: int, split: CocoSplit = "B") -> ClassSplit:
    """Returns COCO-20i: a fold tests 20 of the 80 classes and trains on the others.

    Args:
        fold: 0 to 3.
        split: "B" tests {4x - 3 + fold : x = 1 .. 20}; "A" tests the block 20 fold + 1 .. 20 fold + 20.

    Returns:
        The split, named "coco-20i", and "coco-20i-a" for split A.

    Raises:
        ValueError: there is no such fold or split.

    Source: FWB (Nguyen and Todorovic, ICCV 2019) for B, as SD-AANet, Sec. IV-A states it; PANet (Wang et al.,
    ICCV 2019), Sec. 4.1 for A.
    """
    novel = coco_20i_novel(fold, split)
    name = "coco-20i" if split == "B" else "coco-20i-a"
    return _split(name, fold, novel, not_in=novel)


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
        ValueError: there is no such fold, part or split.
    """
    if test not in ("test", "validation"):
        raise ValueError(f"coco-40-20-20 tests on 'test' or 'validation' classes, not {test!r}")
    tested, validated = coco_20i_novel(fold, split), coco_20i_novel((fold + 1) % 4, split)
    name = "coco-40-20-20" if split == "B" else "coco-40-20-20-a"
    return _split(name, fold, tested if test == "test" else validated, not_in={*tested, *validated})


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
        ValueError: there is no such fold, or other ``folds``.
    """
    if folds == "coco-20i":
        unseen = coco_20i_novel(fold, split)
        novel = sorted(set(unseen) & set(COCO_OF_VOC.values()))
        return _split(_crossed("coco-to-voc", split), fold, novel, not_in=unseen)
    if folds != "pascal-5i":
        raise ValueError(f"folds of coco-to-voc are those of 'coco-20i' or 'pascal-5i', not {folds!r}")
    novel = sorted(COCO_OF_VOC[c] for c in pascal_5i(fold).novel)
    return _split("coco-to-voc-5i", fold, novel, not_in=novel)


def voc_to_coco(fold: int, split: CocoSplit = "B") -> ClassSplit:
    """Returns a split that trains on all 20 classes of VOC and tests on COCO classes that VOC has not.

    Args:
        fold: 0 to 3: of the 60 classes those that a fold of COCO-20i tests.
        split: of COCO-20i.

    Raises:
        ValueError: there is no such fold or split.
    """
    base = sorted(COCO_OF_VOC.values())
    novel = tuple(c for c in coco_20i_novel(fold, split) if c not in base)
    return ClassSplit(_crossed("voc-to-coco", split), fold, tuple(base), novel, _NAMES)


def _crossed(name: str, split: CocoSplit) -> str:
    return name if split == "B" else f"{name}-a"


def _split(name: str, fold: int, novel: Iterable[int], not_in: Iterable[int]) -> ClassSplit:
    """Trains on all classes that are not in ``not_in``."""
    unseen = set(not_in)
    base = tuple(c for c in _NAMES if c not in unseen)
    return ClassSplit(name=name, fold=fold, base=base, novel=tuple(novel), class_names=_NAMES)
