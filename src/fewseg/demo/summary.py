"""The demo's scores as lines of a table, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from fewseg.engine.results import RunResult
from fewseg.reports.comparison import compare
from fewseg.reports.numbers import Estimate, percent, with_interval
from fewseg.reports.options import CompareOptions

_LABELS = {
    "demo_untrained": "untrained network",
    "demo_matcher": "prototype matching, no head",
    "demo_pfenet": "PFENet",
    "demo_scl": "SCL",
}


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference of two results on the same episodes.

    Attributes:
        label: "a over b".
        estimate: the difference in mIoU with its 95 % interval, fractions.
    """

    label: str
    estimate: Estimate


def label(result: RunResult) -> str:
    """Returns how the tables call a result's recipe."""
    return _LABELS.get(result.recipe, result.recipe)


def shots_of(result: RunResult) -> str:
    """Returns "1-shot", or K with the fusion, such as "5-shot average"."""
    return "1-shot" if result.shots == 1 else f"{result.shots}-shot {result.fusion}"


def headings() -> list[str]:
    """Returns the headings of the columns of ``rows``."""
    return ["method", "shots", "fusion", "mIoU", "FB-IoU", "Dice"]


def rows(results: Sequence[RunResult]) -> list[list[str]]:
    """Returns one row of text for each result, scores in percent."""
    return [
        [
            label(r),
            str(r.shots),
            "-" if r.shots == 1 else r.fusion,
            with_interval(Estimate(value=r.miou_mean, low=r.miou_ci95[0], high=r.miou_ci95[1])),
            percent(r.fb_iou_mean),
            percent(r.dice_mean),
        ]
        for r in results
    ]


def rich_table(results: Sequence[RunResult]) -> Table:
    """Returns the scores as a table for the terminal."""
    first = results[0]
    shown = Table(
        title=f"Unseen classes of {first.dataset} fold {first.fold}, percent with 95 % intervals",
        caption="Rendered pictures: not comparable with published numbers.",
    )
    for i, heading in enumerate(headings()):
        shown.add_column(heading, justify="left" if i in (0, 2) else "right")
    for row in rows(results):
        shown.add_row(*row)
    return shown


def gain(name: str, path: Path, over: Path) -> Gain:
    """Compares two result files of the demo.

    Args:
        name: what the difference is called.
        path: the result that is measured.
        over: the result it is measured against.
    """
    return Gain(label=name, estimate=compare(CompareOptions(a=over, b=path)).difference)
