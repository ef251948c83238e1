"""mIoU by the size of the target, a small chart a row over those of all rows (SD-AANet, Fig. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fewseg.metrics.scores import SIZE_EDGES
from fewseg.reports.gains import CountsOf
from fewseg.reports.html import Cell, Markup, element, joined, table
from fewseg.reports.numbers import Estimate, with_interval
from fewseg.reports.site.download import csv_link
from fewseg.reports.site.panels import BOTTOM, LEFT, RIGHT, TOP, Curve, panel, polyline
from fewseg.reports.site.scale import Scale, scale_over
from fewseg.reports.size_scores import SizeScore, mean_size_score, size_scores
from fewseg.reports.sizes import size_cells
from fewseg.reports.table import FoldRow, FoldTable

_STEP = SIZE_EDGES[-1] - SIZE_EDGES[-2]
_END = SIZE_EDGES[-1] + _STEP
_TICKS = tuple((float(edge), str(edge)) for edge in SIZE_EDGES[::2])


def sizes(id: str, shown: FoldTable, counts_of: CountsOf) -> list[Cell]:
    """Charts of the rows that have all folds; table and data of all rows."""
    binned = [(row, _bins(row, counts_of)) for row in shown.rows]
    whole = [(row, bins) for row, bins in binned if not row.missing(shown.folds)]
    curves = [_curve(row, bins) for row, bins in whole]
    x = Scale(low=0, high=_END, start=LEFT, end=RIGHT, step=1000)
    heights = [100 * high for curve in curves for _, _, high in curve.intervals]
    y = scale_over([0.0, *heights], BOTTOM, TOP, ticks=6)
    scaled = [_in_percent(curve) for curve in curves]
    group = f"{id}-all-sizes"
    axes = ("pixels of the target; the last from 5000", "mIoU (%)")
    panels = [panel(curve.name, [curve], x, y, axes, _TICKS, group) for curve in scaled]
    data = [
        [row.method, row.fusion, row.variant, fold, b.low, b.high, b.episodes, b.classes, *_ends(b.miou)]
        for row, bins in binned
        for fold, of_fold in zip(sorted(row.results), bins, strict=True)
        for b in of_fold
    ]
    columns = ["method", "fusion", "variant", "fold", "pixels_from", "pixels_below", "episodes", "classes"]
    note = (
        "Mean over all folds, of the episodes whose target has about one size, with 95 % intervals over "
        "query images; pale: the other rows. A point is missing where a fold has no such episode."
    )
    return [
        element("h3", "By the size of the target"),
        element("p", note, class_="soft"),
        *_told(shown, whole),
        _pale(group, [polyline(curve, x, y) for curve in scaled]),
        element("div", *panels, class_="panels"),
        element("details", element("summary", "The sizes as a table"), _table(shown, counts_of)),
        csv_link(f"{id}-sizes", [*columns, "miou", "low", "high"], data),
    ]


Binned = tuple[FoldRow, list[tuple[SizeScore, ...]]]


def _told(shown: FoldTable, whole: Sequence[Binned]) -> list[Cell]:
    """How many episodes a point stands for, and which rows have no curve."""
    lines = [_episodes([bins for _, bins in whole])] if whole else []
    lacking = [
        f"{r.label} {r.fusion}, {r.missing(shown.folds)}" for r in shown.rows if r.missing(shown.folds)
    ]
    if lacking:
        lines.append(f"No curve, since there is no mean over missing folds: {'; '.join(lacking)}.")
    return [element("p", line, class_="soft") for line in lines]


def _episodes(rows: Sequence[list[tuple[SizeScore, ...]]]) -> str:
    """Episodes of each size in all folds together; where the rows differ, the fewest and the most."""
    parts = []
    for place, first in enumerate(rows[0][0]):
        counts = {sum(fold[place].episodes for fold in row) for row in rows}
        number = " to ".join(map(str, sorted({min(counts), max(counts)})))
        parts.append(f"{number} of {first.label} pixels")
    return f"Episodes behind a point: {', '.join(parts)}."


def _bins(row: FoldRow, counts_of: CountsOf) -> list[tuple[SizeScore, ...]]:
    return [size_scores(counts_of(r), r.classes) for _, r in sorted(row.results.items())]


def _ends(score: Estimate | None) -> tuple[float | None, ...]:
    return (None, None, None) if score is None else (score.value, score.low, score.high)


def _curve(row: FoldRow, bins: Sequence[tuple[SizeScore, ...]]) -> Curve:
    """Mean over all folds of each bin, a fraction; None where a fold has no such episode."""
    points: list[tuple[float, float | None]] = []
    intervals, told = [], []
    name = f"{row.label} {row.fusion}"
    for of_bin in zip(*bins, strict=True):
        at, mean = of_bin[0].low + _STEP / 2, mean_size_score(of_bin)
        score = None if mean is None else mean.miou
        points.append((at, None if score is None else score.value))
        if mean is not None and score is not None:
            intervals.append((at, score.low, score.high))
            text = f"{name}, {mean.label} pixels: {with_interval(score)} ({mean.episodes} episodes)"
            told.append((text, repr(score.value)))
    return Curve(series=0, name=name, points=tuple(points), told=tuple(told), intervals=tuple(intervals))


def _in_percent(curve: Curve) -> Curve:
    return replace(
        curve,
        points=tuple((at, None if v is None else 100 * v) for at, v in curve.points),
        intervals=tuple((at, 100 * low, 100 * high) for at, low, high in curve.intervals),
    )


def _pale(id: str, lines: Sequence[Markup]) -> Markup:
    """Lines of all rows, drawn once and used behind every panel."""
    group = element("g", joined(lines), id=id, class_="pale")
    return element("svg", element("defs", group), class_="definitions", aria_hidden="true")


def _table(shown: FoldTable, counts_of: CountsOf) -> Markup:
    caption = f"{shown.heading}: mIoU in percent by the pixels of the target (episodes)."
    return table(*size_cells(shown, counts_of), caption)
