"""How figures look: colours for all eyes, marks for black and white, and the files of each.

Source of the colours: Okabe and Ito, Color Universal Design (2008).
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewseg.ops.files import atomic_path

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "--", "++")
LINES = ("-", "--", "-.", ":")
MAP_COLOURS = "cividis"
"""For maps of numbers: its lightness rises evenly, so that it reads in black and white."""

_DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, which no global state knows."""
    return Figure(figsize=(width, height), layout="constrained")


def colour(i: int) -> str:
    """The colour of item i."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    """The marker of item i."""
    return MARKERS[i % len(MARKERS)]


def hatch(i: int) -> str:
    """The hatch of item i."""
    return HATCHES[i % len(HATCHES)]


def line(i: int) -> str:
    """The line style of item i."""
    return LINES[i % len(LINES)]


def plain_axes(axes: Axes) -> None:
    """Takes the frame's upper and right side away and draws a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def save(figure: Figure, stem: Path, *, svg: bool = True) -> list[Path]:
    """Writes ``<stem>.pdf``, ``.png`` and ``.svg``, each whole or not at all; none holds a date.

    Args:
        figure: what is drawn.
        stem: of the files.
        svg: for pages, which can show no PDF; of photographs it is larger than the PNG and no sharper.

    Raises:
        OSError: a file could not be written.
    """
    kinds = {"pdf": "CreationDate", "png": "", **({"svg": "Date"} if svg else {})}
    paths = []
    for kind, date in kinds.items():
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        with atomic_path(paths[-1]) as temporary, rc_context({"svg.hashsalt": "fewseg"}):
            figure.savefig(temporary, format=kind, dpi=_DPI, metadata={date: None} if date else None)
    return paths
