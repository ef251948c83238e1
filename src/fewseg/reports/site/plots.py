"""The page's plots: matplotlib figures as inline SVG whose colours follow the page from light to dark.

Figures are drawn in placeholder colours, each of which stands for a variable of ``assets/site.css``. Texts
stay texts, marks carry their value and a title, and no id of one plot is that of another.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fewseg.reports.numbers import Estimate, gain_with_interval, with_interval

INK, SOFT, RULE, PALE, CARD = "#000001", "#000002", "#000003", "#000004", "#000005"
SERIES = tuple(f"#00001{i}" for i in range(5))
MEAN = 4
"""The series of a mean: its own shape, and larger."""
MARKERS = ("o", "s", "^", "D", "v")
_VARIABLES = dict(
    zip((INK, SOFT, RULE, PALE, CARD), ("ink", "soft", "line", "pale", "card"), strict=True)
) | {colour: f"s{i}" for i, colour in enumerate(SERIES)}
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 2, 2)),
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.edgecolor": RULE,
    "grid.color": RULE,
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
}
_SIDE, _TOP, _BOTTOM, _LABEL, _STEP, _GAP = 16.0, 46.0, 44.0, 17.0, 8.0, 11.0  # pixels
_WIDTH, _LETTER = 900.0, 6.9
_ROWS = 12  # of a drawing: so that its axis is in sight, and it fits a sheet of paper

Titles = Mapping[str, tuple[str, str]]
"""Id of a mark to its title, and its value in full or ""."""


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """A band of a chart: its label, a note such as missing folds, and (series, name of it, estimate)."""

    label: str
    note: str
    estimates: Sequence[tuple[int, str, Estimate]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line in a panel."""

    series: int  # which colour and dash
    x: Sequence[float]  # places
    y: Sequence[float]  # values; NaN breaks the line
    ends: Sequence[tuple[float, float]] = ()  # the interval of each value, or none
    # title and full value of each finite point; without, points have no marks
    titles: Sequence[tuple[str, str]] = ()


def interval_charts(
    name: str, rows: Sequence[IntervalRow], axis: str, label: str, *, signed: bool = False
) -> list[Markup]:
    """Draws rows of estimates over one axis in percent, in several drawings where there are many rows."""
    longest = max((len(text) for row in rows for text in (row.label, row.note)), default=0)
    width = max(_WIDTH, longest * _LETTER + 2 * _SIDE)
    ends = [100 * end for row in rows for _, _, e in row.estimates for end in (e.low, e.high, e.value)]
    ticks = round_ticks([*ends, 0.0] if signed else ends, 9)
    series = sorted({(number, title) for row in rows for number, title, _ in row.estimates})
    pieces = [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]
    charts = []
    for i, piece in enumerate(pieces, start=1):
        part = label if len(pieces) == 1 else f"{label} (part {i} of {len(pieces)})"
        with rc_context(_STYLE):
            figure, titles = _interval_chart(piece, series, ticks, axis, width, signed=signed)
            charts.append(inline_svg(figure, f"{name}-{i}", part, titles))
    return charts


def _interval_chart(
    rows: Sequence[IntervalRow],
    series: Sequence[tuple[int, str]],
    ticks: Sequence[float],
    axis: str,
    width: float,
    *,
    signed: bool,
) -> tuple[Figure, Titles]:
    heads = [_LABEL * (2 if row.note else 1) for row in rows]
    tops = np.cumsum([0.0, *(head + _STEP * len(series) + _GAP for head in heads)])
    height = _TOP + tops[-1] + _BOTTOM
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((_SIDE / width, _BOTTOM / height, 1 - 2 * _SIDE / width, tops[-1] / height))
    axes.set_xlim(ticks[0], ticks[-1])
    axes.set_ylim(float(tops[-1]), 0)
    axes.set_yticks([])
    axes.set_xticks(ticks)
    axes.tick_params(axis="x", labeltop=True)
    axes.spines[:].set_visible(False)
    axes.grid(axis="x", linewidth=1)
    axes.set_xlabel(axis)
    for row, top, end, head in zip(rows, tops, tops[1:], heads, strict=False):
        axes.axhline(top, color=RULE, linewidth=1)
        left: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
        axes.text(0, top + 9, row.label, weight="bold", size=12.5, **left)
        if row.note:
            axes.text(0, top + 9 + _LABEL - 2, row.note, color=SOFT, size=11.5, **left)
        if signed:
            axes.vlines(0, top + head, end - 2, color=INK, linewidth=1.2, linestyle="--")
    titles: dict[str, tuple[str, str]] = {}
    for k, (number, title) in enumerate(series):
        words = gain_with_interval if signed else with_interval
        width = 2.6 if number == MEAN else 1.6
        for i, (row, top, head) in enumerate(zip(rows, tops, heads, strict=False)):
            y = top + head + _STEP * (k + 0.6)
            for of_series, _, estimate in row.estimates:
                if of_series == number:
                    text, id = f"{row.label}, {title}: {words(estimate)}", f"mark-{k}-{i}"
                    ends = [100 * estimate.low, 100 * estimate.high]
                    axes.plot(ends, [y, y], color=SERIES[number], linewidth=width, gid=f"line-{id}")
                    axes.plot(100 * estimate.value, y, **_mark(number), linestyle="none", gid=id)
                    titles |= {id: (text, repr(estimate.value)), f"line-{id}": (text, "")}
    handles = [Line2D([], [], **_mark(number), linestyle="none", label=title) for number, title in series]
    figure.legend(
        handles=handles, loc="upper left", ncols=len(series), frameon=False, borderpad=0.1, handletextpad=0.1
    )
    return figure, titles


def _mark(series: int) -> dict[str, Any]:
    size = {"o": 7.5, "s": 7, "^": 8.5, "D": 6.5, "v": 9}[MARKERS[series]]
    return {
        "marker": MARKERS[series],
        "color": SERIES[series],
        "markersize": size,
        "markeredgecolor": CARD,
        "markeredgewidth": 0.6,
    }


def round_ticks(values: Sequence[float], most: int) -> list[float]:
    """Ticks at round numbers that enclose all finite values, also of none or of equal ones."""
    finite = [v for v in values if np.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    ticks = [float(t) for t in MaxNLocator(most - 1, steps=[1, 2, 5, 10]).tick_values(low, high)]
    first = max((i for i, tick in enumerate(ticks) if tick <= low + 1e-9), default=0)
    last = min((i for i, tick in enumerate(ticks) if tick >= high - 1e-9), default=len(ticks) - 1)
    return ticks[first : last + 1]


def panel(
    name: str,
    label: str,
    curves: Sequence[Curve],
    *,
    x: tuple[Sequence[float], float, str],
    y: tuple[Sequence[float], str],
    pale: Sequence[Curve] = (),
    behind: str = "",
) -> Markup:
    """A small chart of lines."""
    with rc_context(_STYLE | {"font.size": 11, "axes.labelsize": 11.5, "xtick.labelsize": 11}):
        figure = Figure(figsize=(300 / 72, 200 / 72))
        axes = figure.add_axes((44 / 300, 40 / 200, 240 / 300, 148 / 200))
        _frame(axes, x, y)
        if pale:
            lines = [np.column_stack((curve.x, curve.y)) for curve in pale]
            axes.add_collection(
                LineCollection(lines, colors=PALE, linewidths=1, capstyle="projecting", gid=behind)
            )
        titles = {}
        for i, curve in enumerate(curves):
            colour, dash = SERIES[curve.series % len(SERIES)], _DASHES[curve.series % len(_DASHES)]
            axes.plot(curve.x, curve.y, color=colour, linestyle=dash, linewidth=1.6, solid_joinstyle="round")
            if curve.ends:
                whiskers = [
                    (at, *ends) for at, ends in zip(curve.x, curve.ends, strict=True) if np.isfinite(ends[0])
                ]
                axes.vlines(*zip(*whiskers, strict=True), color=colour, linewidth=1)
            points = [(at, v) for at, v in zip(curve.x, curve.y, strict=True) if np.isfinite(v)]
            style = _mark(curve.series % len(SERIES)) | {"markeredgewidth": 0}
            for k, ((at, v), title) in enumerate(zip(points, curve.titles, strict=False)):
                axes.plot(at, v, **style, linestyle="none", gid=f"point-{i}-{k}")
                titles[f"point-{i}-{k}"] = title
        return inline_svg(figure, name, label, titles, "" if pale else behind)


def _frame(axes: Axes, x: tuple[Sequence[float], float, str], y: tuple[Sequence[float], str]) -> None:
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xticks(x[0])
    axes.set_xlim(x[0][0], x[1])
    axes.set_yticks(y[0])
    axes.set_ylim(y[0][0], y[0][-1])
    axes.tick_params(axis="x", length=3)
    axes.set_xlabel(x[2], labelpad=2)
    axes.set_ylabel(y[1], labelpad=2)
    axes.yaxis.set_label_coords(-33 / 240, 0.5)


def legend_line(series: int) -> Markup:
    """The sample of a curve in a legend."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(34 / 72, 10 / 72))
        colour, dash = SERIES[series % len(SERIES)], _DASHES[series % len(_DASHES)]
        figure.add_artist(Line2D([0.03, 0.97], [0.5, 0.5], color=colour, linestyle=dash, linewidth=1.6))
        return inline_svg(figure, f"sample-{series}", "")


def inline_svg(
    figure: Figure, name: str, label: str, titles: Titles | None = None, behind: str = ""
) -> Markup:
    """A figure as an ``<svg>`` of the page; without a label it is hidden from screen readers."""
    file = io.StringIO()
    about = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no metadata
    with rc_context({"svg.hashsalt": name}):  # so that no id of one plot is that of another
        figure.savefig(file, format="svg", transparent=True, metadata=about)
    head, start, rest = file.getvalue().partition('<g id="figure_1">')
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)[0]
    body = re.sub(r' clip-path="[^"]*"|<defs>\s*<clipPath.*</defs>', "", start + rest, flags=re.DOTALL)
    body = re.sub(r' (d|x|y|transform|style|xlink:href)="[^"]*"', _plain, body)
    for id, (title, value) in (titles or {}).items():
        own = f' data-value="{value}"' if value else ""
        body = body.replace(f'<g id="{id}">', f"<g{own}><title>{escape(title)}</title>")
    body = re.sub(r' id="[\w.]+_\d+"', "", re.sub(r">\s+<", "><", body))  # ids that matplotlib counts
    described = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    use = f'<use href="#{behind}"/>' if behind else ""
    size = f'viewBox="0 0 {width} {height}" style="--width:{width}px"'
    return Markup(f"<svg {size} {described}>{use}{body.strip()}")


def _plain(attribute: re.Match[str]) -> str:
    """An attribute with short numbers, the page's colours and font, and no line break."""
    text = " ".join(attribute[0].split()).removeprefix("xlink:").replace(' "', '"')
    if text.startswith("style"):
        text = re.sub(r"font-family: [^;]*; ?", "", text)
        text = re.sub(r"#0000\d\d", lambda colour: f"var(--{_VARIABLES[colour[0]]})", text)
        return " " + text.replace(": ", ":").replace("; ", ";")
    return " " + re.sub(r"-?\d+\.\d+", lambda number: f"{round(float(number[0]), 2) + 0.0:g}", text)
