"""Options of ``fewseg table``, ``compare`` and ``report``: parsing imports no more."""

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


@dataclass(frozen=True, kw_only=True)
class SiteOptions:
    """Writes one HTML file over a folder of results: tables, charts, configs, and the data behind them.

    The file makes no network request. What cannot be read or is missing is named, and the rest is made; if
    something that was given could not be used, the exit status is 3.

    Attributes:
        folder: where result files lie, at any depth.
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


@dataclass(frozen=True, kw_only=True)
class FiguresOptions:
    """Makes the papers' figures: PDF and PNG, with the numbers behind them as CSV beside each.

    ``plots`` in the output folder holds figures without photographs, as SVG too, ``pictures`` the others.
    What a figure needs and does not have is named and the rest is made; the exit status is then 3.
    ``--figure list`` lists the figures and what each needs.

    Attributes:
        results: folder of result files, for the figures that are made from them.
        checkpoints: of any methods and folds of one data set; or names of recipes without training.
        out: folder for the figures.
        figure: only these; all by default.
        fold: of recipes without training.
        root: folder of the data set; recipes for the small real set find it by themselves.
        episodes: a seed; the protocol's by default, whose seeds are all taken.
        examples: rows of a figure with photographs.
        seed: of everything that is drawn: examples, cells, t-SNE's start, resamples.
        shots: of the predictions side by side; with 5 beside 1 those too that the recipe tests with 5 shots.
        quiet: no progress bar.
    """

    results: Annotated[Path | None, tyro.conf.Positional] = None
    checkpoints: tuple[str, ...] = ()
    out: Path = Path("figures")
    figure: tuple[str, ...] = ()
    fold: int | None = None
    root: Path | None = None
    episodes: int | None = None
    examples: int = 5
    seed: int = 0
    shots: tuple[int, ...] = (1,)
    quiet: bool = False

    def check(self) -> None:
        """Refuses counts below 1."""
        if min(self.examples, *self.shots, 1 if self.episodes is None else self.episodes) < 1:
            raise ValueError(
                f"episodes, examples and shots must be at least 1, got {self.episodes}, {self.examples} and "
                f"{self.shots}"
            )
