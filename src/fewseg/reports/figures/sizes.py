"""SD-AANet's Fig. 10: mIoU by the size of the target, from result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fewseg.metrics import SIZE_EDGES
from fewseg.metrics.scores import size_label
from fewseg.reports.figures.base import PaperFigure, Record
from fewseg.reports.figures.drawing import panels, plain_axes, style
from fewseg.reports.figures.model import TABLE_III
from fewseg.reports.frame import FoldRow, FoldTable, fold_tables
from fewseg.reports.size_scores import mean_sizes, size_gain, size_scores

SMALL = SIZE_EDGES[-1]
"""Pixels below which the paper calls a target small."""
_MOST_ROWS = 8


def chosen_rows(table: FoldTable) -> dict[str, FoldRow]:
    """The rows of the paper's ablation, if any, in its order; else the first few rows."""
    plain = [row for row in table.rows if row.first.fusion != "iterative" and not row.first.multi_scale]
    first: dict[str, FoldRow] = {}
    for row in sorted(plain, key=lambda row: str(row.first.train_seed)):
        first.setdefault(_variant(row), row)
    rows = [row for row in plain if first[_variant(row)] is row]
    table_iii = [row for variant in TABLE_III for row in rows if _variant(row) == variant]
    return {_label(row): row for row in table_iii or rows[:_MOST_ROWS]}


def _variant(row: FoldRow) -> str:
    return str(row.first.variant or row.first.recipe)


def _label(row: FoldRow) -> str:
    seed = row.first.train_seed
    return f"{row.first.label}" + (f" (seed {seed})" if seed else "")


class Sizes(PaperFigure):
    """A figure for each data set and protocol that has 1-shot results."""

    name = "sizes"
    shows = "mIoU by the size of the target (SD-AANet 10)"
    needs = "1-shot results"

    def make(self) -> None:
        """Makes the figures."""
        context, frame = self.context, self.context.one_shot()
        if not len(frame):
            context.problems.append(f"{self.name}: no 1-shot result given")
        context.problems += [
            f"{self.name}: the results of {dataset} are of {number} protocols, which do not share a figure; "
            "there is one for each"
            for dataset, number in frame.groupby("dataset").protocol_digest.nunique().items()
            if number > 1
        ]
        for (dataset, protocol), group in frame.groupby(["dataset", "protocol_digest"]):
            with context.attempt(f"{self.name}, {dataset} [{protocol}]"):
                (table,) = fold_tables(context.results.only(group))
                self._of_table(table, f"{self.name}-{dataset}-{protocol}")

    def _of_table(self, table: FoldTable, name: str) -> None:
        rows = chosen_rows(table)
        self.context.problems += [
            f"{self.name}, {label}: {row.missing}" for label, row in rows.items() if row.missing
        ]
        folds = sorted(set.intersection(*(set(row.frame.index) for row in rows.values())))
        if not folds:
            raise ValueError("the methods have no fold in common: evaluate them on the same folds")
        if len(folds) == table.folds:
            self._figure(rows, folds, f"{table.heading}: mean of all folds", name)
        else:  # there is no mean over missing folds
            for fold in folds:
                self._figure(rows, [fold], f"{table.heading}: fold {fold}", f"{name}-fold{fold}")
        self.claims = {}
        self._claim(rows, folds)
        self.context.claim(table.dataset, self.claims)

    def _figure(self, rows: Mapping[str, FoldRow], folds: Sequence[int], title: str, name: str) -> None:
        """A figure of some folds, or of the mean of all."""
        results = self.context.results
        bins: dict[str, pd.DataFrame] = {}
        records: list[Record] = []
        for label, row in rows.items():
            scores = [
                size_scores(results.counts[key], results.runs[key].classes, seed=self.options.seed)
                for key in row.frame.key[list(folds)]
            ]
            mean = bins[label] = mean_sizes(scores).dropna(subset="miou")
            for fold, by_bin in [*zip(map(str, folds), scores, strict=True), ("mean", mean)]:
                if fold != "mean" or len(folds) > 1:
                    named = by_bin.drop(columns="classes").astype(object)
                    records += [{"method": label, "fold": fold, **line} for line in named.to_dict("records")]
        self.context.save(draw(bins, title), name, records)

    def _claim(self, rows: Mapping[str, FoldRow], folds: Sequence[int]) -> None:
        """Notes the gain of each method over the ablation's baseline on small and on large targets."""
        results = self.context.results
        base = next((label for label, row in rows.items() if _variant(row) == TABLE_III[0]), "")
        others = [label for label in rows if base and label != base]
        for label, (low, high), fold in product(others, ((0, SMALL), (SMALL, None)), folds):
            a, b = (rows[name].frame.key[fold] for name in (base, label))
            counts, classes = (results.counts[a], results.counts[b]), results.runs[a].classes
            gain = size_gain(*counts, classes, low, high, seed=self.options.seed)
            if gain is not None:
                size = f"below {high}" if high else f"from {low}"
                claim = f"{label} helps {'small' if high else 'large'} targets"
                self.claim(fold, claim, f"mIoU on targets {size} pixels less that of {base}", gain)


def draw(bins: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draws scores with whiskers by bin and method, and below them the number of query images per bin."""
    figure, ((above,), (below,)) = panels(7.5, 4.6, 2, height_ratios=[4, 1], sharex=True)
    labels = [size_label(low, high) for low, high in zip(SIZE_EDGES, [*SIZE_EDGES[1:], None], strict=True)]
    for i, (method, scores) in enumerate(bins.items()):
        above.errorbar(
            scores.index + 0.7 * ((i + 0.5) / len(bins) - 0.5),
            100 * scores.miou,
            yerr=(100 * np.array([scores.miou - scores.low, scores.high - scores.miou])).clip(min=0),
            markersize=5,
            capsize=2,
            linewidth=1,
            label=method,
            **style(i),
        )
    images = pd.concat([scores.images for scores in bins.values()]).groupby(level=0).max()
    counts = images.reindex(range(len(labels)), fill_value=0)
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
