"""mIoU, FB-IoU and Dice of an episode table: integer sums first, one ratio afterwards. Fractions in [0, 1].

Integers are summed over all episodes of a class, then comes the ratio, then the mean over the fold's classes.
The mean of per-episode IoU is another number, and none of the papers reports it.

With several ways a class is scored in every episode in which it is a way, whether the query shows it or not:
there its false positives count. Only FB-IoU looks at the rows of any way (class 0).

Source: SCL (Zhang et al. 2021), section 5.2, for mIoU and FB-IoU; SRPNet's tables for Dice,
where Table 3 is :func:`dice_of_miou`, not :func:`dice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewseg.metrics.counts import ANY_WAY, EpisodeCounts


def per_class(table: EpisodeCounts, classes: Sequence[int]) -> dict[int, float]:
    """Foreground IoU of each class: its summed intersections over its summed unions.

    Args:
        table: the episodes.
        classes: the fold's class ids; the result keeps their order.

    Raises:
        ValueError: a class that no episode drew, one drawn but without a foreground pixel in prediction and
            truth, or an episode of a class that is not in ``classes`` (0, any way, is no class of a fold).
    """
    sums = class_sums(table, classes, ("fg_inter", "fg_union"))
    return dict(zip(classes, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))


def miou(table: EpisodeCounts, classes: Sequence[int]) -> float:
    """Mean over the fold's classes of :func:`per_class`.

    Raises:
        ValueError: as :func:`per_class`.
    """
    return float(np.mean(list(per_class(table, classes).values())))


def dice(table: EpisodeCounts, classes: Sequence[int]) -> float:
    """Mean over the fold's classes of 2 TP / (2 TP + FP + FN), summed over the class's episodes.

    SRPNet's Table 3 has another number: :func:`dice_of_miou`.

    Raises:
        ValueError: as :func:`per_class`.
    """
    sums = class_sums(table, classes, ("fg_inter", "fg_pred", "fg_true"))
    return float(np.mean(2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])))


def dice_of_miou(mean_iou: float) -> float:
    """Dice of a mean IoU m, 2 m / (1 + m): never below the mean of per-class Dice, :func:`dice`.

    Source: 23 of the 24 cells of SRPNet (Ding et al. 2022), Table 3, are this of its Table 2.

    Raises:
        ValueError: the mean IoU is not in [0, 1].
    """
    if not 0.0 <= mean_iou <= 1.0:
        raise ValueError(f"a mean IoU must be a fraction in [0, 1], got {mean_iou}: divide percent by 100")
    return 2 * mean_iou / (1 + mean_iou)


def fb_iou(table: EpisodeCounts) -> float:
    """Mean of foreground and background IoU, each from sums over all episodes whatever their class.

    For several ways this is PANet's binary IoU (Wang et al., ICCV 2019, Sec. 4.1): all the ways of an episode
    are one foreground. It is summed over the rows of any way (class 0) where the table has them, otherwise
    over all rows.

    Raises:
        ValueError: no episode, or no foreground (or background) pixel in any prediction or truth.
    """
    any_way = table.class_id == ANY_WAY
    if np.any(any_way):
        table = table.select(any_way)
    ratios = []
    for ground, word in (("fg", "foreground"), ("bg", "background")):
        union = int(getattr(table, f"{ground}_union").sum())
        if union == 0:
            raise ValueError(
                f"FB-IoU needs {word} pixels, and {len(table)} episodes have none: check the masks"
            )
        ratios.append(int(getattr(table, f"{ground}_inter").sum()) / union)
    return sum(ratios) / 2


def class_sums(table: EpisodeCounts, classes: Sequence[int], columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """(classes, columns) int64: sums of count columns over each class's episodes, or its ways of them."""
    check_classes(table, classes)
    return np.array(
        [[getattr(table, column)[table.class_id == c].sum() for column in columns] for c in classes],
        dtype=np.int64,
    )


def check_classes(table: EpisodeCounts, classes: Sequence[int]) -> None:
    """Raises a ValueError unless the episodes can score exactly these classes."""
    if not classes or len(set(classes)) != len(classes) or ANY_WAY in classes:
        raise ValueError(
            f"the classes of a fold must be one or more different ids other than {ANY_WAY}, got "
            f"{list(classes)}"
        )
    foreign = sorted(set(table.class_id.tolist()) - {*classes, ANY_WAY})
    if foreign:
        raise ValueError(
            f"episodes of class {foreign} are in the table of a fold whose classes are {list(classes)}: "
            "score them with their own fold"
        )
    missing = [c for c in classes if not np.any(table.class_id == c)]
    if missing:
        raise ValueError(
            f"class {missing} was never drawn in {table.episodes} episodes, so its IoU does not exist (it is "
            "not 0 or 1): evaluate more episodes or check the image list"
        )
    empty = [c for c in classes if table.fg_union[table.class_id == c].sum() == 0]
    if empty:
        raise ValueError(
            f"class {empty} was drawn, but no pixel is foreground in any prediction or truth: check the masks"
        )


SIZE_EDGES = tuple(range(0, 5001, 500))
"""Edges of Fig. 10's bins, pixels of the target."""


@dataclass(frozen=True, kw_only=True)
class SizeBin:
    """Episodes whose target has ``low`` to ``high`` - 1 pixels.

    Attributes:
        low: pixels.
        high: pixels; None for no limit.
        episodes: how many there are, all seeds together; of several ways every way counts.
        classes: how many classes they are of.
        miou: of these episodes, a fraction; None where there are none.
    """

    low: int
    high: int | None
    episodes: int
    classes: int
    miou: float | None

    @property
    def label(self) -> str:
        """Such as "500-999" or "from 5000"."""
        return size_label(self.low, self.high)


def size_label(low: int, high: int | None) -> str:
    """Such as "500-999" or "from 5000"."""
    return f"from {low}" if high is None else f"{low}-{high - 1}"


def miou_by_size(
    table: EpisodeCounts, classes: Sequence[int], edges: Sequence[int] = SIZE_EDGES
) -> tuple[SizeBin, ...]:
    """Scores bins of episodes by the number of foreground pixels of their truth.

    Sums are over all seeds, since a bin of one seed has few episodes; the mean is over the classes that the
    bin has episodes of. Pixels are those that were counted: of the labels at the protocol's size, without
    ignored ones. A query that does not show its class (of several ways) has no size and is in no bin.

    Args:
        table: the episodes.
        classes: the fold's class ids.
        edges: two or more, ascending.

    Returns:
        One bin between each two edges, and the last from the last edge on.

    Raises:
        ValueError: the edges do not ascend from 0 or more, or the table does not fit the classes.
    """
    if len(edges) < 2 or edges[0] < 0 or list(edges) != sorted(set(edges)):
        raise ValueError(f"size edges {list(edges)}: give two or more, ascending, from 0 pixels")
    check_classes(table, classes)
    limits: list[int | None] = [*edges[1:], None]
    return tuple(_bin(table, low, high, classes) for low, high in zip(edges, limits, strict=True))


def _bin(table: EpisodeCounts, low: int, high: int | None, classes: Sequence[int]) -> SizeBin:
    inside = np.isin(table.class_id, classes) & (table.fg_true >= max(low, 1))
    if high is not None:
        inside &= table.fg_true < high
    binned = table.select(inside)
    drawn = [c for c in classes if np.any(binned.class_id == c)]
    score = float(np.mean(list(per_class(binned, drawn).values()))) if drawn else None
    return SizeBin(low=low, high=high, episodes=len(binned), classes=len(drawn), miou=score)
