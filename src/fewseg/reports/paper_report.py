"""``fewseg report tables``: the papers' tables in every format."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import get_args

from rich.console import Console

from fewseg.ops.files import atomic_write_text
from fewseg.reports.frame import load_results
from fewseg.reports.options import SOME_MISSING, Format, Paper, PaperTablesOptions
from fewseg.reports.papers import PaperTable, csv_tables, page_of, paper_tables
from fewseg.reports.published import ROMAN, layouts
from fewseg.reports.tables import rich_paper_table
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
    made = paper_tables(results, only=wanted)
    remarks = [*(f"left out: {reason}" for reason in results.left_out), *made[0].problems]
    status = SOME_MISSING if remarks else 0
    if not len(results):
        remarks.append(f"{options.results} has no result that can be read: every row of ours says 'not run'")
    formats = options.format or (("markdown", "html", "latex", "csv") if options.out else ("terminal",))
    for form in formats:
        if form == "terminal":
            for table in made:
                console.print(rich_paper_table(page_of(table), console.width))
            continue
        for name, text in texts(form, made, remarks).items():
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
