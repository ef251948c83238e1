"""A paper's table as HTML: two lines of headings, details on every cell, footnotes below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fewseg.reports.html import Cell, Markup, element, joined, page
from fewseg.reports.paper_tables.grid import Block, Grid, GridCell, GridColumn, grids, notes_of
from fewseg.reports.paper_tables.model import PaperTable


def html_table(table: PaperTable) -> Markup:
    """A table with its heading (h3), a scrolling part for each section, and its notes.

    The title of every cell has the printed value, the gain and how ours was measured; the footnotes say the
    same without a pointer.
    """
    shown, footnotes = grids(table)
    sentences, sources = notes_of(table, footnotes)
    name = f"{table.name}: {table.caption}"
    parts: list[Cell] = [element("h3", name)]
    parts += [_section(_giving_way(grid), table.name) for grid in shown]
    items = [element("li", sentence) for sentence in sentences]
    items += [element("li", element("sup", letter), " ", text) for letter, text in sources]
    parts.append(element("ul", *items, class_="soft notes"))
    return element("section", joined(parts), class_="paper-table", id=table.slug)


def _giving_way(grid: Grid) -> Grid:
    """On a narrow screen, data sets without a number make room for those that have one."""
    printed, ours = grid.blocks[:2], grid.blocks[2:]
    if all(block.empty for block in ours):
        return grid
    less = [
        replace(block, columns=tuple(replace(column, detail=True) for column in block.columns))
        if block.empty
        else block
        for block in ours
    ]
    return replace(grid, blocks=(*printed, *less))


def _section(grid: Grid, name: str) -> Markup:
    caption = f"{name}, {grid.heading}" if grid.heading else name
    groups = [heading for block in grid.blocks for heading in _headings(block)]
    starts = _starts(grid)
    headings = [
        element("th", column.heading, scope="col", class_=_class(column, start))
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


def _headings(block: Block) -> list[Markup]:
    """The heading of a block; where a narrow screen lacks some of its columns, another one for the rest."""
    kind = "block" + (" foreign" if block.foreign else "") + (" empty" if block.empty else "")
    kept = [column for column in block.columns if not column.detail]
    spans = {" full": len(block.columns), " few": len(kept)}
    if len(kept) == len(block.columns):
        spans = {"": len(kept)}
    if not kept:
        del spans[" few"]
    return [
        element("th", block.heading, colspan=str(span), scope="colgroup", class_=kind + name)
        for name, span in spans.items()
    ]


def _class(column: GridColumn, start: bool) -> str:
    kind = "text" if column.words else "number"
    return kind + (" start" if start else "") + (" detail" if column.detail else "")


def _starts(grid: Grid) -> list[bool]:
    """Whether a column is the first of a block of numbers."""
    return [i == 0 and bool(block.heading) for block in grid.blocks for i in range(len(block.columns))]


def _cell(cell: GridCell, place: int, grid: Grid, start: bool) -> Markup:
    kinds = _class(grid.columns[place], start)
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
