"""``fewseg report``: the papers' tables and figures, and a site over a folder of results."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro
from rich.console import Console

_USAGE = """fewseg report KIND [options]: what the results say; kinds:

  tables     every table of the papers, published values beside ours
  figures    every figure of the papers, from checkpoints and results
  site       one HTML file over a folder of results

`fewseg report KIND --help` tells the options."""


def _tables(arguments: Sequence[str], console: Console) -> int | None:

    return tables(arguments, console)


def _figures(arguments: Sequence[str], console: Console) -> int | None:

    return figures(arguments, console)


def _site(arguments: Sequence[str], console: Console) -> int | None:

    return site(arguments, console)


SOME_MISSING = 3
"""The exit status where something that was given could not be used; the rest is made."""

KINDS: dict[str, Callable[[Sequence[str], Console], int | None]] = {
    "tables": _tables,
    "figures": _figures,
    "site": _site,
}


def report(arguments: Sequence[str], console: Console) -> int | None:
    """Makes a kind of report.

    Raises:
        ValueError: no kind is given, or one that is not known.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
        if not arguments:
            raise ValueError("no kind of report given: name one of those above")
        return None
    kind = arguments[0]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS) or list(KINDS)
        raise ValueError(f"unknown kind of report {kind!r}: did you mean {' or '.join(near)}?")
    return KINDS[kind](arguments[1:], console)


def figures(arguments: Sequence[str], console: Console) -> int:
    """Makes the figures; see ``FiguresOptions``."""
    from fewseg.reports.figures.context import FiguresOptions
    from fewseg.reports.figures.run import FIGURES, make_figures

    options = tyro.cli(FiguresOptions, prog="fewseg report figures", args=arguments)
    if options.figure == ("list",):
        for name, kind in FIGURES.items():
            console.print(f"{name}: {kind.shows}; needs {kind.needs}", highlight=False, soft_wrap=True)
        return 0
    made = make_figures(options)
    for claim in made.claims:
        value = claim.estimate
        number = f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] of {claim.count}"
        line = f"{claim.claim}, {claim.where}: {claim.quantity} {number}: {claim.verdict}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for remark in made.remarks:
        console.print(f"note: {remark}", highlight=False, markup=False, soft_wrap=True)
    for problem in made.problems:
        console.print(f"missing: {problem}", highlight=False, markup=False, soft_wrap=True)
    count = len([path for path in made.files if path.suffix == ".png"])
    console.print(f"figures: {count}, in {options.out}", highlight=False, markup=False, soft_wrap=True)
    return SOME_MISSING if made.problems else 0


@dataclass(frozen=True, kw_only=True)
class SiteCommand:
    """Writes one HTML file over a folder of results: tables, charts, configs, and the data behind them.

    The file asks the network for nothing. What cannot be read or is missing is named, and the rest is
    made; where something that was given could not be used, the exit status is 3.

    Attributes:
        folder: where result files lie.
        out: the file to write.
        runs: folder of training runs, for learning curves.
        figures: folder of figures (PNG, SVG) to put into the page.
        photographs: put those of its subfolder ``pictures`` into the page too, as far as there is room.
        folds: how many folds the data sets have.
        quiet: no progress bar.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    out: Path = Path("results.html")
    runs: Path | None = None
    figures: Path | None = None
    photographs: bool = False
    folds: int = 4
    quiet: bool = False


def site(arguments: Sequence[str], console: Console) -> int:
    """Makes the site; the status is ``SOME_MISSING`` where something given could not be used."""
    from fewseg.reports.site.build import write_site

    command = tyro.cli(SiteCommand, prog="fewseg report site", args=arguments)
    made = write_site(
        command.folder,
        command.out,
        runs=command.runs,
        figures=command.figures,
        photographs=command.photographs,
        folds=command.folds,
        progress=not command.quiet,
    )
    for problem in made.problems:
        console.print(f"missing: {problem}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"written: {made.path} ({made.results} results, {made.size / 1e6:.1f} MB)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0 if made.all_used else SOME_MISSING


if TYPE_CHECKING:
    from fewseg.reports.paper_tables import PaperTable

_log = logging.getLogger(__name__)

Paper = Literal["scl", "srpnet", "sdaanet"]
Format = Literal["terminal", "markdown", "html", "latex", "csv"]


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


def tables(arguments: Sequence[str], console: Console) -> int:
    """Makes the tables; the status is ``SOME_MISSING`` where a result could not be used.

    Raises:
        ValueError: the folder is none, or no table has such a number.
    """
    from fewseg.reports.paper_tables import LAYOUTS, paper_tables
    from fewseg.reports.results_page import read_folder

    command = tyro.cli(ReportTablesCommand, prog="fewseg report tables", args=arguments)
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
