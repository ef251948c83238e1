"""``fewseg report figures``, ``report site``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

SOME_MISSING = 3
"""The exit status where something that was given could not be used; the rest is made."""


@dataclass(frozen=True, kw_only=True)
class FiguresCommand:
    """Makes the papers' figures: PDF and PNG, with the numbers behind them as CSV beside each.

    ``plots`` in the output folder holds figures without photographs, as SVG too, ``pictures`` the others.
    What a figure needs and has not got is named and the rest is made; the exit status is then 3. ``--figure
    list`` tells the figures and what each needs.

    Attributes:
        results: folder of result files, for the figures that are made of them.
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


def figures(command: FiguresCommand, console: Console) -> int:
    """Makes the figures; see ``FiguresCommand``."""
    from fewseg.reports.figures.registry import FIGURES
    from fewseg.reports.figures.run import make_figures

    if command.figure == ("list",):
        for name, kind in FIGURES.items():
            console.print(f"{name}: {kind.shows}; needs {kind.needs}", highlight=False, soft_wrap=True)
        return 0
    study = make_figures(
        command.results,
        command.checkpoints,
        command.out,
        figures=command.figure,
        fold=command.fold,
        root=command.root,
        episodes=command.episodes,
        examples=command.examples,
        seed=command.seed,
        shots=command.shots,
        progress=not command.quiet,
    )
    for claim in study.claims:
        value = claim.found
        number = f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] of {claim.count}"
        line = f"{claim.claim}, {claim.where}: {claim.quantity} {number}: {claim.verdict}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for remark in study.remarks:
        console.print(f"note: {remark}", highlight=False, markup=False, soft_wrap=True)
    for problem in study.problems:
        console.print(f"missing: {problem}", highlight=False, markup=False, soft_wrap=True)
    count = len([path for path in study.files if path.suffix == ".png"])
    console.print(f"figures: {count}, in {command.out}", highlight=False, markup=False, soft_wrap=True)
    return SOME_MISSING if study.problems else 0


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


def site(command: SiteCommand, console: Console) -> int:
    """Makes the site; the status is ``SOME_MISSING`` where something given could not be used."""
    from fewseg.reports.site.build import write_site

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
