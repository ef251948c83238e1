"""SD-AANet's Fig. 10: mIoU by the size of the target, from result files alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fewseg.engine.results import RunResult
from fewseg.metrics import SIZE_EDGES, EpisodeCounts
from fewseg.reports.figures.data_files import Row
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import colour, line, marker, new_figure, plain_axes
from fewseg.reports.figures.subjects import NAMES
from fewseg.reports.numbers import Estimate
from fewseg.reports.size_scores import SizeScore, mean_size_score, size_gain, size_scores
from fewseg.reports.table import FoldRow, FoldTable, fold_tables

NAME = "sizes"
SMALL = SIZE_EDGES[-1]
"""Pixels below which the paper calls a target small."""
STEMS = ("sdaanet_baseline", "sdaanet_saam", "sdaanet_sdpm", "sdaanet")
_MOST_ROWS = 8
_BASE = "sdaanet_baseline"


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """A method by the size of the target, over the folds that all methods of the figure have.

    Attributes:
        label: of the method.
        bins: one score a bin; None where a fold has no episode of that size.
    """

    label: str
    bins: tuple[SizeScore | None, ...]


def make(study: Study) -> None:
    """Makes a figure for each data set and protocol that has 1-shot results."""
    counts = {id(result): table for result, table in study.results}
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for result, _ in study.results:
        if (result.ways, result.shots, result.on) == (1, 1, "query"):
            groups[result.dataset, result.protocol_digest].append(result)
    if not groups:
        study.problems.append(f"{NAME}: no 1-shot result given")
    by_set: dict[str, int] = defaultdict(int)
    for dataset, _ in groups:
        by_set[dataset] += 1
    for dataset, number in by_set.items():
        if number > 1:
            study.problems.append(
                f"{NAME}: the results of {dataset} are of {number} protocols, which do not share a figure; "
                "there is one for each"
            )
    for (dataset, protocol), results in sorted(groups.items()):
        with study.attempt(f"{NAME}, {dataset} [{protocol}]"):
            (table,) = fold_tables(results)
            _of_table(study, table, counts, f"{NAME}-{dataset}-{protocol}")


def chosen_rows(table: FoldTable) -> list[FoldRow]:
    """The rows of the paper's ablation where there are any, in its order; else the first few rows.

    Of a recipe that was trained with several seeds the first is taken.
    """
    plain = [r for r in table.rows if r.fusion != "iterative" and not r.multi_scale]
    first: dict[str, FoldRow] = {}
    for row in sorted(plain, key=lambda r: str(r.seed)):
        first.setdefault(row.stem, row)
    rows = [row for row in plain if first[row.stem] is row]
    own = [r for stem in STEMS for r in rows if r.stem == stem]
    return own or rows[:_MOST_ROWS]


def _of_table(study: Study, table: FoldTable, counts: Mapping[int, EpisodeCounts], name: str) -> None:
    rows = chosen_rows(table)
    for row in rows:
        if row.missing(table.folds):
            study.problems.append(f"{NAME}, {_label(row)}: {row.missing(table.folds)}")
    folds = sorted(set.intersection(*(set(row.results) for row in rows)))
    if not folds:
        raise ValueError("the methods have no fold in common: evaluate them on the same folds")
    if len(folds) == table.folds:
        _figure(study, rows, folds, counts, f"{table.heading}: mean of all folds", name)
    else:  # there is no mean over missing folds
        for fold in folds:
            _figure(study, rows, [fold], counts, f"{table.heading}: fold {fold}", f"{name}-fold{fold}")
    base = next((r for r in rows if r.stem == _BASE), None)
    for row in rows:
        if base is not None and row is not base:
            _claim(study, base, row, folds, counts, table.dataset)


def _figure(
    study: Study,
    rows: Sequence[FoldRow],
    folds: Sequence[int],
    counts: Mapping[int, EpisodeCounts],
    title: str,
    name: str,
) -> None:
    """A figure of some folds, or of the mean of all."""
    found, data = [], []
    for row in rows:
        kept = [(counts[id(row.results[fold])], row.results[fold].classes) for fold in folds]
        scores = [size_scores(*one, seed=study.seed) for one in kept]
        bins = tuple(mean_size_score(bins) for bins in zip(*scores, strict=True))
        found.append(SizeRow(label=_label(row), bins=bins))
        for fold, by_bin in zip(folds, scores, strict=True):
            data += [_row(row, f"{fold}", score) for score in by_bin]
        if len(folds) > 1:
            data += [_row(row, "mean", score) for score in bins if score is not None]
    study.save(draw(found, title), name, data)


def _label(row: FoldRow) -> str:
    label = NAMES.get(row.stem, row.stem or row.label)
    return f"{label} (seed {row.seed})" if row.seed else label


def _row(row: FoldRow, fold: str, score: SizeScore) -> Row:
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
    study: Study,
    base: FoldRow,
    row: FoldRow,
    folds: Sequence[int],
    counts: Mapping[int, EpisodeCounts],
    dataset: str,
) -> None:
    for low, high in ((0, SMALL), (SMALL, None)):
        each: dict[int, tuple[Estimate, int]] = {}
        for fold in folds:
            pair = [(counts[id(r.results[fold])], r.results[fold].classes) for r in (base, row)]
            one = size_gain(pair[0][0], pair[1][0], pair[0][1], low, high, seed=study.seed)
            if one is not None:
                each[fold] = one
        size = f"below {high}" if high else f"from {low}"
        claim = f"{_label(row)} helps {'small' if high else 'large'} targets"
        study.claim(claim, dataset, f"mIoU on targets {size} pixels less that of {_label(base)}", each)


def draw(rows: Sequence[SizeRow], title: str) -> Figure:
    """Scores with whiskers by bin, and below them how many query images each bin has."""
    figure = new_figure(7.5, 4.6)
    above, below = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    labels = [_bin(low) for low in SIZE_EDGES]
    for i, row in enumerate(rows):
        known = [(x, score) for x, score in enumerate(row.bins) if score is not None and score.miou]
        place = np.array([x for x, _ in known]) + 0.7 * ((i + 0.5) / len(rows) - 0.5)
        values = [score.miou for _, score in known if score.miou]
        above.errorbar(
            place,
            [100 * v.value for v in values],
            yerr=[[100 * (v.value - v.low) for v in values], [100 * (v.high - v.value) for v in values]],
            color=colour(i),
            marker=marker(i),
            linestyle=line(i),
            markersize=5,
            capsize=2,
            linewidth=1,
            label=row.label,
        )
    counts = [
        max((score.queries for score in scores if score is not None), default=0)
        for scores in zip(*(row.bins for row in rows), strict=True)
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
