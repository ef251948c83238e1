"""The one progress bar: count, rate and time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


class _Rate(ProgressColumn):
    """Items a second, or seconds an item where they are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


@contextmanager
def progress_bar(show: bool = True) -> Iterator[Progress]:
    """Gives a rich progress bar on standard error that goes away when done.

    Args:
        show: False gives a bar that draws nothing.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, disable=not show, console=Console(stderr=True)) as bar:
        yield bar


def tracked(show: bool, description: str, items: Iterable[T]) -> Iterator[T]:
    """Yields the items under a progress bar.

    Args:
        show: False draws nothing.
        description: what is being done.
        items: what is done one by one.
    """
    items = list(items)
    with progress_bar(show) as bar:
        task = bar.add_task(description, total=len(items))
        for item in items:
            yield item
            bar.advance(task)
