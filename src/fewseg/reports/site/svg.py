"""Pieces of inline SVG: numbers, marks told apart by shape as well as colour, and the frame around them.

Colours are classes of ``assets/site.css``, so that a drawing follows the page from light to dark.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from fewseg.reports.html import Markup, element, joined

STYLES = 5
"""How many colours and shapes there are; series beyond them begin again."""

_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",  # circle
    "M-3.6 -3.6h7.2v7.2h-7.2z",  # square
    "M0 -4.6L4.4 3.4H-4.4z",  # triangle
    "M0 -5L5 0L0 5L-5 0z",  # diamond
    "M0 4.6L4.4 -3.4H-4.4z",  # triangle, point down
)


def number(value: float) -> str:
    """A place in a drawing, to a hundredth of a unit."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def mark(series: int, x: float, y: float) -> Markup:
    """The shape of a series, its centre at (x, y)."""
    shape = _SHAPES[series % STYLES]
    place = f"translate({number(x)} {number(y)})"
    return Markup(f'<path class="mark s{series % STYLES}" d="{shape}" transform="{place}"/>')


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """A straight line of a CSS class."""
    ends = zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    placed = " ".join(f'{name}="{number(v)}"' for name, v in ends)
    return Markup(f'<line class="{kind}" {placed}/>')


def text(content: str, x: float, y: float, kind: str = "", anchor: str = "start") -> Markup:
    """A line of text."""
    named = f' class="{kind}"' if kind else ""
    return Markup(
        f'<text{named} x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{html.escape(content)}</text>'
    )


def titled(title: str, value: str, *parts: Markup) -> Markup:
    """Parts with a title that shows on hovering, and the plotted value in full."""
    return element("g", element("title", title), *parts, data_value=value)


def drawing(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """A whole drawing; ``label`` says in words what it shows."""
    return element(
        "svg",
        joined(parts),
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        style=f"--width:{number(width)}px",
    )
