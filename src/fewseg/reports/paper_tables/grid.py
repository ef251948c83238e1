"""A section of a paper's table as rows of text: what Markdown, HTML, LaTeX and the terminal all show.

The printed columns come first, then a block of columns for each data set of ours, headed by its name. A block
without a number is one column that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

from fewseg.reports.numbers import Estimate, percent, points
from fewseg.reports.paper_tables.layout import Column
from fewseg.reports.paper_tables.model import (
    DATASET_NAMES,
    MINI,
    NOT_RUN,
    GainOver,
    Line,
    Measured,
    PaperTable,
    Row,
    Section,
    Source,
)
from fewseg.reports.published import PublishedValue

NONE = "-"


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """What one cell shows.

    Attributes:
        text: a number, a name, or why there is no number.
        interval: "[60.9, 62.6]", or "".
        note: letter of the footnote, or "".
        title: what a pointer that rests on the cell should tell.
        status: whether ``text`` says why there is no number.
    """

    text: str
    interval: str = ""
    note: str = ""
    title: str = ""
    status: bool = False


@dataclass(frozen=True, kw_only=True)
class GridColumn:
    """A column.

    Attributes:
        heading: its own.
        words: whether it has names rather than numbers.
        detail: whether a narrow screen can do without it.
    """

    heading: str
    words: bool = False
    detail: bool = False


@dataclass(frozen=True, kw_only=True)
class Block:
    """Columns under one heading; the first, with the names, has none.

    Attributes:
        heading: whose numbers they are.
        short: the same for narrow columns, in short lines.
        columns: its columns.
        foreign: whether the numbers are not of the paper's data set.
        empty: whether there is no number, and one column says so.
    """

    heading: str
    columns: tuple[GridColumn, ...]
    short: str = ""
    foreign: bool = False
    empty: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A section as text; each row has a cell for each column of all blocks."""

    heading: str
    blocks: tuple[Block, ...]
    rows: tuple[tuple[GridCell, ...], ...]

    @property
    def columns(self) -> tuple[GridColumn, ...]:
        """Of all blocks."""
        return tuple(column for block in self.blocks for column in block.columns)


@dataclass
class Footnotes:
    """Letters for how our numbers were measured, in the order in which they are met."""

    letters: dict[Source, str] = field(default_factory=dict)

    def letter(self, source: Source) -> str:
        """The letter of a source: a .. z, aa, ab, ..."""
        if source not in self.letters:
            n = len(self.letters)
            before = ascii_lowercase[n // 26 - 1] if n >= 26 else ""
            self.letters[source] = before + ascii_lowercase[n % 26]
        return self.letters[source]


def grids(table: PaperTable) -> tuple[list[Grid], Footnotes]:
    """All sections of a table and the footnotes of their cells."""
    notes = Footnotes()
    return [_Writer(table, section, notes).grid() for section in table.sections], notes


class _Writer:
    def __init__(self, table: PaperTable, section: Section, notes: Footnotes) -> None:
        self._table, self._section, self._notes = table, section, notes
        self._gained = any(row.over for row in section.rows)
        self._summary = [i for i, c in enumerate(section.columns) if c.fold is None]

    def grid(self) -> Grid:
        names = [GridColumn(heading="Method", words=True)]
        names += [GridColumn(heading=mark, words=True, detail=True) for mark in self._section.layout.marks]
        names.append(GridColumn(heading="Backbone", words=True, detail=True))
        own = self._table.layout.dataset
        blocks = [
            Block(heading="", columns=tuple(names)),
            Block(heading=f"printed, {DATASET_NAMES[own]}", short="printed", columns=self._columns()),
        ]
        for dataset in self._table.datasets:
            foreign = dataset != own
            heading = f"fewseg on {DATASET_NAMES[dataset]}" + (", NOT the paper's data" if foreign else "")
            short = f"fewseg,\n{DATASET_NAMES[dataset]}" + (",\nNOT\npaper's" if foreign else "")
            measured = self._section.is_measured(dataset)
            columns = self._columns() if measured else (GridColumn(heading="all"),)
            blocks.append(
                Block(heading=heading, short=short, columns=columns, foreign=foreign, empty=not measured)
            )
        rows = [cells for row in self._section.rows for cells in self._rows(row)]
        return Grid(heading=self._section.layout.heading, blocks=tuple(blocks), rows=tuple(rows))

    def _columns(self) -> tuple[GridColumn, ...]:
        columns = self._section.columns
        shown = [GridColumn(heading=c.heading, detail=c.fold is not None) for c in columns]
        if self._gained:
            several = len(self._summary) > 1
            shown += [
                GridColumn(heading=f"gain {columns[i].heading}" if several else "gain") for i in self._summary
            ]
        return tuple(shown)

    def _rows(self, row: Row) -> list[tuple[GridCell, ...]]:
        """The row with our first line of each data set, then a row for each further line."""
        count = max([1, *(len(lines) for lines in row.lines.values())])
        return [tuple(self._row(row, i)) for i in range(count)]

    def _row(self, row: Row, number: int) -> list[GridCell]:
        of_sets = [self._line(row, dataset, number) for dataset in self._table.datasets]
        variants = dict.fromkeys(line.variant for line in of_sets if line and line.variant)
        label = " / ".join(variants) if number else row.label
        first = [GridCell(text=f"   {label}" if number else label, title=row.without)]
        blank = GridCell(text="")
        if number:
            first += [blank] * (len(row.marks) + 1)
            printed = [blank] * len(self._columns())
        else:
            first += [GridCell(text=mark) for mark in row.marks]
            first.append(GridCell(text=row.backbone or NONE))
            printed = self._printed(row)
        ours: list[GridCell] = []
        for dataset, line in zip(self._table.datasets, of_sets, strict=True):
            ours += self._ours(row, dataset, line, first=number == 0)
        return [*first, *printed, *ours]

    def _line(self, row: Row, dataset: str, number: int) -> Line | None:
        lines = row.lines.get(dataset, ())
        return lines[number] if number < len(lines) else None

    def _printed(self, row: Row) -> list[GridCell]:
        cells = [_printed(value) for value in row.published]
        if self._gained:
            cells += [_printed_gain(row, row.published_gains[i]) for i in self._summary]
        return cells

    def _ours(self, row: Row, dataset: str, line: Line | None, *, first: bool) -> list[GridCell]:
        measured = self._section.is_measured(dataset)
        count = len(self._columns()) if measured else 1
        if line is None:
            text = NONE if first else ""
            return [GridCell(text=text, title=row.without, status=True)] * count
        if not measured:
            return [GridCell(text=NOT_RUN, status=True)]
        columns = self._section.columns
        cells = [
            self._number(row, i, cell, column)
            for i, (cell, column) in enumerate(zip(line.cells, columns, strict=True))
        ]
        if self._gained:
            cells += [_gain(line.cells[i].gain) for i in self._summary]
        return cells

    def _number(self, row: Row, place: int, cell: Measured, column: Column) -> GridCell:
        if cell.estimate is None and cell.source is None:
            return GridCell(text=cell.status, status=True)
        note = self._notes.letter(cell.source) if cell.source and column.fold is None else ""
        title = _title(row.published[place], cell)
        if cell.estimate is None:
            return GridCell(text=cell.status, note=note, title=title, status=True)
        text = percent(cell.estimate.value)
        if self._table.shows_std and cell.std is not None:
            text += f"±{100 * cell.std:.2f}"
        return GridCell(text=text, interval=_interval(cell.estimate), note=note, title=title)


def _title(value: PublishedValue | None, cell: Measured) -> str:
    """Printed value, gain and how ours was measured: what a cell itself has no room for."""
    printed = "none printed" if value is None else f"printed {_percent(value)}"
    where = "" if value is None else f" ({DATASET_NAMES[value.dataset]}, {value.backbone})"
    parts = [printed + where]
    if cell.gain is not None and cell.gain.estimate is not None:
        gain = _gain(cell.gain)
        parts.append(f"{gain.text} {gain.interval} over {cell.gain.over}")
    if cell.source is not None:
        parts.append(cell.source.text)
    return "; ".join(parts)


def _percent(value: PublishedValue) -> str:
    return f"{value.percent:.1f}" + ("" if value.std is None else f"±{value.std:.2f}")


def _printed(value: PublishedValue | None) -> GridCell:
    if value is None:
        return GridCell(text=NONE, title="none printed", status=True)
    place = f"{value.row}, {value.shots}-shot, on {DATASET_NAMES[value.dataset]} with {value.backbone}"
    return GridCell(text=_percent(value), title=f"as printed: {place}")


def _printed_gain(row: Row, gain: float | None) -> GridCell:
    if gain is None:
        return GridCell(text=NONE if row.over else "", status=True)
    return GridCell(text=f"{gain:+.1f}", title=f"printed value less that of {row.over}")


def _gain(gain: GainOver | None) -> GridCell:
    if gain is None:
        return GridCell(text="", status=True)
    if gain.estimate is None:
        return GridCell(text=gain.status, title=f"over {gain.over}", status=True)
    low, high = points(gain.estimate.low), points(gain.estimate.high)
    title = f"over {gain.over}, paired on the same episodes, interval over query images"
    return GridCell(text=points(gain.estimate.value), interval=f"[{low}, {high}]", title=title)


def _interval(estimate: Estimate) -> str:
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def notes_of(table: PaperTable, footnotes: Footnotes) -> tuple[list[str], list[tuple[str, str]]]:
    """What stands under a table: sentences, and (letter, how it was measured).

    Every protocol is told once in full, as a sentence; the footnotes give its name and digest.
    """
    protocols = dict.fromkeys(s.protocol_line for s in footnotes.letters if s.protocol_line)
    sentences = [*table.notes, *(f"Protocol {line}." for line in protocols)]
    return sentences, [(letter, source.text) for source, letter in footnotes.letters.items()]


def block_headings(blocks: Sequence[Block]) -> list[str]:
    """For formats with one heading a column: "printed, PASCAL-5i: Mean"."""
    return [
        f"{block.heading}: {column.heading}" if block.heading else column.heading
        for block in blocks
        for column in block.columns
    ]


def is_foreign(dataset: str) -> bool:
    """Whether numbers of a data set must say that it is not the papers'."""
    return dataset == MINI
