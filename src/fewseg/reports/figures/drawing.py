"""How figures look: colours for all eyes, marks for black and white, bars, grids of photographs, files.

Source of the colours: Okabe and Ito, Color Universal Design (2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion

from fewseg.ops.files import atomic_path
from fewseg.reports.marked_pictures import Picture
from fewseg.reports.numbers import Estimate

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "--", "++")
LINES = ("-", "--", "-.", ":")
MAP_COLOURS = "cividis"
"""Colour map of maps of numbers; its lightness rises evenly, so that it works in black and white."""
LEGEND = "outlined: predicted; orange inside the outline: wrong; blue outside it: missed"

_DPI = 150
_SIDE, _NOTE = 1.7, 0.2  # inches


def style(i: int) -> dict[str, str]:
    """Colour, marker and line style of item i."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i % len(LINES)],
    }


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, *, title: str = "", **options: Any
) -> tuple[Figure, npt.NDArray[Any]]:
    """A figure of this size in inches, outside pyplot's global state, and its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def plain_axes(axes: Axes) -> None:
    """Removes the frame's upper and right side and draws a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def error_bars(estimates: Sequence[Estimate], scale: float) -> list[list[float]]:
    """Lengths below and above each value, for matplotlib's ``yerr``."""
    return [
        [max(0.0, scale * (e.value - e.low)) for e in estimates],
        [max(0.0, scale * (e.high - e.value)) for e in estimates],
    ]


Groups = Mapping[str, Mapping[str, Estimate]]
"""A group of bars to a kind of bar to its value."""


def grouped_bars(
    axes: Axes, groups: Groups, kinds: Mapping[str, str], *, scale: float = 100, unit: str = "%"
) -> None:
    """Draws a group of bars with whiskers for each entry of ``groups``, one bar for each kind that it has."""
    present = [kind for kind in kinds if any(kind in group for group in groups.values())]
    width = 0.8 / max(len(present), 1)
    for i, kind in enumerate(present):
        offset = (i - (len(present) - 1) / 2) * width
        values = [(g + offset, group[kind]) for g, group in enumerate(groups.values()) if kind in group]
        number = list(kinds).index(kind)
        axes.bar(
            [place for place, _ in values],
            [scale * v.value for _, v in values],
            width,
            yerr=error_bars([v for _, v in values], scale),
            capsize=2,
            color=COLOURS[number % len(COLOURS)],
            edgecolor="black",
            linewidth=0.6,
            hatch=HATCHES[number % len(HATCHES)],
            label=kinds[kind],
            error_kw={"linewidth": 0.8},
        )
    axes.set_xticks(range(len(groups)), list(groups), fontsize=7)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    plain_axes(axes)


def bar_chart(
    size: tuple[float, float],
    charts: Mapping[str, Groups],
    kinds: Mapping[str, str],
    *,
    columns: int = 1,
    title: str = "",
    scale: float = 100,
    unit: str = "%",
    line: float | None = None,
    limits: tuple[float, float | None] | None = None,
    title_size: int = 9,
    legend_columns: int = 2,
    legend_size: int = 8,
) -> Figure:
    """A panel of bars for each title of ``charts``, row by row, above one legend of all ``kinds``.

    ``line`` is marked across; with an open upper limit all panels share their axis.
    """
    shared = limits is not None and limits[1] is None
    figure, axes = panels(*size, len(charts) // columns, columns, title=title, sharey=shared)
    for ax, (heading, groups) in zip(axes.flat, charts.items(), strict=True):
        grouped_bars(ax, groups, kinds, scale=scale, unit=unit)
        if line is not None:
            ax.axhline(line, color="black", linewidth=0.6, linestyle=":" if line else "-")
        if limits:
            ax.set_ylim(*limits)
        ax.set_title(heading, fontsize=title_size)
    fullest = max(axes.flat, key=lambda ax: len(ax.get_legend_handles_labels()[0]))
    legend_below(figure, legend_columns, of=fullest, fontsize=legend_size)
    return figure


def legend_below(figure: Figure, columns: int = 1, *, of: Axes | None = None, fontsize: int = 8) -> None:
    """The legend of one panel, the first by default, below all panels."""
    handles = (of or figure.axes[0]).get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=fontsize)


Noted = tuple[Picture, str]
"""A picture of a grid, and the note below it."""


def grid(rows: Sequence[Sequence[Noted]], columns: Sequence[str], names: Sequence[str], title: str) -> Figure:
    """A grid of pictures with headings, names of the rows and a title."""
    heights = [_SIDE * max(picture.shape[0] / picture.shape[1] for picture, _ in row) + _NOTE for row in rows]
    size = (_SIDE * len(columns) + 0.6, sum(heights) + 0.9)
    figure, axes = panels(*size, len(rows), len(columns), title=title, height_ratios=heights)
    for row, places, name in zip(rows, axes, names, strict=True):
        places[0].set_ylabel(name, fontsize=8)
        for (picture, note), ax in zip(row, places, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.imshow(picture)
            ax.set_xlabel(note, fontsize=7, labelpad=2)
    for ax, heading in zip(axes[0], columns, strict=True):
        ax.set_title(heading, fontsize=8)
    return figure


def unit_range(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scales values linearly to [0, 1]; zeros if they are all equal."""
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / (high - low) if high > low else np.zeros_like(values))


def overlay(
    picture: Picture, values: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_] | None = None
) -> Picture:
    """Lays a map (H, W) in [0, 1] over a grey picture (H, W, 3); ``truth`` is outlined in white."""
    colours = colormaps[MAP_COLOURS](values)[..., :3] * 255
    mixed: Picture = (0.35 * picture.mean(axis=2, keepdims=True) + 0.65 * colours).astype(np.uint8)
    if truth is None:
        return np.asarray(mixed)
    outline = truth & ~binary_erosion(truth, border_value=1)
    return np.where(outline[..., None], np.uint8(255), mixed)


def add_scale(figure: Figure, label: str) -> None:
    """Adds the scale of maps in [0, 1] on the right."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), MAP_COLOURS), ax=figure.axes, shrink=0.6, aspect=30, pad=0.01
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def save(figure: Figure, stem: Path, *, svg: bool = True) -> list[Path]:
    """Writes ``<stem>.pdf``, ``.png`` and ``.svg`` without dates, each atomically."""
    kinds = {"pdf": "CreationDate", "png": "", **({"svg": "Date"} if svg else {})}
    paths = []
    for kind, date in kinds.items():
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        with atomic_path(paths[-1]) as temporary, rc_context({"svg.hashsalt": "fewseg"}):
            figure.savefig(temporary, format=kind, dpi=_DPI, metadata={date: None} if date else None)
    return paths
