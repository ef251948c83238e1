"""The one progress bar: count, rate and time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

_QUIET_SECONDS, _QUIET_SHARE = 30.0, 1 / 20  # without a line; of the time so far, in work of hours


class _Rate(ProgressColumn):
    """Items a second, or seconds an item where they are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class _Lines(Progress):
    """A bar where nothing can be redrawn: a line at each tenth of a task, and each half minute or later."""

    def __init__(self, console: Console) -> None:
        super().__init__(disable=True, console=console)
        self._printed: dict[TaskID, tuple[int, float]] = {}  # the tenth and the time of a task's last line

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Counts, and prints a line when it is time for one."""
        super().advance(task_id, advance)
        self._print_due(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Changes a task, and prints a line when it is time for one."""
        super().update(task_id, **changes)
        self._print_due(task_id)

    def _print_due(self, task_id: TaskID) -> None:
        task, now = self._tasks[task_id], self.get_time()
        tenth = int(10 * task.completed / task.total) if task.total else 0
        began = now - (task.elapsed or 0.0)
        last_tenth, last_time = self._printed.get(task_id, (0, began))
        if tenth > last_tenth or now - last_time >= max(_QUIET_SECONDS, _QUIET_SHARE * (now - began)):
            self._printed[task_id] = (tenth, now)
            self.console.out(_line(task), highlight=False)


def _line(task: Task) -> str:
    count = f"{task.completed:.0f}" + (f" of {task.total:.0f}" if task.total else "")
    elapsed = task.elapsed or 0.0
    left = elapsed / task.completed * (task.total - task.completed) if task.total and task.completed else None
    return f"{task.description}: {count}, {_clock(elapsed)}" + (f", {_clock(left)} left" if left else "")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bar(show: bool = True) -> Iterator[Progress]:
    """A rich progress bar on standard error that goes away when done.

    Where standard error is no terminal, a line is printed now and then instead.
    """
    console = Console(stderr=True)
    if show and not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, disable=not show, console=console) as bar:
        yield bar


def tracked(show: bool, description: str, items: Iterable[T]) -> Iterator[T]:
    """Yields the items under a progress bar."""
    items = list(items)
    with progress_bar(show) as bar:
        task = bar.add_task(description, total=len(items))
        for item in items:
            yield item
            bar.advance(task)
