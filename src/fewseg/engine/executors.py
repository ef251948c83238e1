"""What an evaluation asks, and how it is shared out so that nothing is computed in two places."""

from __future__ import annotations

import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric

from fewseg.data.episodes import EpisodeSpec, Way
from fewseg.data.protocols import LabelSize
from fewseg.methods.fusion import Fusion
from fewseg.metrics.counts import Counts

Target = Literal["query", "support"]

T = TypeVar("T", bound=Hashable)

Pair = tuple[int, str, str]
"""(class, support image, target image)."""


@dataclass(frozen=True)
class Question:
    """What several episodes may ask alike: these supports, segment that image."""

    ways: tuple[Way, ...]
    target: str

    @property
    def images(self) -> tuple[str, ...]:
        """Every image that is looked at."""
        return (*(id for way in self.ways for id in way.supports), self.target)


@dataclass(frozen=True)
class Share:
    """A part of an evaluation that one process does on its own.

    Attributes:
        questions: to be answered.
        judged: pairs of support images whose IoU any share may need before it can answer (cross-guided).
    """

    questions: tuple[Question, ...]
    judged: tuple[Pair, ...] = ()

    @property
    def images(self) -> list[str]:
        """Every image that is looked at, once."""
        asked = {id for question in self.questions for id in question.images}
        return sorted(asked | {id for _, *ids in self.judged for id in ids})


def questions_of(spec: EpisodeSpec, on: Target) -> list[Question]:
    """The questions of an episode: one for its query, or one for each of its support images."""
    targets = (spec.query,) if on == "query" else spec.all_supports
    return [Question(spec.ways, target) for target in targets]


def by_target(asked: Sequence[Question], judged: Collection[Pair], parts: int) -> list[Share]:
    """Shares of whole targets: every pair is scored in one share, and a target is encoded in one.

    Args:
        asked: different questions.
        judged: pairs whose IoU is needed.
        parts: number of shares, about equal in pairs to be scored.
    """
    pairs: dict[str, int] = defaultdict(int)
    for question in asked:
        pairs[question.target] += sum(len(way.supports) for way in question.ways)
    in_order = sorted(judged)  # every process must come to the same shares
    for _, _, target in in_order:
        pairs[target] += 1
    part = _balanced(pairs, parts)
    return _shares(asked, [part[q.target] for q in asked], in_order, part, parts)


def by_support_set(asked: Sequence[Question], parts: int) -> list[Share]:
    """Shares of whole support sets: every set is encoded in one share.

    Args:
        asked: different questions.
        parts: number of shares, about equal in questions.
    """
    sets: dict[tuple[Way, ...], int] = defaultdict(int)
    for question in asked:
        sets[question.ways] += 1
    part = _balanced(sets, parts)
    return _shares(asked, [part[q.ways] for q in asked], (), {}, parts)


def _shares(
    asked: Sequence[Question],
    of_question: Sequence[int],
    judged: Iterable[Pair],
    of_target: Mapping[str, int],
    parts: int,
) -> list[Share]:
    questions: list[list[Question]] = [[] for _ in range(parts)]
    pairs: list[list[Pair]] = [[] for _ in range(parts)]
    for question, part in zip(asked, of_question, strict=True):
        questions[part].append(question)
    for pair in judged:
        pairs[of_target[pair[2]]].append(pair)
    return [Share(tuple(q), tuple(p)) for q, p in zip(questions, pairs, strict=True)]


def _balanced(costs: Mapping[T, int], parts: int) -> dict[T, int]:
    """The part of every item: the dearest first, each to the part that has least."""
    loads, part = [0] * parts, {}
    for item in sorted(costs, key=lambda item: -costs[item]):  # stable: the order of the questions decides
        least = loads.index(min(loads))
        loads[least] += costs[item]
        part[item] = least
    return part


K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is the same for all shares.

    Attributes:
        fusion: how K shots become one answer.
        label_size: of the protocol.
    """

    fusion: Fusion
    label_size: LabelSize


class Worker(Protocol):
    """What does a share: an ``Evaluator``."""

    def judge(self, share: Share, task: Task) -> dict[Pair, float]:
        """IoUs that other shares may need."""
        ...

    def answer(self, share: Share, task: Task, ious: Mapping[Pair, float]) -> dict[Question, Counts]:
        """Counts of the share's questions."""
        ...


class Workforce(Protocol):
    """Does all shares; the counts do not depend on how many there are."""

    @property
    def shares(self) -> int:
        """Into how many shares the work is to be divided."""
        ...

    @property
    def writes(self) -> bool:
        """Whether this process writes the results: one of them does."""
        ...

    def run(self, worker: Worker, shares: Sequence[Share], task: Task) -> dict[Question, Counts]:
        """Counts of the questions of all shares.

        Args:
            worker: of this process.
            shares: ``shares`` of them.
            task: what is the same for all.
        """
        ...


class Alone:
    """One process, one share."""

    shares = 1
    writes = True

    def run(self, worker: Worker, shares: Sequence[Share], task: Task) -> dict[Question, Counts]:
        """Counts of the questions of all shares."""
        ious = merged([worker.judge(share, task) for share in shares])
        return merged([worker.answer(share, task, ious) for share in shares])


class Ranks:
    """The processes of a torch.distributed group (of Fabric's DDP, say), one share each.

    Every process calls ``run`` with the same shares and gets all counts. Features are computed together where
    the processes share a cache folder.

    Raises:
        ValueError: there is no process group.
    """

    def __init__(self) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError("there is no process group: launch Fabric with several devices first")

    @property
    def shares(self) -> int:
        """One for each process."""
        return dist.get_world_size()

    @property
    def writes(self) -> bool:
        """True in the first process."""
        return dist.get_rank() == 0

    def run(self, worker: Worker, shares: Sequence[Share], task: Task) -> dict[Question, Counts]:
        """Counts of the questions of all shares, in every process."""
        mine = shares[dist.get_rank()]
        ious = merged(_gathered(worker.judge(mine, task)))
        return merged(_gathered(worker.answer(mine, task, ious)))


def launch_ranks(processes: int) -> Ranks:
    """Starts this program again in further processes, as Fabric's DDP does, and joins them.

    Each takes its share of the cores: busy processes with more threads than cores are several times slower.
    """
    fabric = Fabric(accelerator="auto", devices=processes)
    fabric.launch()
    share_cores(processes)
    return Ranks()


def share_cores(processes: int) -> None:
    """Limits this process's threads to its part of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores // processes)))


def _gathered(value: Any) -> list[Any]:
    """Every process's value, in the order of the ranks."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def merged(parts: Sequence[Mapping[K, V]]) -> dict[K, V]:
    """One mapping of several without common keys."""
    return {key: value for part in parts for key, value in part.items()}


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
    """The module, which is an optional part."""
    # `uv run fewseg ...` would have every worker started by `uv run`, in an environment of its own
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise RuntimeError(
            "Ray is not installed: install fewseg[ray], or use --processes on one machine"
        ) from error
