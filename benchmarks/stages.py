"""Seconds of the stages of a run, by wrapping the methods that do them, and the peak of its memory."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from fewseg.ops.memory import own_memory


class Stages:
    """Seconds and items of each stage; what a stage calls that is a stage of its own counts there alone."""

    def __init__(self) -> None:
        self.seconds, self.items = defaultdict(float), defaultdict(int)
        self._inside: list[float] = []

    def watch(self, owner, method: str, stage: str, items=lambda *arguments: 1) -> None:
        plain = getattr(owner, method)

        def timed(*arguments, **options):
            start = time.perf_counter()
            self._inside.append(0.0)
            found = plain(*arguments, **options)
            took = time.perf_counter() - start
            self.seconds[stage] += took - self._inside.pop()
            self.items[stage] += items(*arguments)
            if self._inside:
                self._inside[-1] += took
            return found

        setattr(owner, method, timed)


class PeakMemory(threading.Thread):
    """Looks every 20 ms at the process's own memory, without the files that it has mapped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before, self.most, self._done = own_memory(), 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, own_memory())

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self._done.set()
        self.join()

    @property
    def growth(self) -> int:
        """Bytes above what there was before."""
        return max(0, self.most - self.before)
