"""How many images COCO 2014 has: what the reader and its index are checked against."""

from __future__ import annotations

from fewseg.data.coco import CocoPart, CocoSource
from fewseg.data.coco_splits import coco_20i
from fewseg.data.index import Index
from fewseg.data.pascal_counts import Count

LISTED: dict[CocoPart, int] = {"train": 82783, "val": 40504}
"""Images of each part's annotation file."""

ANNOTATED: dict[CocoPart, int] = {"train": 82081, "val": 40137}
"""Those with annotations."""

HSNET_IMAGES: dict[CocoPart, tuple[int, int, int, int]] = {
    "train": (62040, 74381, 73035, 73808),
    "val": (26052, 15305, 13138, 12640),
}
"""HSNet's lists, split B: train images with a base class, val images with a novel class of fold 0..3."""

_NEAR = 0.01


def check_coco_counts(source: CocoSource, part: CocoPart) -> tuple[Count, ...]:
    """Compares the numbers of listed and of annotated images with the known ones.

    Args:
        source: of the whole annotation file.
        part: "train" or "val".

    Raises:
        ValueError: there is no such part.
    """
    if part not in LISTED:
        raise ValueError(f"COCO part {part!r} is unknown: choose of {sorted(LISTED)}")
    return (
        Count(f"{part}2014 images listed", source.listed, LISTED[part]),
        Count(f"{part}2014 images with annotations", len(source), ANNOTATED[part]),
    )


def hsnet_lines(index: Index, part: CocoPart, min_area: int = 1) -> tuple[str, ...]:
    """Sets images per fold beside HSNet's lists, a line a fold.

    How HSNet's lists were filtered is not published, so a difference is a remark and no error.

    Args:
        index: of the part.
        part: "train" (base classes) or "val" (novel classes).
        min_area: pixels a class must cover to count as present.
    """
    lines = []
    for fold, expected in enumerate(HSNET_IMAGES[part]):
        split = coco_20i(fold)
        kind, classes = ("base", split.base) if part == "train" else ("novel", split.novel)
        found = len(index.images_with_any(classes, min_area))
        verdict = "like" if abs(found - expected) <= _NEAR * expected else "unlike"
        lines.append(
            f"note  fold {fold} {part} images with a {kind} class from {min_area} px: {found}, {verdict} "
            f"HSNet's list ({expected})"
        )
    return tuple(lines)
