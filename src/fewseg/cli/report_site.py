"""``fewseg report site``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fewseg.cli.report import SOME_MISSING


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
    from fewseg.reporting.site.build import write_site

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
