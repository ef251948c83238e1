"""mIoU by the size of the target with intervals, and differences on targets of one size.

A bin has few images, so that intervals are over images: a bin of one image has no width, and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fewseg.metrics import EpisodeCounts, bootstrap_score, miou_by_size, paired_difference
from fewseg.metrics.scores import SizeBin, size_label
from fewseg.metrics.statistics import check_same_episodes
from fewseg.reports.frame import FoldTable
from fewseg.reports.numbers import Estimate, mean_of, percent


@dataclass(frozen=True, kw_only=True)
class SizeScore:
    """One bin of one fold, or of the mean of folds.

    Attributes:
        low: pixels.
        high: pixels; None for no limit.
        episodes: how many.
        queries: how many images they segment; of a mean, in all folds.
        classes: how many classes they are of; of a mean, in all folds.
        miou: with its interval over images; None where there are none.
    """

    low: int
    high: int | None
    episodes: int
    queries: int
    classes: int
    miou: Estimate | None

    @property
    def label(self) -> str:
        """Such as "500-999" or "from 5000"."""
        return size_label(self.low, self.high)


def size_scores(table: EpisodeCounts, classes: Sequence[int], *, seed: int = 0) -> tuple[SizeScore, ...]:
    """:func:`fewseg.metrics.miou_by_size`, each score with its interval."""
    found = []
    for bin in miou_by_size(table, classes):
        score, inside = None, of_size(table, bin.low, bin.high)
        if bin.miou is not None:
            drawn = [c for c in classes if np.any(inside.class_id == c)]
            interval = bootstrap_score(inside, drawn, "miou", over="queries", seed=seed)
            score = Estimate(value=bin.miou, low=interval.low, high=interval.high)
        found.append(
            SizeScore(
                low=bin.low,
                high=bin.high,
                episodes=bin.episodes,
                queries=len(np.unique(inside.query)),
                classes=bin.classes,
                miou=score,
            )
        )
    return tuple(found)


def mean_size_score(folds: Sequence[SizeScore]) -> SizeScore | None:
    """The mean of one bin over folds; None where a fold has no episode of that size."""
    scores = [score.miou for score in folds if score.miou is not None]
    if len(scores) < len(folds):
        return None
    return SizeScore(
        low=folds[0].low,
        high=folds[0].high,
        episodes=sum(score.episodes for score in folds),
        queries=sum(score.queries for score in folds),
        classes=sum(score.classes for score in folds),
        miou=mean_of(scores),
    )


def of_size(table: EpisodeCounts, low: int, high: int | None) -> EpisodeCounts:
    """The 1-way episodes whose target has ``low`` to ``high`` - 1 pixels.

    They are numbered as of one seed: a bin of one seed has few episodes, so all are summed.
    """
    inside = table.fg_true >= max(low, 1)
    if high is not None:
        inside &= table.fg_true < high
    return pooled(table.select(inside))


def pooled(table: EpisodeCounts) -> EpisodeCounts:
    """The same episodes, numbered as those of one seed."""
    ordered = EpisodeCounts.join([table])
    number = np.arange(len(ordered), dtype=np.int64)
    return replace(ordered, seed=np.zeros_like(number), episode=number)


def size_gain(
    a: EpisodeCounts, b: EpisodeCounts, classes: Sequence[int], low: int, high: int | None, *, seed: int = 0
) -> tuple[Estimate, int] | None:
    """MIoU of b less that of a on targets of ``low`` to ``high`` - 1 pixels, with the number of images."""
    check_same_episodes(a, b)
    first, second = of_size(a, low, high), of_size(b, low, high)
    drawn = [c for c in classes if np.any(first.class_id == c)]
    if not drawn:
        return None
    found = paired_difference(first, second, drawn, over="queries", seed=seed)
    interval = found.interval
    return Estimate(value=found.difference, low=interval.low, high=interval.high), len(np.unique(first.query))


def size_cells(table: FoldTable) -> pd.DataFrame:
    """A row a method, a column a bin (SD-AANet, Fig. 10), as text.

    A cell is the mean over all folds, in percent, and the number of episodes; "-" where a fold has no episode
    of that size. A row that lacks folds has no mean: its folds stand by themselves, with what is missing.
    """
    results, lines = table.results, []
    for series in table.series:
        row, missing = table.row(series), table.missing(series)
        by_fold = [miou_by_size(results.counts[key], results.runs[key].classes) for key in row.key]
        named = {series: by_fold}
        if missing:
            name = "{}, fold {} ({}: no mean)".format
            named = {
                name(series, fold, missing): [bins] for fold, bins in zip(row.fold, by_fold, strict=True)
            }
        for name_of_row, folds in named.items():
            cells = {bins[0].label: _cell(bins) for bins in zip(*folds, strict=True)}
            lines.append({"pixels of the target": name_of_row} | cells)
    return pd.DataFrame(lines)


def _cell(bins: Sequence[SizeBin]) -> str:
    scores = [bin.miou for bin in bins if bin.miou is not None]
    if len(scores) < len(bins):
        return "-"
    return f"{percent(sum(scores) / len(scores))} ({sum(bin.episodes for bin in bins)})"
