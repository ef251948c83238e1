"""``fewseg report tables``: the papers' tables in every format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fewseg.ops.files import atomic_write_text
from fewseg.reports.frame import load_results
from fewseg.reports.options import SOME_MISSING, Format, Paper, PaperTablesOptions
from fewseg.reports.paper_pages import Page, Section, csv_tables, page_of
from fewseg.reports.papers import PaperTable, paper_tables
from fewseg.reports.published import ROMAN, layouts
from fewseg.reports.templating import asset, render

logger = logging.getLogger(__name__)


def run(options: PaperTablesOptions, console: Console) -> int:
    """Makes the tables; the status is ``SOME_MISSING`` where a result could not be used."""
    numbers = {str(ROMAN.index(n.upper())) if n.upper() in ROMAN[1:] else n for n in options.table}
    wanted = [
        layout
        for layout in layouts()
        if (not options.paper or layout.paper.replace("-", "") in options.paper)
        and (not numbers or layout.number in numbers)
    ]
    if not wanted:
        papers = ", ".join(options.paper or get_args(Paper))
        raise ValueError(
            f"no table {', '.join(options.table)} in {papers}: SCL has 1 to 6, SRPNet 1 to 4, SD-AANet I to V"
        )
    results = load_results(options.results)
    tables = paper_tables(results, only=wanted)
    remarks = [*(f"left out: {reason}" for reason in results.left_out), *tables[0].problems]
    status = SOME_MISSING if remarks else 0
    if not len(results):
        remarks.append(f"{options.results} has no result that can be read: every row of ours says 'not run'")
    formats = options.format or (("markdown", "html", "latex", "csv") if options.out else ("terminal",))
    for form in formats:
        if form == "terminal":
            for table in tables:
                console.print(rich_paper_table(page_of(table), console.width))
            continue
        for name, text in texts(form, tables, remarks).items():
            if options.out is None:
                console.out(text, highlight=False)
            else:
                atomic_write_text(options.out / name, text)
                console.out(f"written: {options.out / name}", highlight=False)
    for remark in remarks:
        if options.out is not None or formats == ("terminal",):
            console.out(remark, highlight=False)
        else:  # the output may be for another program
            logger.warning("%s", remark)
    return status


def texts(form: Format, tables: Sequence[PaperTable], remarks: Sequence[str] = ()) -> dict[str, str]:
    """File name to text: one page of HTML or CSV for all tables, or a file for each."""
    if form == "csv":
        return {"tables.csv": csv_tables(tables)}
    if form == "html":
        pages, style = [page_of(table) for table in tables], asset("page.css")
        title = "The papers' tables"
        return {"tables.html": render("papers.html", pages=pages, remarks=remarks, title=title, style=style)}
    ending = {"markdown": "md", "latex": "tex"}[form]
    return {
        f"{table.layout.slug}.{ending}": render(f"paper_table.{ending}", page=page_of(table, remarks))
        for table in tables
    }


def rich_paper_table(page: Page, width: int) -> RenderableType:
    """A paper's table for a terminal of so many columns of text.

    Where it is too narrow for the folds and parts, only means stand, and a note says so; where it is too
    narrow for these, the printed numbers and ours are tables of their own.
    """
    title, notes = f"{page.layout.name}: {page.layout.caption}", list(page.notes)
    parts = [_rich_section(section, title, lambda column: True) for section in page.sections]
    if not _fit(parts, width):
        notes.append("Folds and parts need a wider terminal, or another --format.")
        parts = [_rich_section(section, title, lambda c: not c.detail) for section in page.sections]
    if not _fit(parts, width):
        parts = [
            _rich_section(section, title, lambda c, b=block[0].block: not c.detail and c.block in ("", b))
            for section in page.sections
            for block in section.blocks[1:]
        ]
    notes += [f"({letter}) {sentence}" for letter, sentence in page.footnotes]
    return Group(*parts, *(Text(f"- {note}", style="dim") for note in notes), Text(""))


def _fit(tables: Sequence[Table], width: int) -> bool:
    wide = Console(width=10_000)
    return all(wide.measure(table).minimum <= width for table in tables)


def _rich_section(section: Section, title: str, keeps: Callable[..., bool]) -> Table:
    heading = f"{title}, {section.heading}" if section.heading else title
    shown = Table(title=escape(heading), box=SIMPLE_HEAD)
    keep = [i for i, column in enumerate(section.columns) if keeps(column)]
    for i in keep:
        column = section.columns[i]
        justify: Literal["left", "right"] = "left" if column.words else "right"
        name = escape(f"{column.short}\n{column.heading}".strip())
        shown.add_column(name, justify=justify, vertical="top", no_wrap=column.words)
    for row in section.rows:
        texts = []
        for i in keep:
            cell = row[i]
            text = f"{'   ' if cell.further else ''}{cell.text}" + (
                f"\u00a0({cell.note})" if cell.note else ""
            )
            texts.append(escape(f"{text}\n{cell.interval.replace(' ', '')}" if cell.interval else text))
        shown.add_row(*texts)
    return shown
