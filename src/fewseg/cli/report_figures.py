"""``fewseg report figures``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fewseg.cli.report import SOME_MISSING


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


def figures(arguments: Sequence[str], console: Console) -> int:
    """Makes the figures; see ``FiguresCommand``."""
    command = tyro.cli(FiguresCommand, prog="fewseg report figures", args=arguments)
    from fewseg.figures.registry import FIGURES
    from fewseg.figures.run import make_figures

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
