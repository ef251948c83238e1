"""The same work on many files: threads, a progress bar, and every error reported at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from fewseg.ops.progress import progress_bar
from fewseg.types import DataError

T = TypeVar("T")

_BLOCK = 10_000  # pieces of work that wait at a time: a million of them take a gigabyte

SHOWN = 5  # errors shown in full; the rest are counted


def cores() -> int:
    """Cores that this process may run on, which is less than the machine has in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def summary(wrong: Sequence[str]) -> str:
    """Returns the first few of many messages, indented, and the number of the others."""
    more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return "".join(f"\n  {line}" for line in [*wrong[:SHOWN], *more])


def for_each(
    ids: Sequence[str],
    work: Callable[[str], T],
    title: str,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, T]:
    """``work(id)`` by id, in the order of the ids, by several threads (by default the CPUs, 16 at most).

    Every ``DataError`` of ``work`` is collected: the one that is raised counts them and shows the first few.
    Any other exception ends the work at once.
    """
    results: dict[str, T] = {}
    wrong: dict[str, str] = {}
    threads = workers or min(16, cores())
    with (
        progress_bar(progress and sys.stderr.isatty()) as bar,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):
        task = bar.add_task(title, total=len(ids))
        try:
            for start in range(0, len(ids), _BLOCK):
                futures = {pool.submit(work, id): id for id in ids[start : start + _BLOCK]}
                for future in as_completed(futures):
                    id = futures[future]
                    try:
                        results[id] = future.result()
                    except DataError as error:
                        wrong[id] = str(error)
                    bar.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if wrong:
        messages = [wrong[id] for id in ids if id in wrong]
        raise DataError(f"{title}: {len(wrong)} of {len(ids)} images cannot be used{summary(messages)}")
    return {id: results[id] for id in ids}
