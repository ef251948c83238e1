"""Scores of classes as a table whose cells are coloured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib import colormaps

from fewseg.engine.results import RunResult
from fewseg.reports.html import Cell, Markup, element, table
from fewseg.reports.numbers import percent
from fewseg.reports.table import FoldRow

_MAP = "cividis"
"""Looks the same with and without colour blindness; its lightness rises evenly, so that it also prints."""


def colour(fraction: float) -> tuple[str, str]:
    """The colour of a score in [0, 1], and black or white, whichever is easier to read on it, as #rrggbb."""
    red, green, blue, _ = colormaps[_MAP](min(max(fraction, 0.0), 1.0))
    light = _luminance(red, green, blue)
    ink = "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue)), ink


def _luminance(red: float, green: float, blue: float) -> float:
    """Relative luminance of an sRGB colour. Source: WCAG 2.2, definition of relative luminance."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def heat_cell(fraction: float, *, best: bool = False) -> Markup:
    """A score in percent on its colour."""
    ground, ink = colour(fraction)
    number = element("b", percent(fraction)) if best else percent(fraction)
    return element(
        "span", number, class_="heat", style=f"background:{ground};color:{ink}", data_value=repr(fraction)
    )


def heat_table(
    rows: Sequence[tuple[str, FoldRow]],
    folds: int,
    score: Callable[[RunResult], Mapping[int, float]],
    caption: str,
) -> Markup:
    """A row a row, a column a class, in the order of the folds.

    Args:
        rows: name and row.
        folds: how many there are.
        score: class id to a fraction.
        caption: of the table.
    """
    columns: list[tuple[int, int, str]] = []
    for fold in range(folds):
        known = next((row.results[fold] for _, row in rows if fold in row.results), None)
        for c in known.classes if known else ():
            columns.append((fold, c, known.class_names.get(c, str(c)) if known else ""))
    values = [
        [score(row.results[fold])[c] if fold in row.results else None for fold, c, _ in columns]
        for _, row in rows
    ]
    best = [max((v for v in column if v is not None), default=None) for column in zip(*values, strict=True)]
    lines: list[list[Cell]] = []
    for (name, _), of_row in zip(rows, values, strict=True):
        cells: list[Cell] = [
            "-" if v is None else heat_cell(v, best=v == top) for v, top in zip(of_row, best, strict=True)
        ]
        lines.append([name, *cells])
    headings: list[Cell] = [
        element("span", name, element("small", f" fold {fold}"), class_="turned") for fold, _, name in columns
    ]
    return element("div", table(["row", *headings], lines, caption), class_="heatmap")


def legend() -> Markup:
    """The colours by number."""
    steps = [element("li", heat_cell(step / 10)) for step in range(0, 11, 2)]
    return element("div", element("span", "IoU in percent:"), element("ul", *steps), class_="scale")
