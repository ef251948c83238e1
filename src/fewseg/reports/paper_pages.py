"""The papers' tables as text: cells with intervals, footnotes and tooltips for every format, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_lowercase

import pandas as pd

from fewseg.recipes.variants import MINI
from fewseg.reports.frame import FoldRow
from fewseg.reports.numbers import Estimate, percent, points
from fewseg.reports.papers import (
    NOT_RUN,
    Cell,
    PaperRow,
    PaperTable,
    measured_how,
    protocol_line,
    training_of,
)
from fewseg.reports.published import (
    DATASET_NAMES,
    PrintedColumn,
    PublishedValue,
    SectionLayout,
    TableLayout,
)

CSV_HEADINGS = (
    "paper table row shots column score printed printed_std printed_dataset printed_backbone printed_gain "
    "dataset papers_data status ours low high std_over_seeds gain_over gain gain_low gain_high gain_status "
    "variant method recipe backbone size fusion episodes protocol protocol_digest training"
)
"""Scores and differences are in percent and points."""


def csv_tables(tables: Sequence[PaperTable]) -> str:
    """CSV with one line per cell; lines without a row of ours have the printed values."""
    lines = [
        line
        for table in tables
        for section, rows in table.sections
        for row in rows
        for line in _csv_lines(table, section, row)
    ]
    frame = pd.DataFrame(lines, columns=CSV_HEADINGS.split())
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _csv_lines(table: PaperTable, section: SectionLayout, row: PaperRow) -> Iterator[dict[str, str]]:
    for i, column in enumerate(section.columns):
        value, gain = row.printed[i], row.printed_gains[i]
        printed = {
            "paper": table.layout.paper,
            "table": table.layout.number,
            "row": row.layout.name,
            "shots": str(column.shots),
            "column": column.key,
            "score": column.score,
            "printed_gain": "" if gain is None else f"{gain:.1f}",
        }
        if value is not None:
            printed |= {
                "printed": f"{value.percent:.1f}",
                "printed_std": "" if value.std is None else f"{value.std:.2f}",
                "printed_dataset": value.dataset,
                "printed_backbone": value.backbone,
            }
        if not row.lines:
            yield printed | {"status": row.layout.without}
        for dataset, lines in row.lines.items():
            for variant, cells in lines:
                cell = cells[i]
                yield printed | {
                    "dataset": dataset,
                    "papers_data": "no" if dataset == MINI else "yes",
                    "variant": variant,
                    "status": cell.status or "measured",
                    "std_over_seeds": "" if cell.std is None else f"{100 * cell.std:.3f}",
                    "gain_over": row.over,
                    "gain_status": cell.gain_status,
                    **_ends(cell.estimate, "ours", "low", "high"),
                    **_ends(cell.gain, "gain", "gain_low", "gain_high"),
                    **_columns_of(cell.row),
                }


def _columns_of(row: FoldRow | None) -> dict[str, str]:
    """How a row of ours was measured."""
    if row is None:
        return {}
    names = ["method", "recipe", "backbone", "fusion", "episodes", "protocol_digest"]
    return {name: row.first[name] for name in names} | {
        "size": row.first.sizes,
        "protocol": protocol_line(row) or row.first.protocol,
        "training": training_of(row),
    }


def _ends(estimate: Estimate | None, *names: str) -> dict[str, str]:
    if estimate is None:
        return {}
    numbers = vars(estimate).values()
    return {name: f"{100 * number:.3f}" for name, number in zip(names, numbers, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Text:
    """The content of a cell: a number or a name, its interval, footnote and tooltip."""

    text: str
    interval: str = ""
    note: str = ""
    title: str = ""
    status: bool = False  # whether it states why there is no number
    further: bool = False  # whether it names a further line of the row above


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table as text."""

    block: str  # heading above several columns: whose numbers these are; "" for names
    heading: str
    short: str = ""  # the block in short lines, for a terminal
    words: bool = False  # whether it holds names instead of numbers
    detail: bool = False  # whether narrow screens leave it out
    foreign: bool = False  # whether the numbers are of another data set than the paper's
    empty: bool = False  # whether it stands for a block without numbers


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section as text, for Markdown, HTML, LaTeX and the terminal."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]

    @property
    def blocks(self) -> list[list[Column]]:
        """The columns grouped by block."""
        return [list(columns) for _, columns in groupby(self.columns, key=lambda c: c.block)]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A table as text, for the templates."""

    layout: TableLayout
    sections: list[Section]
    notes: list[str]
    footnotes: list[tuple[str, str]]  # (letter, how it was measured)


def page_of(table: PaperTable, remarks: Sequence[str] = ()) -> Page:
    """A table as text."""
    footnotes: Footnotes = {}
    sections = [_section(table, layout, rows, footnotes) for layout, rows in table.sections]
    lines = dict.fromkeys(map(protocol_line, footnotes.values()))
    return Page(
        layout=table.layout,
        sections=sections,
        notes=[*table.notes, *(f"Protocol {line}." for line in lines if line), *remarks],
        footnotes=[(_letter(n), sentence) for n, sentence in enumerate(footnotes)],
    )


Footnotes = dict[str, FoldRow]
"""The distinct measurements of our numbers, in the order of the footnotes, with a row of each."""


def _letter(n: int) -> str:
    """A .. z, aa, ab, ..."""
    return (ascii_lowercase[n // 26 - 1] if n >= 26 else "") + ascii_lowercase[n % 26]


def _section(
    table: PaperTable, layout: SectionLayout, rows: Sequence[PaperRow], footnotes: Footnotes
) -> Section:
    gained = any(row.over for row in rows)
    summary = [i for i, column in enumerate(layout.columns) if gained and column.fold is None]

    headings = [(c.heading, c.fold is not None) for c in layout.columns]
    for i in summary:
        headings.append((f"gain {layout.columns[i].heading}" if len(summary) > 1 else "gain", False))

    def numbers(block: str, short: str, foreign: bool = False) -> list[Column]:
        return [
            Column(block=block, short=short, foreign=foreign, heading=heading, detail=detail)
            for heading, detail in headings
        ]

    printed_on = DATASET_NAMES[table.layout.dataset]
    columns = [Column(block="", heading="Method", words=True)]
    columns += [Column(block="", heading=mark, words=True, detail=True) for mark in table.layout.marks]
    columns += [
        Column(block="", heading="Backbone", words=True, detail=True),
        *numbers(f"printed, {printed_on}", "printed"),
    ]
    measured = {
        dataset: any(c.row for row in rows for _, cells in row.lines.get(dataset, ()) for c in cells)
        for dataset in table.datasets
    }
    for dataset in table.datasets:
        foreign, name = dataset != table.layout.dataset, DATASET_NAMES[dataset]
        block = f"fewseg on {name}" + (", NOT the paper's data" if foreign else "")
        short = f"fewseg,\n{name}" + (",\nNOT\npaper's" if foreign else "")
        if measured[dataset]:
            columns += numbers(block, short, foreign)
        else:
            columns.append(Column(block=block, short=short, foreign=foreign, heading="all", empty=True))
    shown = []
    for row in rows:
        for number in range(max([1, *map(len, row.lines.values())])):
            of_sets = {d: lines[number] for d, lines in row.lines.items() if number < len(lines)}
            texts = _printed_texts(row, number, [variant for variant, _ in of_sets.values()], summary)
            for dataset in table.datasets:
                cells = of_sets[dataset][1] if dataset in of_sets else None
                if measured[dataset] and cells:
                    for numbers_of in zip(cells, layout.columns, row.printed, strict=True):
                        texts.append(_measured(*numbers_of, row.over, table.shows_std, footnotes))
                    texts += [_gain(cells[i], row.over) for i in summary]
                    continue
                count = len(headings) if measured[dataset] else 1
                text = NOT_RUN if cells else "" if number else "-"
                texts += [Text(text=text, title="" if cells else row.layout.without, status=True)] * count
            shown.append(tuple(texts))
    return Section(heading=layout.heading, columns=tuple(columns), rows=tuple(shown))


def _printed_texts(row: PaperRow, number: int, variants: Sequence[str], summary: Sequence[int]) -> list[Text]:
    """A row's names, printed values and gains; further lines only have what differs."""
    cells = [
        Text(text=row.layout.label, title=row.layout.without),
        *(Text(text=mark) for mark in row.layout.marks),
    ]
    cells += [Text(text=row.backbone or "-"), *map(_printed, row.printed)]
    for i in summary:
        gain = row.printed_gains[i]
        if gain is None:
            cells.append(Text(text="-" if row.over else "", status=True))
        else:
            cells.append(Text(text=f"{gain:+.1f}", title=f"printed value less that of {row.over}"))
    if number:
        label = " / ".join(dict.fromkeys(filter(None, variants)))
        return [Text(text=label, further=True), *[Text(text="")] * (len(cells) - 1)]
    return cells


def _percent(value: PublishedValue) -> str:
    return f"{value.percent:.1f}" + ("" if value.std is None else f"±{value.std:.2f}")


def _printed(value: PublishedValue | None) -> Text:
    if value is None:
        return Text(text="-", title="none printed", status=True)
    place = f"{value.row}, {value.shots}-shot, on {DATASET_NAMES[value.dataset]} with {value.backbone}"
    return Text(text=_percent(value), title=f"as printed: {place}")


def _measured(
    cell: Cell,
    column: PrintedColumn,
    value: PublishedValue | None,
    over: str,
    shows_std: bool,
    footnotes: Footnotes,
) -> Text:
    if cell.row is None:
        return Text(text=cell.status, status=True)
    sentence, note = measured_how(cell.row), ""
    if column.fold is None:
        footnotes.setdefault(sentence, cell.row)
        note = _letter(list(footnotes).index(sentence))
    printed = "none printed"
    if value is not None:
        printed = f"printed {_percent(value)} ({DATASET_NAMES[value.dataset]}, {value.backbone})"
    gain = _gain(cell, over)
    gained = [f"{gain.text} {gain.interval} over {over}"] if cell.gain else []
    std = f"±{100 * cell.std:.2f}" if shows_std and cell.std is not None and cell.estimate else ""
    ends = cell.estimate
    return Text(
        text=percent(ends.value) + std if ends else cell.status,
        interval=f"[{percent(ends.low)}, {percent(ends.high)}]" if ends else "",
        note=note,
        title="; ".join([printed, *gained, sentence]),
        status=ends is None,
    )


def _gain(cell: Cell, over: str) -> Text:
    if cell.gain is None:
        return Text(text=cell.gain_status, title=f"over {over}" if over else "", status=True)
    return Text(
        text=points(cell.gain.value),
        interval=f"[{points(cell.gain.low)}, {points(cell.gain.high)}]",
        title=f"over {over}, paired on the same episodes, interval over query images",
    )
