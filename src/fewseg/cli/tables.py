"""``fewseg compare``, ``table``, ``report tables``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from fewseg.reports.paper_tables import PaperTable

_log = logging.getLogger(__name__)

SOME_MISSING = 3
"""The exit status where something that was given could not be used; the rest is made."""

Paper = Literal["scl", "srpnet", "sdaanet"]
Format = Literal["terminal", "markdown", "html", "latex", "csv"]


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Compares two result files episode by episode, with an interval of the difference.

    Attributes:
        a: a result file to measure against.
        b: a result file.
        allow_different_protocols: compare all the same, saying what differs.
        episodes: say which difference so many episodes (all seeds together) would find; those there are by
            default.
    """

    a: Annotated[Path, tyro.conf.Positional]
    b: Annotated[Path, tyro.conf.Positional]
    allow_different_protocols: bool = False
    episodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TableCommand:
    """Prints the tables of a folder of results, with paired gains and published values.

    Attributes:
        folder: where result files lie.
        page: a Markdown file whose results block is written anew.
        by_size: also print mIoU by the size of the target, in bins of 500 pixels.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    page: Path | None = None
    by_size: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportTablesCommand:
    """Makes the papers' tables again: printed values, and ours from a folder of results beside them.

    A result that cannot be used is named and the rest is shown; the exit status is then 3.

    Attributes:
        results: folder of result files (of `fewseg evaluate`); may be empty.
        paper: only these papers.
        table: only tables of these numbers, such as 1 or IV.
        format: terminal by default; with --out, all others.
        out: folder to write to: Markdown and LaTeX in a file for each table, HTML and CSV in one for all.
    """

    results: Annotated[Path, tyro.conf.Positional] = Path("results")
    paper: tuple[Paper, ...] = ()
    table: tuple[str, ...] = ()
    format: tuple[Format, ...] = ()
    out: Path | None = None


def compare(command: CompareCommand, console: Console) -> None:
    """Prints a comparison."""
    from fewseg.reports import compare as comparison

    found = comparison.compare(
        command.a,
        command.b,
        allow_different_protocols=command.allow_different_protocols,
        planned=command.episodes,
    )
    console.print(comparison.comparison_table(found))
    console.print("\n".join(comparison.comparison_lines(found)), highlight=False, markup=False)


def table(command: TableCommand, console: Console) -> None:
    """Prints tables."""
    from fewseg.reports.gains import gains, rich_gains
    from fewseg.reports.render import rich_table
    from fewseg.reports.results_page import load_folder, update_page
    from fewseg.reports.sizes import rich_sizes
    from fewseg.reports.spread import protocol_line
    from fewseg.reports.table import fold_tables

    found, left_out = load_folder(command.folder)
    counts = {id(result): counts for result, counts in found}
    for shown in fold_tables([result for result, _ in found]):
        console.print(rich_table(shown))
        own = {protocol_line(r): None for row in shown.rows for r in row.results.values()}
        console.print("\n".join(own), markup=False, highlight=False, soft_wrap=True)
        pairs = gains(shown, lambda result: counts[id(result)])
        if pairs:
            console.print(rich_gains(shown, pairs))
        if command.by_size:
            console.print(rich_sizes(shown, lambda result: counts[id(result)]))
    for reason in left_out:
        console.print(f"left out: {reason}")
    if command.page is not None:
        update_page(command.page, command.folder)
        console.print(f"written: {command.page}")


def report_tables(command: ReportTablesCommand, console: Console) -> int:
    """Makes the tables; the status is ``SOME_MISSING`` where a result could not be used.

    Raises:
        ValueError: the folder is none, or no table has such a number.
    """
    from fewseg.reports.paper_tables import LAYOUTS, paper_tables
    from fewseg.reports.results_page import read_folder

    numbers = {_number(text) for text in command.table}
    layouts = [
        layout
        for layout in LAYOUTS
        if (not command.paper or layout.paper.replace("-", "") in command.paper)
        and (not numbers or layout.number in numbers)
    ]
    if not layouts:
        papers, asked = command.paper or get_args(Paper), ", ".join(command.table)
        raise ValueError(
            f"no table {asked} in {', '.join(papers)}: SCL has 1 to 6, SRPNet 1 to 4, SD-AANet I to V"
        )
    read = read_folder(command.results)
    made = paper_tables(read.found, paths=read.paths, layouts=layouts)
    told = [*(f"left out: {reason}" for reason in read.left_out), *made[0].problems]
    status = SOME_MISSING if told else 0
    if not read.found:
        told.append(f"{command.results} has no result that can be read: every row of ours says 'not run'")
    formats = command.format or (("markdown", "html", "latex", "csv") if command.out else ("terminal",))
    for form in formats:
        if command.out is None or form == "terminal":
            _show(form, made, told, console)
        else:
            _write(form, made, told, command.out, console)
    for sentence in told:
        if command.out is not None or formats == ("terminal",):
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        else:  # the output may be for another program
            _log.warning("%s", sentence)
    return status


def _number(text: str) -> str:
    """A table's number in Arabic digits; "IV" as "4"."""
    from fewseg.reports.paper_tables.layout import ROMAN

    return str(ROMAN.index(text.upper())) if text.upper() in ROMAN[1:] else text


def _show(form: Format, made: Sequence[PaperTable], told: Sequence[str], console: Console) -> None:
    from fewseg.reports.paper_tables import rich_paper_table

    if form == "terminal":
        for table in made:
            console.print(rich_paper_table(table, console.width))
        return
    for text in _texts(form, made, told).values():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _write(
    form: Format, made: Sequence[PaperTable], told: Sequence[str], out: Path, console: Console
) -> None:
    from fewseg.ops.files import atomic_write_text

    for name, text in _texts(form, made, told).items():
        atomic_write_text(out / name, text)
        console.print(f"written: {out / name}", markup=False, highlight=False, soft_wrap=True)


def _texts(form: Format, made: Sequence[PaperTable], told: Sequence[str]) -> dict[str, str]:
    """File name to text: one page of HTML, or a file for each table."""
    from fewseg.reports.paper_tables import csv_tables, html_page, latex_paper_table, markdown_paper_table

    if form == "html":
        return {"tables.html": html_page(made, told)}
    if form == "csv":
        return {"tables.csv": csv_tables(made)}
    if form == "latex":
        return {f"{table.slug}.tex": latex_paper_table(table, told) for table in made}
    return {f"{table.slug}.md": markdown_paper_table(table, told) for table in made}
