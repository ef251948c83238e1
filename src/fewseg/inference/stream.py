"""Overlaps reading, computing and writing of images, with a bounded number of them in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from fewseg.types import DataError

NO_MEMORY = "there is not enough memory for this image: lower --batch or --size, or make it smaller"
SKIPPED = (DataError, MemoryError)
"""Errors of one image, which do not end the stream."""

K = TypeVar("K")
A = TypeVar("A")
B = TypeVar("B")


def _computed(
    compute: Callable[[list[tuple[K, A]]], list[B]],
    ready: list[tuple[K, A]],
) -> list[tuple[K, B | Exception]]:
    """The results of a batch; if it cannot be computed at once, its images are computed one by one."""
    try:
        results = compute(ready) if ready else []
        return [(key, result) for (key, _), result in zip(ready, results, strict=True)]
    except SKIPPED as error:
        if len(ready) == 1:
            return [(ready[0][0], error)]
    # after the error is released, as its frames hold the batch's maps
    return [result for item in ready for result in _computed(compute, [item])]


def stream(  # noqa: C901 - one loop with three stages
    keys: Iterable[K],
    read: Callable[[K], A],
    compute: Callable[[list[tuple[K, A]]], list[B]],
    write: Callable[[K, B], None],
    failed: Callable[[K, Exception], None],
    *,
    workers: int,
    ahead: int,
    batch: int = 1,
) -> Iterator[K]:
    """Runs keys through ``read`` in threads, ``compute`` in the caller's thread, ``write`` in one thread.

    Each key is yielded when it is written or skipped; any other error ends the stream. No more than ``ahead``
    images are between the start of their reading and the end of their computing, and no more than ``ahead``
    between that and the end of their writing. Order is kept.
    """
    broken = threading.Event()

    def written(key: K, result: B) -> K:
        if not broken.is_set():
            try:
                write(key, result)
            except BaseException:
                broken.set()
                raise
        return key

    coming, ahead = iter(keys), max(ahead, batch)
    reading: deque[tuple[K, Future[A]]] = deque()
    writing: deque[Future[K]] = deque()
    readers, writer = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    try:
        while True:
            for key in islice(coming, ahead - len(reading)):
                reading.append((key, readers.submit(read, key)))
            if not reading:
                break
            ready: list[tuple[K, A]] = []
            while reading and len(ready) < batch:
                key, future = reading.popleft()
                try:
                    ready.append((key, future.result()))
                except SKIPPED as error:
                    failed(key, error)
                    yield key
            for key, result in _computed(compute, ready):
                if isinstance(result, Exception):
                    failed(key, result)
                    yield key
                else:
                    writing.append(writer.submit(written, key, result))
            while writing and (len(writing) > ahead or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        broken.set()
        readers.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)
