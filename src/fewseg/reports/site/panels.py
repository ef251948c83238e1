"""Small charts of lines, many beside one another over the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewseg.reports.html import Markup, element
from fewseg.reports.site.scale import Scale
from fewseg.reports.site.svg import STYLES, drawing, mark, number, text, titled
from fewseg.reports.site.svg import line as straight

WIDTH, HEIGHT = 300.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 284.0, 12.0, 160.0
"""Places of the axes' ends in a panel."""

_DASHES = ("", "7 3", "2 2.5", "9 2.5 2 2.5")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line.

    Attributes:
        series: which colour and dash.
        name: what it is.
        points: (x, y); a None breaks the line.
        told: a title for each point, with the value in full; without, points have no marks.
        intervals: (x, low, high).
    """

    series: int
    name: str
    points: tuple[tuple[float, float | None], ...]
    told: tuple[tuple[str, str], ...] = ()
    intervals: tuple[tuple[float, float, float], ...] = ()


def panel(
    title: str,
    curves: Sequence[Curve],
    x: Scale,
    y: Scale,
    axes: tuple[str, str],
    x_ticks: Sequence[tuple[float, str]] = (),
    behind: str = "",
) -> Markup:
    """Returns a figure: title and chart.

    Args:
        title: of the panel.
        curves: its lines.
        x: horizontal axis.
        y: vertical axis.
        axes: what x and y are, with their units.
        x_ticks: places and texts of its own in the place of the scale's.
        behind: the id of a group that is drawn pale behind the lines, or "".
    """
    shown = list(x_ticks) or [(t, x.text(t)) for t in x.ticks]
    parts = [straight("grid", LEFT, y.at(t), RIGHT, y.at(t)) for t in y.ticks]
    parts += [text(y.text(t), LEFT - 5, y.at(t) + 3.5, "tick", "end") for t in y.ticks]
    parts += [text(label, x.at(t), BOTTOM + 14, "tick", "middle") for t, label in shown]
    parts += [straight("stem", x.at(t), BOTTOM, x.at(t), BOTTOM + 3) for t, _ in shown]
    parts.append(text(axes[0], (LEFT + RIGHT) / 2, BOTTOM + 32, "axis", "middle"))
    parts.append(
        Markup(
            f'<text class="axis" transform="translate(11 {number((TOP + BOTTOM) / 2)}) rotate(-90)" '
            f'text-anchor="middle">{element("tspan", axes[1])}</text>'
        )
    )
    if behind:
        parts.append(Markup(f'<use href="#{behind}"/>'))
    for curve in curves:
        kind = f"curve whisker s{curve.series % STYLES}"
        parts += [straight(kind, x.at(a), y.at(low), x.at(a), y.at(high)) for a, low, high in curve.intervals]
        parts.append(polyline(curve, x, y))
        parts += _marks(curve, x, y)
    label = f"{title}: {axes[1]} over {axes[0]}"
    return element(
        "figure", element("figcaption", title), drawing(WIDTH, HEIGHT, label, parts), class_="panel"
    )


def polyline(curve: Curve, x: Scale, y: Scale) -> Markup:
    """The line of a curve, in one piece for each run of points that are there."""
    pieces, pen = [], "M"
    for at, value in curve.points:
        if value is None:
            pen = "M"
            continue
        pieces.append(f"{pen}{number(x.at(at))} {number(y.at(value))}")
        pen = "L"
    dash = _DASHES[curve.series % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    kind = f"curve s{curve.series % STYLES}"
    return Markup(f'<path class="{kind}"{dashed} d="{"".join(pieces)}"/>')


def _marks(curve: Curve, x: Scale, y: Scale) -> list[Markup]:
    there = [(at, value) for at, value in curve.points if value is not None]
    return [
        titled(title, value_text, mark(curve.series, x.at(at), y.at(value)))
        for (at, value), (title, value_text) in zip(there, curve.told, strict=False)
    ]


def legend(names: Sequence[str]) -> Markup:
    """The lines of panels by name, in the order of their series."""
    items = []
    for series, name in enumerate(names):
        dash = _DASHES[series % len(_DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        sample = f'<path class="curve s{series % STYLES}"{dashed} d="M1 5H33"/>'
        items.append(
            element("li", Markup(f'<svg viewBox="0 0 34 10" aria-hidden="true">{sample}</svg>'), name)
        )
    return element("ul", *items, class_="legend")
