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
    """Compares two result files episode by episode, with an interval of the difference."""

    a: Annotated[Path, tyro.conf.Positional]  # a result file to measure against.
    b: Annotated[Path, tyro.conf.Positional]  # a result file.
    # results of further trainings of ``a``, of other seeds; the interval then includes training noise.
    more_a: tuple[Path, ...] = ()
    more_b: tuple[Path, ...] = ()  # the same of ``b``.
    # compare results of different data set, protocol, fold, shots or class split all the same; what differs
    # is listed, and the difference is unpaired unless the episodes are the same.
    allow_different_protocols: bool = False
    # for how many episodes (all seeds together) to give the smallest difference that they would find; those
    # of ``a`` by default.
    episodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ZooOptions:
    """Prints the table of methods: what each adds, its size and cost, published and measured values."""

    methods: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # only these; all by default.
    results: Path = Path("results")  # folder of result files for the measured values.
    costs: bool = True  # count parameters and operations, which builds and runs each method once.


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Prints the tables of a folder of results, with paired gains and published values."""

    folder: Annotated[Path, tyro.conf.Positional]  # where result files lie.
    page: Path | None = None  # a Markdown file whose results block is written anew.
    by_size: bool = False  # also print mIoU by the size of the target, in bins of 500 pixels.
    # results whose trainings made different things of novel classes share a table, where all else is alike.
    any_training: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperTablesOptions:
    """Makes the papers' tables again: printed values, and ours from a folder of results beside them.

    A result that cannot be used is named and the rest is shown; the exit status is then 3.
    """

    # folder of result files (of `fewseg evaluate`); may be empty.
    results: Annotated[Path, tyro.conf.Positional] = Path("results")
    paper: tuple[Paper, ...] = ()  # only these papers.
    table: tuple[str, ...] = ()  # only tables of these numbers, such as 1 or IV.
    format: tuple[Format, ...] = ()  # terminal by default; with --out, all others.
    # folder to write to: Markdown and LaTeX in a file for each table, HTML and CSV in one for all.
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SiteOptions:
    """Writes one HTML file over a folder of results: tables, charts, configs, and the data behind them.

    The file makes no network request. What cannot be read or is missing is named, and the rest is made; if
    something that was given could not be used, the exit status is 3.
    """

    folder: Annotated[Path, tyro.conf.Positional]  # where result files lie, at any depth.
    out: Path = Path("results.html")  # the file to write.
    runs: Path | None = None  # folder of training runs, for learning curves.
    figures: Path | None = None  # folder of figures (PNG, SVG) to put into the page.
    # put those of its subfolder ``pictures`` into the page too, as far as there is room.
    photographs: bool = False
    folds: int = 4  # how many folds the data sets have.
    quiet: bool = False  # no progress bar.


@dataclass(frozen=True, kw_only=True)
class FiguresOptions:
    """Makes the papers' figures: PDF and PNG, with the numbers behind them as CSV beside each.

    ``plots`` in the output folder holds figures without photographs, as SVG too, ``pictures`` the others.
    What a figure needs and does not have is named and the rest is made; the exit status is then 3.
    ``--figure list`` lists the figures and what each needs.
    """

    # folder of result files, for the figures that are made from them.
    results: Annotated[Path | None, tyro.conf.Positional] = None
    # of any methods and folds of one data set; or names of recipes without training.
    checkpoints: tuple[str, ...] = ()
    out: Path = Path("figures")  # folder for the figures.
    figure: tuple[str, ...] = ()  # only these; all by default.
    fold: int | None = None  # of recipes without training.
    root: Path | None = None  # folder of the data set; recipes for the small real set find it by themselves.
    episodes: int | None = None  # a seed; the protocol's by default, whose seeds are all taken.
    examples: int = 5  # rows of a figure with photographs.
    seed: int = 0  # of everything that is drawn: examples, cells, t-SNE's start, resamples.
    # of the predictions side by side; with 5 beside 1 those too that the recipe tests with 5 shots.
    shots: tuple[int, ...] = (1,)
    quiet: bool = False  # no progress bar.

    def check(self) -> None:
        """Refuses counts below 1."""
        if min(self.examples, *self.shots, 1 if self.episodes is None else self.episodes) < 1:
            raise ValueError(
                f"episodes, examples and shots must be at least 1, got {self.episodes}, {self.examples} and "
                f"{self.shots}"
            )
