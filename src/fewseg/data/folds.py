"""Which classes a fold trains on and which it tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fewseg.types import IGNORE

_MOST_IDS = 65_535  # of 16 bits without 0

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
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
    """Returns id -> name; a plain sequence of names is numbered from 1 (0 is background).

    Raises:
        ValueError: no class, or an id outside 1..254 (0 is background, 255 is ignore).
    """
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


def wide_numbered(names: Sequence[str]) -> dict[int, str]:
    """Returns id -> name for up to 65 534 names, numbered from 1; 255 is left out, it is ignore everywhere.

    Label maps with ids above 254 are int32 tensors, and 16 bits on disk.

    Raises:
        ValueError: there are no names or too many.
    """
    if not 1 <= len(names) <= _MOST_IDS - 1:
        raise ValueError(f"there must be 1 to {_MOST_IDS - 1} classes, got {len(names)}: ids have 16 bits")
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
