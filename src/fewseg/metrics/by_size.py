"""mIoU of the episodes whose target has about one size.

Source: SD-AANet (Zhao et al. 2022), Fig. 10: ten bins of 500 pixels below 5000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewseg.metrics.counts import EpisodeCounts
from fewseg.metrics.scores import check_classes, per_class

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
    found = table.select(inside)
    drawn = [c for c in classes if np.any(found.class_id == c)]
    score = float(np.mean(list(per_class(found, drawn).values()))) if drawn else None
    return SizeBin(low=low, high=high, episodes=len(found), classes=len(drawn), miou=score)
