"""How many images PASCAL-5i has: what a reader's lists and index are checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewseg.data.folds import pascal_5i
from fewseg.data.index import Index
from fewseg.data.protocols import PASCAL_MIN_AREA

PascalList = Literal["val", "voc+sbd_noval", "trainaug"]

IMAGES: dict[PascalList, int] = {"val": 1449, "voc+sbd_noval": 5953, "trainaug": 10582}
"""Images of each list."""

NOVEL_IMAGES = (364, 445, 592, 336)
"""Val images that show a novel class of fold 0..3 on 2048 pixels."""

NOVEL_PAIRS = (365, 467, 734, 357)
"""(image, novel class) pairs among them."""

BASE_IMAGES: dict[PascalList, tuple[int, int, int, int]] = {
    "voc+sbd_noval": (4760, 4588, 4097, 5108),
    "trainaug": (8535, 8199, 7154, 9119),
}
"""Training images that show a base class of fold 0..3 on 2048 pixels."""


@dataclass(frozen=True)
class Count:
    """A number found and the number known to be right."""

    what: str
    found: int
    expected: int

    @property
    def ok(self) -> bool:
        """Tells whether they are equal."""
        return self.found == self.expected

    def line(self) -> str:
        """Returns the count as a line of text."""
        return f"{'ok   ' if self.ok else 'WRONG'} {self.what}: {self.found} (expected {self.expected})"


def check_counts(index: Index, which: PascalList) -> tuple[Count, ...]:
    """Compares the index of a PASCAL list with the known counts.

    Args:
        index: of the val list or of a training list, whole.
        which: the list it should be.

    Raises:
        ValueError: there is no such list.
    """
    if which not in IMAGES:
        raise ValueError(f"PASCAL list {which!r} is unknown: choose of {sorted(IMAGES)}")
    counts = [Count(f"{which} images", len(index), IMAGES[which])]
    for fold in range(4):
        split = pascal_5i(fold)
        if which == "val":
            images = len(index.images_with_any(split.novel, PASCAL_MIN_AREA))
            pairs = sum(len(index.images_of(c, PASCAL_MIN_AREA)) for c in split.novel)
            counts.append(Count(f"fold {fold} val images with a novel class", images, NOVEL_IMAGES[fold]))
            counts.append(Count(f"fold {fold} val (image, novel class) pairs", pairs, NOVEL_PAIRS[fold]))
        else:
            images = len(index.images_with_any(split.base, PASCAL_MIN_AREA))
            expected = BASE_IMAGES[which][fold]
            counts.append(Count(f"fold {fold} {which} images with a base class", images, expected))
    return tuple(counts)
