"""One self-contained HTML file over a folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


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
