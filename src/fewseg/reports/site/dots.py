"""A chart of estimates with their intervals: a band a row, a shape a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fewseg.reports.html import Markup, joined
from fewseg.reports.numbers import Estimate, gain_with_interval, with_interval
from fewseg.reports.site.scale import Scale, scale_over
from fewseg.reports.site.svg import drawing, line, mark, text, titled

MEAN = 4
"""The series of a mean: its own shape, and larger."""

_SIDE, _TOP, _BOTTOM, _LABEL, _STEP, _GAP = 16.0, 46.0, 44.0, 17.0, 8.0, 11.0
_WIDTH, _LETTER = 900.0, 6.9
_ROWS = 12  # of a drawing: so that its axis is in sight, and it fits a sheet of paper


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One estimate.

    Attributes:
        series: which shape; :data:`MEAN` for a mean.
        name: of the series, e.g. "fold 2".
        estimate: fractions.
    """

    series: int
    name: str
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """A band.

    Attributes:
        label: its row of the table.
        note: such as which folds are missing, or "".
        dots: its estimates.
    """

    label: str
    note: str
    dots: tuple[Dot, ...]


def dot_chart(rows: Sequence[DotRow], axis: str, label: str, *, signed: bool = False) -> Markup:
    """Draws rows of estimates over one axis in percent, in several drawings where there are many rows.

    Args:
        rows: one band each.
        axis: what the axis shows, with its unit.
        label: what the chart shows, in words.
        signed: differences: with a line at 0, and signs in the titles.
    """
    longest = max((len(words) for row in rows for words in (row.label, row.note)), default=0)
    width = max(_WIDTH, longest * _LETTER + 2 * _SIDE)
    dots = [dot for row in rows for dot in row.dots]
    ends = [100 * end for d in dots for end in (d.estimate.low, d.estimate.high, d.estimate.value)]
    scale = scale_over([*ends, 0.0] if signed else ends, _SIDE, width - _SIDE, ticks=9)
    series = sorted({(dot.series, dot.name) for dot in dots})
    pieces = [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]
    drawings = []
    for i, piece in enumerate(pieces, start=1):
        told = label if len(pieces) == 1 else f"{label} (part {i} of {len(pieces)})"
        drawings.append(_drawn(piece, series, scale, axis, told, width, signed=signed))
    return joined(drawings)


def _drawn(
    rows: Sequence[DotRow],
    series: Sequence[tuple[int, str]],
    scale: Scale,
    axis: str,
    label: str,
    width: float,
    *,
    signed: bool,
) -> Markup:
    """One drawing of some rows."""
    place = {kind: i for i, kind in enumerate(series)}
    tops = [_TOP]
    for row in rows:
        tops.append(tops[-1] + _head(row) + _STEP * len(series) + _GAP)
    height = tops[-1] + _BOTTOM
    parts = [*_legend(series), *_axes(scale, axis, height, width)]
    for row, (top, end) in zip(rows, pairwise(tops), strict=True):
        parts += [line("rule", _SIDE, top, width - _SIDE, top), _band_label(row, top)]
        if signed:
            parts.append(line("zero", scale.at(0), top + _head(row), scale.at(0), end - 2))
        for dot in row.dots:
            y = top + _head(row) + _STEP * (place[dot.series, dot.name] + 0.6)
            parts.append(_dot(row, dot, scale, y, signed=signed))
    return drawing(width, height, label, parts)


def _head(row: DotRow) -> float:
    """Height of what stands above a row's dots: its label and, where there is one, its note."""
    return _LABEL * (2 if row.note else 1)


def _band_label(row: DotRow, top: float) -> Markup:
    lines = [text(row.label, _SIDE, top + 13, "row")]
    lines += [text(row.note, _SIDE, top + 13 + _LABEL - 2, "note")] if row.note else []
    return joined(lines)


def _dot(row: DotRow, dot: Dot, scale: Scale, y: float, *, signed: bool) -> Markup:
    estimate = dot.estimate
    told = gain_with_interval(estimate) if signed else with_interval(estimate)
    ends = scale.at(100 * estimate.low), scale.at(100 * estimate.high)
    kind = f"interval s{dot.series}" + (" mean" if dot.series == MEAN else "")
    return titled(
        f"{row.label}, {dot.name}: {told}",
        repr(estimate.value),
        line(kind, ends[0], y, ends[1], y),
        mark(dot.series, scale.at(100 * estimate.value), y),
    )


def _legend(series: Sequence[tuple[int, str]]) -> list[Markup]:
    parts, x = [], _SIDE + 5
    for kind, name in series:
        parts += [mark(kind, x, 9), text(name, x + 9, 13)]
        x += 24 + _LETTER * len(name)
    return parts


def _axes(scale: Scale, axis: str, height: float, width: float) -> list[Markup]:
    bottom = height - _BOTTOM
    parts = []
    for tick in scale.ticks:
        x = scale.at(tick)
        parts.append(line("grid", x, _TOP, x, bottom))
        parts += [text(scale.text(tick), x, y, "tick", "middle") for y in (_TOP - 6, bottom + 14)]
    return [*parts, text(axis, width / 2, height - 8, "axis", "middle")]
