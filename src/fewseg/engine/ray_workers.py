"""An evaluation's shares on the workers of a Ray cluster; what a lost worker had is done by another."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from fewseg.engine.shares import Pair, Question, Share
from fewseg.engine.workforce import Task, Worker, merged
from fewseg.metrics.counts import Counts

logger = logging.getLogger(__name__)

SHARES_A_WORKER = 4
"""So that a lost worker takes only a part of its work with it, and fast ones can help slow ones."""


class RayWorkers:
    """The actors of a Ray cluster, each with an evaluator of its own.

    A worker that dies is replaced, and its shares are done again: those in work, and what is asked of those
    that it had judged. The counts are the same. Features are computed together where workers share a cache
    folder; every worker encodes the supports that its shares need.

    Args:
        make: makes a worker, in its process; pickled with what it refers to.
        workers: how many; each takes one core, or one GPU where the cluster has any.
        address: of a running cluster; by default the one that the environment names, or one of this machine.
        lives: workers that may be lost before the evaluation gives up.
    """

    writes = True

    def __init__(
        self, make: Callable[[], Worker], workers: int, *, address: str | None = None, lives: int = 10
    ) -> None:
        if workers < 1:
            raise ValueError(f"got {workers} workers: give one at least")
        self.make, self.workers, self.address, self.lives = make, workers, address, lives

    @property
    def shares(self) -> int:
        """Several for each worker."""
        return SHARES_A_WORKER * self.workers

    def run(self, worker: Worker, shares: Sequence[Share], task: Task) -> dict[Question, Counts]:
        """Counts of the questions of all shares; ``worker`` has nothing to do.

        Raises:
            RuntimeError: Ray is not installed, or more workers were lost than the object has lives.
        """
        del worker
        ray = _ray()
        started = not ray.is_initialized()
        if started:
            there = self.address or os.environ.get("RAY_ADDRESS")
            own = {} if there else {"num_cpus": self.workers}
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False, **own)
        try:
            crew = _Crew(ray, self.make, self.workers, self.lives)
            judged: list[dict[Pair, float]] = crew.do("judge", [(share, task) for share in shares])
            ious = ray.put(merged(judged))
            answers: list[dict[Question, Counts]] = crew.do("answer", [(s, task, ious) for s in shares])
            return merged(answers)
        finally:
            if started:
                ray.shutdown()


class _Crew:
    """Actors in places; a job goes back to the place that did its like before, as long as that lives."""

    def __init__(self, ray: Any, make: Callable[[], Worker], workers: int, lives: int) -> None:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        self._class = ray.remote(num_cpus=1, num_gpus=gpus)(_Actor)
        self.ray, self.make, self.lives = ray, make, lives
        self._actors = [self._class.remote(make) for _ in range(workers)]
        self._home: dict[int, int] = {}

    def do(self, method: str, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Results of all jobs, in their order."""
        waiting, idle = deque(range(len(jobs))), deque(range(len(self._actors)))
        running: dict[Any, tuple[int, int]] = {}
        results: dict[int, Any] = {}
        while len(results) < len(jobs):
            for place in list(idle):
                job = self._next(waiting, place)
                if job is not None:
                    idle.remove(place)
                    running[getattr(self._actors[place], method).remote(*jobs[job])] = (job, place)
            (done, *_), _ = self.ray.wait(list(running), num_returns=1)
            job, place = running.pop(done)
            idle.append(place)
            try:
                results[job] = self.ray.get(done)
                self._home[job] = place
            except self.ray.exceptions.RayActorError as error:
                self._replace(place, error)
                waiting.appendleft(job)
        return [results[job] for job in range(len(jobs))]

    def _next(self, waiting: deque[int], place: int) -> int | None:
        """A job that was done here before, or else one that was done nowhere that lives."""
        own = [job for job in waiting if self._home.get(job) == place]
        free = [job for job in waiting if job not in self._home]
        for job in (*own, *free):
            waiting.remove(job)
            return job
        return None

    def _replace(self, place: int, error: Exception) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise RuntimeError(
                "too many Ray workers were lost; give fewer workers, each with more memory, or see in Ray's "
                f"logs why they died ({error})"
            ) from error
        logger.warning("a Ray worker was lost (%s): another does its shares again", type(error).__name__)
        self._actors[place] = self._class.remote(self.make)
        self._home = {job: home for job, home in self._home.items() if home != place}


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self.worker = make()

    def judge(self, *arguments: Any) -> dict[Pair, float]:
        """See ``Worker``."""
        return self.worker.judge(*arguments)

    def answer(self, *arguments: Any) -> dict[Question, Counts]:
        """See ``Worker``."""
        return self.worker.answer(*arguments)


def _ray() -> Any:
    """The module, which is an optional part.

    Raises:
        RuntimeError: it is not installed.
    """
    # `uv run fewseg ...` would have every worker started by `uv run`, in an environment of its own
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise RuntimeError(
            "Ray is not installed: install fewseg[ray], or use --processes on one machine"
        ) from error
