"""Options of ``fewseg table``, ``compare`` and ``report tables``: parsing imports no more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

SOME_MISSING = 3
"""The exit status where something that was given could not be used; the rest is made."""

Paper = Literal["scl", "srpnet", "sdaanet"]
Format = Literal["terminal", "markdown", "html", "latex", "csv"]


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compares two result files episode by episode, with an interval of the difference.

    Attributes:
        a: a result file to measure against.
        b: a result file.
        allow_different_protocols: compare results of different data set, protocol, fold, shots or class split
            all the same; what differs is listed, and the difference is unpaired unless the episodes are the
            same.
        episodes: for how many episodes (all seeds together) to give the smallest difference that they would
            find; those of ``a`` by default.
    """

    a: Annotated[Path, tyro.conf.Positional]
    b: Annotated[Path, tyro.conf.Positional]
    allow_different_protocols: bool = False
    episodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TableOptions:
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
class PaperTablesOptions:
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
