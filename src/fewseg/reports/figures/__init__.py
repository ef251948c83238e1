"""The papers' figures, from checkpoints and results: one file for each idea, its data beside its drawing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


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
