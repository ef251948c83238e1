"""mIoU by the size of the target with intervals, and differences on targets of one size.

A bin has few images, so that intervals are over images: a bin of one image has no width, and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fewseg.metrics import EpisodeCounts, bootstrap_score, miou_by_size, paired_difference
from fewseg.metrics.scores import SizeBin
from fewseg.metrics.statistics import check_same_episodes
from fewseg.reports.frame import FoldTable
from fewseg.reports.numbers import Estimate, estimate_of, mean_of, percent


def size_scores(table: EpisodeCounts, classes: Sequence[int], *, seed: int = 0) -> pd.DataFrame:
    """:func:`fewseg.metrics.miou_by_size`, one row per bin, each score with its interval over images."""
    lines = []
    for bin in miou_by_size(table, classes):
        inside, low, high = of_size(table, bin.low, bin.high), None, None
        if bin.miou is not None:
            drawn = [c for c in classes if np.any(inside.class_id == c)]
            interval = bootstrap_score(inside, drawn, "miou", over="queries", seed=seed)
            low, high = interval.low, interval.high
        counted = (bin.low, bin.high, bin.episodes, len(np.unique(inside.query)), bin.classes)
        lines.append((*counted, bin.miou, low, high))
    names = ["pixels_from", "pixels_below", "episodes", "images", "classes", "miou", "low", "high"]
    return pd.DataFrame(lines, columns=names).astype(
        {"pixels_below": "Int64", **dict.fromkeys(names[5:], float)}
    )


def mean_sizes(folds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of each bin over folds, and its episodes in all folds; NaN if a fold has none."""
    mean, counted = folds[0].copy(), ["episodes", "images", "classes"]
    mean[counted] = sum(fold[counted] for fold in folds)
    for i in mean.index:
        estimates = [Estimate(value=f.miou[i], low=f.low[i], high=f.high[i]) for f in folds]
        mean.loc[i, ["miou", "low", "high"]] = list(vars(mean_of(estimates)).values())
    return mean


def of_size(table: EpisodeCounts, low: int, high: int | None) -> EpisodeCounts:
    """The 1-way episodes whose target has ``low`` to ``high`` - 1 pixels.

    They are numbered as of one seed: a bin of one seed has few episodes, so all are summed.
    """
    inside = table.fg_true >= max(low, 1)
    if high is not None:
        inside &= table.fg_true < high
    ordered = EpisodeCounts.join([table.select(inside)])
    number = np.arange(len(ordered), dtype=np.int64)
    return replace(ordered, seed=np.zeros_like(number), episode=number)


def size_gain(
    a: EpisodeCounts, b: EpisodeCounts, classes: Sequence[int], low: int, high: int | None, *, seed: int = 0
) -> tuple[Estimate, int] | None:
    """MIoU of b less mIoU of a on targets of ``low`` to ``high`` - 1 pixels, and the number of images."""
    check_same_episodes(a, b)
    first, second = of_size(a, low, high), of_size(b, low, high)
    drawn = [c for c in classes if np.any(first.class_id == c)]
    if not drawn:
        return None
    paired = paired_difference(first, second, drawn, over="queries", seed=seed)
    return estimate_of(paired), len(np.unique(first.query))


def size_cells(table: FoldTable) -> pd.DataFrame:
    """One row per method, one column per bin (SD-AANet, Fig. 10), as text."""
    lines = []
    for row in table.rows:
        counts = [row.results.counts[key] for key in row.frame.key]
        by_fold = [miou_by_size(of_fold, run.classes) for of_fold, run in zip(counts, row.runs, strict=True)]
        named = {row.name: by_fold}
        if row.missing:
            named = {
                f"{row.name}, fold {fold} ({row.missing}: no mean)": [bins]
                for fold, bins in zip(row.frame.index, by_fold, strict=True)
            }
        for name, folds in named.items():
            cells = {bins[0].label: _cell(bins) for bins in zip(*folds, strict=True)}
            lines.append({"pixels of the target": name} | cells)
    return pd.DataFrame(lines)


def _cell(bins: Sequence[SizeBin]) -> str:
    scores = [bin.miou for bin in bins if bin.miou is not None]
    if len(scores) < len(bins):
        return "-"
    return f"{percent(sum(scores) / len(scores))} ({sum(bin.episodes for bin in bins)})"
