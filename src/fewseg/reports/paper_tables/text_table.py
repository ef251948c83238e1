"""A paper's table as Markdown and for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fewseg.reports.paper_tables.grid import Grid, GridCell, block_headings, grids, notes_of
from fewseg.reports.paper_tables.model import PaperTable
from fewseg.reports.render import markdown


def markdown_paper_table(table: PaperTable, told: Sequence[str] = ()) -> str:
    """Heading, a Markdown table for each section, notes below.

    Args:
        table: which.
        told: what a reader should know besides, such as which results were left out.
    """
    shown, footnotes = grids(table)
    sentences, sources = notes_of(table, footnotes)
    parts = [f"### {table.name}: {table.caption}\n"]
    for grid in shown:
        if grid.heading:
            parts.append(f"**{grid.heading}**\n")
        rows = [[_markdown_cell(cell) for cell in row] for row in grid.rows]
        parts.append(markdown([_plain(h) for h in block_headings(grid.blocks)], rows))
    notes = [f"- {_plain(sentence)}" for sentence in [*sentences, *told]]
    notes += [f"- <sup>{letter}</sup> {_plain(text)}" for letter, text in sources]
    return "\n".join([*parts, "\n".join(notes)]) + "\n"


def _plain(text: str) -> str:
    """Text with what Markdown would read as emphasis, HTML or a strike escaped."""
    for sign in ("\\", "*", "_", "<", "`", "~"):
        text = text.replace(sign, f"\\{sign}")
    return text


def _markdown_cell(cell: GridCell) -> str:
    text = f"↳ {cell.text.strip()}" if cell.text.startswith(" ") else cell.text
    text = _plain(text) + (f" {cell.interval}" if cell.interval else "")
    return text + (f" <sup>{cell.note}</sup>" if cell.note else "")


def rich_paper_table(table: PaperTable, width: int) -> RenderableType:
    """The table for a terminal of so many columns of text.

    Where it is too narrow for the folds and parts, only means stand, and a note says so; where it is too
    narrow for these, the printed numbers and ours are tables of their own.
    """
    shown, footnotes = grids(table)
    sentences, sources = notes_of(table, footnotes)
    title = f"{table.name}: {table.caption}"
    parts = [_rich(grid, title, range(len(grid.blocks)), detail=True) for grid in shown]
    if not _fit(parts, width):
        sentences = [*sentences, "Folds and parts need a wider terminal, or another --format."]
        parts = [_rich(grid, title, range(len(grid.blocks)), detail=False) for grid in shown]
    if not _fit(parts, width):
        parts = [
            _rich(grid, title, (0, block), detail=False)
            for grid in shown
            for block in range(1, len(grid.blocks))
        ]
    notes = [*sentences, *(f"({letter}) {text}" for letter, text in sources)]
    return Group(*parts, *(Text(f"- {note}", style="dim") for note in notes), Text(""))


def _fit(tables: Sequence[Table], width: int) -> bool:
    wide = Console(width=10_000)
    return all(wide.measure(table).minimum <= width for table in tables)


def _rich(grid: Grid, title: str, blocks: Sequence[int], *, detail: bool) -> Table:
    shown = Table(title=escape(f"{title}, {grid.heading}" if grid.heading else title), box=SIMPLE_HEAD)
    of_block = [number for number, block in enumerate(grid.blocks) for _ in block.columns]
    keep = [
        i for i, column in enumerate(grid.columns) if of_block[i] in blocks and (detail or not column.detail)
    ]
    for i in keep:
        column, block = grid.columns[i], grid.blocks[of_block[i]]
        heading = f"{block.short}\n{column.heading}".strip()
        justify: Literal["left", "right"] = "left" if column.words else "right"
        shown.add_column(escape(heading), justify=justify, vertical="top", no_wrap=column.words)
    for row in grid.rows:
        shown.add_row(*(escape(_rich_cell(row[i])) for i in keep))
    return shown


def _rich_cell(cell: GridCell) -> str:
    text = cell.text + (f"\u00a0({cell.note})" if cell.note else "")
    return f"{text}\n{cell.interval.replace(' ', '')}" if cell.interval else text
