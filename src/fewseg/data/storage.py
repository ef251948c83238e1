"""The cache folder and the progress bar of the readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def cache_folder() -> Path:
    """Returns ``$FEWSEG_CACHE``, or ``~/.cache/fewseg``; it may not exist yet."""
    chosen = os.environ.get("FEWSEG_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fewseg"


@contextmanager
def progress_bar(show: bool = True) -> Iterator[Progress]:
    """Gives a rich progress bar with counts and time left, on stderr; it goes away when done.

    Nothing is shown where stderr is not a terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not (show and console.is_terminal)
    ) as bar:
        yield bar
