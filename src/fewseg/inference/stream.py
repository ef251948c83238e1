"""Reading, computing and writing that overlap, with a bounded number of images in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class _Lost:
    error: Exception


class Stream(Generic[K, A, B]):
    """Runs keys through ``read`` in threads, ``compute`` in the caller's thread, ``write`` in one thread.

    No more than ``ahead`` images are between the start of their reading and the end of their computing, and
    no more than ``ahead`` between that and the end of their writing. Order is kept.

    Args:
        read: gives what one key needs to be computed; runs in several threads.
        compute: takes a batch of (key, read) and gives a result for each, in the same order.
        write: takes (key, result); runs in one thread of its own, in order.
        failed: called with (key, error) where ``read`` or ``compute`` raised one of ``skipped``: the image is
            left out. The images of a batch that raised are each computed alone first.
        skipped: kinds of errors that lose one image only; any other ends the stream.
        workers: threads that read.
        ahead: the bound.
        batch: how many are computed together.
    """

    def __init__(
        self,
        read: Callable[[K], A],
        compute: Callable[[list[tuple[K, A]]], list[B]],
        write: Callable[[K, B], None],
        failed: Callable[[K, Exception], None],
        *,
        skipped: tuple[type[Exception], ...],
        workers: int,
        ahead: int,
        batch: int = 1,
    ) -> None:
        self._read, self._compute, self._write, self._failed = read, compute, write, failed
        self._skipped, self._workers, self._batch = skipped, workers, batch
        self._ahead = max(ahead, batch)
        self._broken = threading.Event()

    def run(self, keys: Iterable[K]) -> Iterator[K]:
        """Works on all keys and yields each when it is written or left out.

        Raises:
            Exception: whatever ``write`` raised, or ``read`` or ``compute`` beyond ``skipped``; what was
                written stays, and nothing more is begun.
        """
        self._broken.clear()
        coming = iter(keys)
        reading: deque[tuple[K, Future[A]]] = deque()
        writing: deque[tuple[K, Future[None]]] = deque()
        readers, writer = ThreadPoolExecutor(self._workers), ThreadPoolExecutor(1)
        try:
            while True:
                for key in islice(coming, self._ahead - len(reading)):
                    reading.append((key, readers.submit(self._read, key)))
                if not reading:
                    break
                ready: list[tuple[K, A]] = []
                while reading and len(ready) < self._batch:
                    key, future = reading.popleft()
                    try:
                        ready.append((key, future.result()))
                    except self._skipped as error:
                        self._failed(key, error)
                        yield key
                for key, result in self._computed(ready):
                    if isinstance(result, _Lost):
                        self._failed(key, result.error)
                        yield key
                    else:
                        writing.append((key, writer.submit(self._written, key, result)))
                while writing and (len(writing) > self._ahead or writing[0][1].done()):
                    yield _finished(writing)
            while writing:
                yield _finished(writing)
        finally:
            self._broken.set()
            readers.shutdown(wait=True, cancel_futures=True)
            writer.shutdown(wait=True, cancel_futures=True)

    def _computed(self, ready: list[tuple[K, A]]) -> Iterator[tuple[K, B | _Lost]]:
        """The results of a batch; of one that cannot be computed, those of each image alone."""
        lost: Exception | None = None
        try:
            results = self._compute(ready) if ready else []
        except self._skipped as error:
            lost = error
        if lost is None:
            yield from ((key, result) for (key, _), result in zip(ready, results, strict=True))
        elif len(ready) == 1:
            yield ready[0][0], _Lost(lost)
        else:
            del lost  # its frames hold the batch's maps
            for one in ready:
                yield from self._computed([one])

    def _written(self, key: K, result: B) -> None:
        """Writes one, unless one before it failed."""
        if self._broken.is_set():
            return
        try:
            self._write(key, result)
        except BaseException:
            self._broken.set()
            raise


def _finished(writing: deque[tuple[K, Future[None]]]) -> K:
    key, future = writing.popleft()
    future.result()
    return key
