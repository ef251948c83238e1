"""Groups of bars with whiskers, the one form in which figures show shares and scores."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from fewseg.reports.figures.style import colour, hatch, plain_axes
from fewseg.reports.numbers import Estimate


def grouped_bars(
    axes: Axes,
    groups: Mapping[str, Mapping[str, Estimate]],
    kinds: Mapping[str, str],
    *,
    scale: float = 100,
    unit: str = "%",
) -> None:
    """Draws one group of bars for each entry of ``groups``, one bar for each kind that it has.

    Args:
        axes: where.
        groups: label below a group to the estimates by kind; whiskers are their intervals.
        kinds: every kind of all plots of a figure, which decides its colour and hatch, and its label.
        scale: what values are multiplied by.
        unit: of the values, after that.
    """
    present = [kind for kind in kinds if any(kind in group for group in groups.values())]
    width = 0.8 / max(len(present), 1)
    for i, kind in enumerate(present):
        offset = (i - (len(present) - 1) / 2) * width
        values = [(g + offset, group[kind]) for g, group in enumerate(groups.values()) if kind in group]
        below = [scale * (v.value - v.low) for _, v in values]
        above = [scale * (v.high - v.value) for _, v in values]
        number = list(kinds).index(kind)
        axes.bar(
            [place for place, _ in values],
            [scale * v.value for _, v in values],
            width,
            yerr=[[max(0.0, b) for b in below], [max(0.0, a) for a in above]],
            capsize=2,
            color=colour(number),
            edgecolor="black",
            linewidth=0.6,
            hatch=hatch(number),
            label=kinds[kind],
            error_kw={"linewidth": 0.8},
        )
    axes.set_xticks(range(len(groups)), list(groups), fontsize=7)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    plain_axes(axes)
