"""SD-AANet's Fig. 10: mIoU by the size of the target, from result files alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fewseg.engine.results import RunResult
from fewseg.metrics import SIZE_EDGES, EpisodeCounts
from fewseg.reports.figures.context import FigureContext, Record
from fewseg.reports.figures.drawing import error_bars, new_figure, plain_axes, style
from fewseg.reports.figures.model import LABELS, TABLE_III
from fewseg.reports.numbers import Estimate
from fewseg.reports.size_scores import SizeScore, mean_size_score, size_gain, size_scores
from fewseg.reports.table import FoldRow, FoldTable, fold_tables

NAME = "sizes"
SMALL = SIZE_EDGES[-1]
"""Pixels below which the paper calls a target small."""
_MOST_ROWS = 8

Bins = tuple[SizeScore | None, ...]
"""One score a bin, over the folds that all methods share; None where a fold has no episode of that size."""


def make(context: FigureContext) -> None:
    """Makes a figure for each data set and protocol that has 1-shot results."""
    counts = {id(result): table for result, table in context.results}
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for result, _ in context.results:
        if (result.ways, result.shots, result.on) == (1, 1, "query"):
            groups[result.dataset, result.protocol_digest].append(result)
    if not groups:
        context.problems.append(f"{NAME}: no 1-shot result given")
    datasets = [dataset for dataset, _ in groups]
    for dataset in dict.fromkeys(datasets):
        if datasets.count(dataset) > 1:
            context.problems.append(
                f"{NAME}: the results of {dataset} are of {datasets.count(dataset)} protocols, which do not "
                "share a figure; there is one for each"
            )
    for (dataset, protocol), results in sorted(groups.items()):
        with context.attempt(f"{NAME}, {dataset} [{protocol}]"):
            (table,) = fold_tables(results)
            _of_table(context, table, counts, f"{NAME}-{dataset}-{protocol}")


def chosen_rows(table: FoldTable) -> list[FoldRow]:
    """The rows of the paper's ablation where there are any, in its order; else the first few rows.

    Of a recipe that was trained with several seeds the first is taken.
    """
    plain = [r for r in table.rows if r.fusion != "iterative" and not r.multi_scale]
    first: dict[str, FoldRow] = {}
    for row in sorted(plain, key=lambda r: str(r.seed)):
        first.setdefault(row.stem, row)
    rows = [row for row in plain if first[row.stem] is row]
    own = [r for stem in TABLE_III for r in rows if r.stem == stem]
    return own or rows[:_MOST_ROWS]


def _of_table(
    context: FigureContext, table: FoldTable, counts: Mapping[int, EpisodeCounts], name: str
) -> None:
    rows = chosen_rows(table)
    for row in rows:
        if row.missing(table.folds):
            context.problems.append(f"{NAME}, {_label(row)}: {row.missing(table.folds)}")
    folds = sorted(set.intersection(*(set(row.results) for row in rows)))
    if not folds:
        raise ValueError("the methods have no fold in common: evaluate them on the same folds")
    if len(folds) == table.folds:
        _figure(context, rows, folds, counts, f"{table.heading}: mean of all folds", name)
    else:  # there is no mean over missing folds
        for fold in folds:
            _figure(context, rows, [fold], counts, f"{table.heading}: fold {fold}", f"{name}-fold{fold}")
    base = next((r for r in rows if r.stem == TABLE_III[0]), None)
    for row in rows:
        if base is not None and row is not base:
            _claim(context, base, row, folds, counts, table.dataset)


def _figure(
    context: FigureContext,
    rows: Sequence[FoldRow],
    folds: Sequence[int],
    counts: Mapping[int, EpisodeCounts],
    title: str,
    name: str,
) -> None:
    """A figure of some folds, or of the mean of all."""
    bins: dict[str, Bins] = {}
    records: list[Record] = []
    for row in rows:
        kept = [(counts[id(row.results[fold])], row.results[fold].classes) for fold in folds]
        scores = [size_scores(*one, seed=context.options.seed) for one in kept]
        bins[_label(row)] = tuple(mean_size_score(bins) for bins in zip(*scores, strict=True))
        for fold, by_bin in zip(folds, scores, strict=True):
            records += [_record(row, f"{fold}", score) for score in by_bin]
        if len(folds) > 1:
            records += [_record(row, "mean", score) for score in bins[_label(row)] if score is not None]
    context.save(draw(bins, title), name, records)


def _label(row: FoldRow) -> str:
    label = LABELS.get(row.stem, row.stem or row.label)
    return f"{label} (seed {row.seed})" if row.seed else label


def _record(row: FoldRow, fold: str, score: SizeScore) -> Record:
    found = score.miou
    return {
        "method": _label(row),
        "fold": fold,
        "pixels_from": score.low,
        "pixels_below": score.high,
        "episodes": score.episodes,
        "images": score.queries,
        "miou": None if found is None else found.value,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
    }


def _claim(
    context: FigureContext,
    base: FoldRow,
    row: FoldRow,
    folds: Sequence[int],
    counts: Mapping[int, EpisodeCounts],
    dataset: str,
) -> None:
    for low, high in ((0, SMALL), (SMALL, None)):
        each: dict[int, tuple[Estimate, int]] = {}
        for fold in folds:
            a, b = base.results[fold], row.results[fold]
            seed = context.options.seed
            gain = size_gain(counts[id(a)], counts[id(b)], a.classes, low, high, seed=seed)
            if gain is not None:
                each[fold] = gain
        size = f"below {high}" if high else f"from {low}"
        claim = f"{_label(row)} helps {'small' if high else 'large'} targets"
        context.claim(claim, dataset, f"mIoU on targets {size} pixels less that of {_label(base)}", each)


def draw(bins: Mapping[str, Bins], title: str) -> Figure:
    """Scores with whiskers by bin and method, and below them how many query images each bin has."""
    figure = new_figure(7.5, 4.6)
    above, below = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    labels = [_bin(low) for low in SIZE_EDGES]
    for i, (method, scores) in enumerate(bins.items()):
        known = [(x, score.miou) for x, score in enumerate(scores) if score is not None and score.miou]
        above.errorbar(
            np.array([x for x, _ in known]) + 0.7 * ((i + 0.5) / len(bins) - 0.5),
            [100 * miou.value for _, miou in known],
            yerr=error_bars([miou for _, miou in known], 100),
            markersize=5,
            capsize=2,
            linewidth=1,
            label=method,
            **style(i),
        )
    counts = [
        max((score.queries for score in scores if score is not None), default=0)
        for scores in zip(*bins.values(), strict=True)
    ]
    below.bar(range(len(labels)), counts, color="0.6", edgecolor="black", linewidth=0.6)
    for x, n in enumerate(counts):
        below.annotate(str(n), (x, n), ha="center", va="bottom", fontsize=7)
    above.set_ylabel("mIoU (%)", fontsize=8)
    above.set_title(title, fontsize=9)
    above.legend(fontsize=8)
    below.set_ylabel("query images", fontsize=8)
    below.margins(y=0.3)
    below.set_xticks(range(len(labels)), labels, fontsize=7, rotation=30)
    below.set_xlabel("size of the target (pixels)", fontsize=8)
    for axes in (above, below):
        axes.tick_params(axis="y", labelsize=7)
        plain_axes(axes)
    return figure


def _bin(low: int) -> str:
    return f"from {low}" if low == SIZE_EDGES[-1] else f"{low}-{low + SIZE_EDGES[1] - 1}"
