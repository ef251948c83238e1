"""How figures look: colours for all eyes, marks for black and white, and two files of each.

Source of the colours: Okabe and Ito, Color Universal Design (2008).
"""

from __future__ import annotations

from pathlib import Path

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


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Writes ``<stem>.pdf`` and ``<stem>.png``, each whole or not at all; neither holds a date.

    Raises:
        OSError: a file could not be written.
    """
    vector, raster = stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")
    with atomic_path(vector) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    with atomic_path(raster) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
    return vector, raster
