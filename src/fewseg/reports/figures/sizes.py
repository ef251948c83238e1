"""SD-AANet's Fig. 10: mIoU by the size of the target, from result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fewseg.metrics import SIZE_EDGES
from fewseg.reports.figures.context import FigureContext, Record
from fewseg.reports.figures.drawing import error_bars, new_figure, plain_axes, style
from fewseg.reports.figures.model import TABLE_III, label_of
from fewseg.reports.frame import FoldTable, fold_tables
from fewseg.reports.numbers import Estimate
from fewseg.reports.size_scores import SizeScore, mean_size_score, size_gain, size_scores

NAME = "sizes"
SMALL = SIZE_EDGES[-1]
"""Pixels below which the paper calls a target small."""
_MOST_ROWS = 8

Bins = tuple[SizeScore | None, ...]
"""One score a bin, over the folds that all methods share; None where a fold has no episode of that size."""


def make(context: FigureContext) -> None:
    """Makes a figure for each data set and protocol that has 1-shot results."""
    frame = context.results.frame
    frame = frame[(frame.ways == 1) & (frame.shots == 1) & (frame.on == "query")]
    if not len(frame):
        context.problems.append(f"{NAME}: no 1-shot result given")
    for dataset, protocols in frame.groupby("dataset", sort=False).protocol_digest.nunique().items():
        if protocols > 1:
            context.problems.append(
                f"{NAME}: the results of {dataset} are of {protocols} protocols, which do not share a "
                "figure; there is one for each"
            )
    for (dataset, protocol), own in frame.groupby(["dataset", "protocol_digest"]):
        with context.attempt(f"{NAME}, {dataset} [{protocol}]"):
            (table,) = fold_tables(context.results.only(own))
            _of_table(context, table, f"{NAME}-{dataset}-{protocol}")


def chosen_rows(table: FoldTable) -> dict[str, str]:
    """Label to row: those of the paper's ablation where there are any, in its order; else the first few.

    Of a recipe that was trained with several seeds the first is taken.
    """
    frame = table.results.frame
    plain = frame[(frame.fusion != "iterative") & ~frame.multi_scale]
    plain = plain.assign(
        seed=plain.train_seed.map(str), known=plain.variant.where(plain.variant != "", plain.recipe)
    )
    first = plain.sort_values("seed", kind="stable").drop_duplicates("known").set_index("known")
    first = first.loc[plain.known.drop_duplicates()]
    own = [variant for variant in TABLE_III if variant in first.index]
    chosen = first.loc[own] if own else first.head(_MOST_ROWS)
    seeds = [f" (seed {seed})" if seed else "" for seed in chosen.train_seed]
    labels = [label_of(known) + seed for known, seed in zip(chosen.index, seeds, strict=True)]
    return dict(zip(labels, chosen.series, strict=True))


def _of_table(context: FigureContext, table: FoldTable, name: str) -> None:
    rows = {label: table.row(series) for label, series in chosen_rows(table).items()}
    for label, series in chosen_rows(table).items():
        if table.missing(series):
            context.problems.append(f"{NAME}, {label}: {table.missing(series)}")
    folds = sorted(set.intersection(*(set(row.index) for row in rows.values())))
    if not folds:
        raise ValueError("the methods have no fold in common: evaluate them on the same folds")
    keys = {label: [row.key[fold] for fold in folds] for label, row in rows.items()}
    if len(folds) == table.folds:
        _figure(context, keys, folds, f"{table.heading}: mean of all folds", name)
    else:  # there is no mean over missing folds
        for i, fold in enumerate(folds):
            of_fold = {label: [own[i]] for label, own in keys.items()}
            _figure(context, of_fold, [fold], f"{table.heading}: fold {fold}", f"{name}-fold{fold}")
    base = next((label for label, row in rows.items() if row.variant.iloc[0] == TABLE_III[0]), None)
    for label in rows:
        if base is not None and label != base:
            _claim(context, (base, keys[base]), (label, keys[label]), folds, table.dataset)


def _figure(
    context: FigureContext, keys: Mapping[str, Sequence[str]], folds: Sequence[int], title: str, name: str
) -> None:
    """A figure of some folds, or of the mean of all; the keys of each row's results are by fold."""
    results, bins = context.results, dict[str, Bins]()
    records: list[Record] = []
    for label, own in keys.items():
        scores = [
            size_scores(results.counts[k], results.runs[k].classes, seed=context.options.seed) for k in own
        ]
        bins[label] = tuple(mean_size_score(bins) for bins in zip(*scores, strict=True))
        for fold, by_bin in zip(folds, scores, strict=True):
            records += [_record(label, f"{fold}", score) for score in by_bin]
        if len(folds) > 1:
            records += [_record(label, "mean", score) for score in bins[label] if score is not None]
    context.save(draw(bins, title), name, records)


def _record(label: str, fold: str, score: SizeScore) -> Record:
    found = score.miou
    return {
        "method": label,
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
    base: tuple[str, Sequence[str]],
    row: tuple[str, Sequence[str]],
    folds: Sequence[int],
    dataset: str,
) -> None:
    results, seed = context.results, context.options.seed
    for low, high in ((0, SMALL), (SMALL, None)):
        each: dict[int, tuple[Estimate, int]] = {}
        for fold, a, b in zip(folds, base[1], row[1], strict=True):
            classes = results.runs[a].classes
            gain = size_gain(results.counts[a], results.counts[b], classes, low, high, seed=seed)
            if gain is not None:
                each[fold] = gain
        size = f"below {high}" if high else f"from {low}"
        claim = f"{row[0]} helps {'small' if high else 'large'} targets"
        context.claim(claim, dataset, f"mIoU on targets {size} pixels less that of {base[0]}", each)


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
