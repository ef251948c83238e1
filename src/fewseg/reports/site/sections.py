"""What a page shows of one table: scores, folds, gains, classes and sizes, each with the data behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from fewseg.engine.results import RunResult
from fewseg.reports.gains import CountsOf, Gain, gain_cells
from fewseg.reports.html import Cell, Markup, element, joined, table
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.render import cells
from fewseg.reports.site.dots import MEAN, Dot, DotRow, dot_chart
from fewseg.reports.site.download import csv_link
from fewseg.reports.site.heat import heat_table, legend
from fewseg.reports.site.sizes import sizes
from fewseg.reports.table import FoldRow, FoldTable

IDENTITY = ("method", "fusion", "variant")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One table and what belongs to it.

    Attributes:
        id: of its section in the page.
        title: of the section.
        table: its rows.
        gains: of its rows over their baselines.
        counts_of: gives the counts of a result of the table.
    """

    id: str
    title: str
    table: FoldTable
    gains: tuple[Gain, ...]
    counts_of: CountsOf


def setting_section(setting: Setting) -> Markup:
    """The section of a table."""
    shown = setting.table
    parts: list[Cell] = [
        element("h2", setting.title, id=f"{setting.id}-title"),
        element("p", f"{shown.caption[0].upper()}{shown.caption[1:]}.", class_="soft"),
        *_scores(setting),
        *_folds(setting),
        *_gains(setting),
        *_classes(setting),
        *sizes(setting.id, shown, setting.counts_of),
    ]
    return element("section", *parts, id=setting.id, aria_labelledby=f"{setting.id}-title")


def row_name(row: FoldRow) -> str:
    """How a row is called on the page."""
    return f"{row.label} {row.fusion}"


def identity(row: FoldRow) -> list[str]:
    """The cells of a row's data that name it, under the headings :data:`IDENTITY`."""
    return [row.method, row.fusion, row.variant]


def estimate_of(result: RunResult) -> Estimate:
    """Its mIoU with the interval."""
    low, high = result.miou_ci95
    return Estimate(value=result.miou_mean, low=low, high=high)


def _scores(setting: Setting) -> list[Cell]:
    headings, rows = cells(setting.table)
    published = sum(heading.startswith("published") for heading in headings)
    caption = (
        f"{setting.title}: mIoU, FB-IoU and Dice in percent, mIoU with 95 % intervals over episodes. A mean "
        "stands only over all folds. "
    )
    if published:
        caption += "Published values are the papers', measured by them."
    shown = [[_with_small_interval(text) for text in row] for row in rows]
    data = [
        [*identity(row), r.recipe, fold, r.miou_mean, *r.miou_ci95, r.miou_std, r.fb_iou_mean, r.dice_mean]
        for row in setting.table.rows
        for fold, r in sorted(row.results.items())
    ]
    columns = [*IDENTITY, "recipe", "fold", "miou", "miou_low", "miou_high", "miou_std", "fb_iou", "dice"]
    return [
        element("h3", "Scores"),
        element("div", table(headings, shown, caption, text_columns=2, apart=published), class_="scores"),
        csv_link(f"{setting.id}-scores", columns, data, "Data behind the table and the chart of folds"),
    ]


def _with_small_interval(text: str) -> Cell:
    """A number with its interval on a line of its own, which leaves room for more columns."""
    value, bracket, interval = text.partition(" [")
    return joined([value, element("span", f"[{interval}", class_="ci")]) if bracket else text


def _folds(setting: Setting) -> list[Cell]:
    folds = setting.table.folds
    rows = []
    for row in setting.table.rows:
        dots = _dots({fold: estimate_of(r) for fold, r in row.results.items()}, folds)
        rows.append(DotRow(label=row_name(row), note=row.missing(folds), dots=dots))
    label = f"{setting.title}: mIoU of each row in each fold, with 95 % intervals; the numbers are in Scores"
    note = "A mark a fold; lines are 95 % intervals over episodes, for one trained model and one image list."
    chart = dot_chart(rows, "mIoU (%)", label)
    return [element("h3", "Fold by fold"), element("p", note, class_="soft"), boxed(chart, label)]


def _dots(by_fold: dict[int, Estimate], folds: int) -> tuple[Dot, ...]:
    """A dot a fold, and the mean where no fold is missing."""
    dots = [
        Dot(series=fold % MEAN, name=f"fold {fold}", estimate=estimate)
        for fold, estimate in sorted(by_fold.items())
    ]
    if len(by_fold) == folds:
        dots.append(Dot(series=MEAN, name="mean", estimate=mean_of([by_fold[f] for f in sorted(by_fold)])))
    return tuple(dots)


def _gains(setting: Setting) -> list[Cell]:
    if not setting.gains:
        return []
    folds = setting.table.folds
    rows = [
        DotRow(label=gain.text, note=gain.missing, dots=_dots(dict(gain.by_fold), folds))
        for gain in setting.gains
    ]
    label = (
        f"{setting.title}: gains in mIoU, paired on the same episodes, with 95 % intervals over query images"
    )
    data = [
        [*identity(g.b), *identity(g.a), fold, e.value, e.low, e.high]
        for g in setting.gains
        for fold, e in sorted(g.by_fold.items())
    ]
    columns = [*IDENTITY, *(f"over_{name}" for name in IDENTITY)]
    note = (
        "Right of the line at 0: better than the row it is set beside. Both were tested on the same episodes."
    )
    shown = table(*gain_cells(setting.table, setting.gains), f"{label}, in percentage points.")
    return [
        element("h3", "Paired gains"),
        element("p", note, class_="soft"),
        boxed(dot_chart(rows, "gain in mIoU (percentage points)", label, signed=True), label),
        element("details", element("summary", "The gains as a table"), shown),
        csv_link(f"{setting.id}-gains", [*columns, "fold", "gain", "low", "high"], data),
    ]


def _classes(setting: Setting) -> list[Cell]:
    shown = setting.table
    caption = (
        f"{setting.title}: foreground IoU of each tested class in percent, mean over seeds. Bold: the "
        "highest of a column, which is no test of it."
    )
    data = [
        [*identity(row), fold, c, r.class_names.get(c, ""), r.per_class_mean[c], r.per_class_dice[c]]
        for row in shown.rows
        for fold, r in sorted(row.results.items())
        for c in r.classes
    ]
    columns = [*IDENTITY, "fold", "class", "name", "iou", "dice"]
    return [
        element("h3", "Class by class"),
        legend(),
        heat_table(
            [(row_name(row), row) for row in shown.rows], shown.folds, attrgetter("per_class_mean"), caption
        ),
        csv_link(f"{setting.id}-classes", columns, data),
    ]


def boxed(chart: Markup, label: str) -> Markup:
    """A chart that scrolls sideways on a narrow screen."""
    return element("div", chart, class_="scroll chart", role="region", tabindex="0", aria_label=label)


def settings_named(tables: Sequence[FoldTable]) -> list[tuple[str, str]]:
    """An id and a title for each table; the title has the protocol where tables differ by it alone."""
    headings = [t.heading for t in tables]
    titles = [
        t.heading if headings.count(t.heading) == 1 else f"{t.heading}, protocol {t.protocol}" for t in tables
    ]
    return [(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"), title) for title in titles]
