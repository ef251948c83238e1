"""A paper's table as HTML: two lines of headings, details on every cell, footnotes below."""

from __future__ import annotations

from collections.abc import Sequence

from fewseg.reporting.html import Cell, Markup, element, joined, page
from fewseg.reporting.paper_tables.grid import Grid, GridCell, grids, notes_of
from fewseg.reporting.paper_tables.model import PaperTable


def html_table(table: PaperTable) -> Markup:
    """A table with its heading (h3), a scrolling part for each section, and its notes.

    The title of every cell has the printed value, the gain and how ours was measured; the footnotes say the
    same without a pointer.
    """
    shown, footnotes = grids(table)
    sentences, sources = notes_of(table, footnotes)
    name = f"{table.name}: {table.caption}"
    parts: list[Cell] = [element("h3", name)]
    parts += [_section(grid, table.name) for grid in shown]
    items = [element("li", sentence) for sentence in sentences]
    items += [element("li", element("sup", letter), " ", text) for letter, text in sources]
    parts.append(element("ul", *items, class_="soft notes"))
    return element("section", joined(parts), class_="paper-table", id=table.slug)


def _section(grid: Grid, name: str) -> Markup:
    caption = f"{name}, {grid.heading}" if grid.heading else name
    groups = [
        element(
            "th",
            block.heading,
            colspan=str(len(block.columns)),
            scope="colgroup",
            class_=_kind(block.foreign),
        )
        for block in grid.blocks
    ]
    starts = _starts(grid)
    headings = [
        element("th", column.heading, scope="col", class_=_class(column.words, start))
        for column, start in zip(grid.columns, starts, strict=True)
    ]
    body = [
        element("tr", *(_cell(cell, i, grid, starts[i]) for i, cell in enumerate(row))) for row in grid.rows
    ]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *groups, class_="blocks"), element("tr", *headings)),
        element("tbody", joined(body)),
    )
    return element("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _kind(foreign: bool) -> str:
    return "block foreign" if foreign else "block"


def _class(words: bool, start: bool) -> str:
    return ("text" if words else "number") + (" start" if start else "")


def _starts(grid: Grid) -> list[bool]:
    """Whether a column is the first of a block of numbers."""
    return [i == 0 and bool(block.heading) for block in grid.blocks for i in range(len(block.columns))]


def _cell(cell: GridCell, place: int, grid: Grid, start: bool) -> Markup:
    kinds = _class(grid.columns[place].words, start)
    kinds += " status" if cell.status else ""
    content: list[Cell] = [cell.text.strip()]
    if cell.note:
        content.append(element("sup", cell.note))
    if cell.interval:
        content.append(element("span", cell.interval, class_="ci"))
    named: dict[str, str] = {"title": cell.title} if cell.title else {}
    if place == 0:
        further = " further" if cell.text.startswith(" ") else ""
        return element("th", *content, scope="row", class_=kinds + further, **named)
    return element("td", *content, class_=kinds, **named)


def html_page(tables: Sequence[PaperTable], told: Sequence[str] = ()) -> str:
    """One page with all tables, which asks the network for nothing.

    Args:
        tables: which tables.
        told: what a reader should know of all of them, such as which results were left out.
    """
    links = [element("li", element("a", f"{t.name}: {t.caption}", href=f"#{t.slug}")) for t in tables]
    content: list[Cell] = [element("h1", "The papers' tables, printed and measured"), element("ul", *links)]
    if told:
        content.append(element("ul", *(element("li", sentence) for sentence in told)))
    content.append(element("div", joined([html_table(table) for table in tables]), class_="wide"))
    return page("The papers' tables", *content)
