"""An evaluation as shards of questions, and the processes that answer them."""

from __future__ import annotations

import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from fewseg.data.episodes import EpisodeSpec, Way
from fewseg.data.protocols import LabelSize
from fewseg.engine.answering import Answering
from fewseg.engine.choices import Target
from fewseg.errors import first_line
from fewseg.methods.fusion import Fusion
from fewseg.ops.files import atomic_path
from fewseg.ops.parallel import cores
from fewseg.ops.progress import progress_bar, tracked

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # takes seconds, and one process does without

logger = logging.getLogger(__name__)

Step = Literal["cross_iou", "counts"]
Array = npt.NDArray[Any]

Pair = tuple[int, str, str]
"""(class, support image, target image)."""

CrossPair = tuple[int, int, str, str]
"""(number of the line, class, support image k, support image i) of a predicted IoU [k, i]."""

SHARDS = 32
"""Of an evaluation, at least: what a kill can cost is one of them for each process."""


@dataclass(frozen=True)
class Question:
    """What several episodes may share: these supports, segment that image."""

    ways: tuple[Way, ...]
    target: str

    @property
    def images(self) -> tuple[str, ...]:
        """Every image that is looked at."""
        return (*(id for way in self.ways for id in way.supports), self.target)

    @property
    def rows(self) -> int:
        """Rows of counts: one a way and, of several ways, one of any way."""
        return len(self.ways) + (len(self.ways) > 1)


def questions_of(spec: EpisodeSpec, on: Target) -> list[Question]:
    """The questions of an episode: one for its query, or one for each of its support images."""
    targets = (spec.query,) if on == "query" else spec.all_supports
    return [Question(spec.ways, target) for target in targets]


@dataclass(frozen=True, kw_only=True)
class LineQuestions(Answering):
    """Different questions that are answered and counted alike, by a fusion and sizes that are known."""

    fusion: Fusion
    questions: tuple[Question, ...]  # each once
    by_pairs: bool  # whether answers are put together from scores of (support, target) pairs
    label_size: LabelSize = "original"  # of the protocol

    def unit(self, question: Question) -> str | tuple[Way, ...]:
        """What must stay in one shard, so that nothing is computed twice: a target, or a support set."""
        return question.target if self.by_pairs else question.ways


@dataclass(frozen=True)
class Shard:
    """A part of an evaluation that one process does on its own."""

    lines: tuple[LineQuestions, ...]  # all lines, each with the shard's questions
    cross: tuple[CrossPair, ...] = ()  # the predicted IoUs that this shard computes; any shard may need them

    @property
    def images(self) -> list[str]:
        """Every image that is looked at, once."""
        seen = {id for line in self.lines for question in line.questions for id in question.images}
        return sorted(seen | {id for _, _, *ids in self.cross for id in ids})

    def rows(self, step: Step) -> int:
        """Length of a step's result."""
        if step == "cross_iou":
            return len(self.cross)
        return sum(question.rows for line in self.lines for question in line.questions)


def split(lines: Sequence[LineQuestions], cross: Sequence[CrossPair], parts: int) -> list[Shard]:
    """Splits the work into shards of whole targets and support sets, about equal in cost.

    Units of one class lie together, so that a process needs the guides of few classes at a time.
    """
    costs: dict[str | tuple[Way, ...], int] = defaultdict(int)
    classes: dict[str | tuple[Way, ...], int] = {}
    for line in lines:
        for question in line.questions:
            unit = line.unit(question)
            costs[unit] += sum(len(way.supports) for way in question.ways) if line.by_pairs else 1
            class_id = min(way.class_id for way in question.ways)
            classes[unit] = min(classes.get(unit, class_id), class_id)
    for _, class_id, _, target in sorted(cross):  # every process must come to the same shards
        costs[target] += 1
        classes[target] = min(classes.get(target, class_id), class_id)
    total, done, part = max(1, sum(costs.values())), 0, {}
    for unit in sorted(costs, key=lambda unit: classes[unit]):  # stable: the order of the questions decides
        part[unit] = parts * (2 * done + costs[unit]) // (2 * total + 1)
        done += costs[unit]
    questions: list[list[list[Question]]] = [[[] for _ in lines] for _ in range(parts)]
    for number, line in enumerate(lines):
        for question in line.questions:
            questions[part[line.unit(question)]][number].append(question)
    pairs: list[list[CrossPair]] = [[] for _ in range(parts)]
    for pair in sorted(cross):
        pairs[part[pair[-1]]].append(pair)
    shards = []
    for of_shard, cross_pairs in zip(questions, pairs, strict=True):
        of_lines = zip(lines, of_shard, strict=True)
        shard_lines = tuple(replace(line, questions=tuple(of_line)) for line, of_line in of_lines)
        shards.append(Shard(shard_lines, tuple(cross_pairs)))
    return shards


class ShardFiles:
    """Results of shards on the disk, so that a killed evaluation goes on where it was."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def load(self, step: Step, index: int, shards: Sequence[Shard]) -> Array | None:
        """The result of a shard that was finished before; None where it must be computed."""
        path = self._path(step, index, shards)
        if path is None or not path.exists():
            return None
        try:
            values: Array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s is damaged (%s): its shard is computed again", path, error)
            return None
        return values if len(values) == shards[index].rows(step) else None

    def save(self, step: Step, index: int, shards: Sequence[Shard], values: Array) -> None:
        """Writes the result of a shard in one step."""
        path = self._path(step, index, shards)
        if path is not None:
            with atomic_path(path) as temporary:
                np.save(temporary, values)

    def _path(self, step: Step, index: int, shards: Sequence[Shard]) -> Path | None:
        return self.folder and self.folder / f"{step}-{index:03d}-of-{len(shards):03d}.npy"


class Worker(Protocol):
    """What does a shard: an ``Evaluator``. Steps have the parameters (shard, what all shards share)."""

    def prepare(self, images: Sequence[str]) -> None:
        """Computes features."""
        ...

    def cross_iou(self, shard: Shard) -> Array:
        """IoUs (len(shard.cross),) float64."""
        ...

    def counts(self, shard: Shard, ious: Mapping[CrossPair, float]) -> Array:
        """Counts (rows, 6) int64 of the shard's questions, line by line."""
        ...


@dataclass(frozen=True)
class Job:
    """A step of an evaluation."""

    worker: Worker  # does the shards of this process
    step: Step  # which
    shards: Sequence[Shard]  # of the evaluation, all of them
    files: ShardFiles  # keep results of shards
    shared: tuple[Any, ...]  # further arguments of the step, the same for all shards
    progress: bool  # show a bar

    def stored(self, indices: Iterable[int]) -> dict[int, Array]:
        """Results that are on the disk already."""
        results = {index: self.files.load(self.step, index, self.shards) for index in indices}
        return {index: values for index, values in results.items() if values is not None}

    def save(self, index: int, values: Array) -> None:
        """Keeps the result of a shard."""
        self.files.save(self.step, index, self.shards, values)

    def do(self, indices: Sequence[int]) -> dict[int, Array]:
        """Results of some shards, computed in this process where they are not on the disk."""
        results = self.stored(indices)
        todo = [index for index in indices if index not in results]
        self.worker.prepare(sorted({id for index in todo for id in self.shards[index].images}))
        for index in tracked(self.progress, _TITLES[self.step], todo):
            results[index] = getattr(self.worker, self.step)(self.shards[index], *self.shared)
            self.save(index, results[index])
        return results


_TITLES: dict[Step, str] = {"cross_iou": "weighing supports", "counts": "evaluating"}


class Executor(ABC):
    """Does a step of all shards; results depend neither on the executor nor on the number of workers.

    Attributes:
        workers: processes that share the work.
        writes: whether this process writes the results: one of them does.
    """

    workers = 1
    writes = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Releases nothing by default."""

    def run(
        self,
        worker: Worker,
        step: Step,
        shards: Sequence[Shard],
        files: ShardFiles,
        *shared: Any,
        progress: bool = False,
    ) -> list[Array]:
        """Results of all shards, in their order; with several processes, in every process."""
        results = self._do(Job(worker, step, shards, files, shared, progress))
        return [results[index] for index in range(len(shards))]

    @abstractmethod
    def _do(self, job: Job) -> dict[int, Array]:
        """Results by the shard's index."""


class SingleProcess(Executor):
    """This process does all shards."""

    def _do(self, job: Job) -> dict[int, Array]:
        return job.do(range(len(job.shards)))


class DistributedRanks(Executor):
    """The processes of a torch.distributed group (of Fabric's DDP, say), each with a block of the shards.

    Every process calls ``run`` with the same shards and gets all results. Features are computed together
    where the processes share a cache folder.
    """

    def __init__(self) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError("there is no process group: launch Fabric with several devices first")
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()
        self.writes = self.rank == 0

    def _do(self, job: Job) -> dict[int, Array]:
        count = len(job.shards)
        indices = [index for index in range(count) if index * self.workers // count == self.rank]
        parts: list[Any] = [None] * self.workers
        dist.all_gather_object(parts, job.do(indices))
        return {index: values for part in parts for index, values in part.items()}


def leads() -> bool:
    """Whether this process is the first of a run's processes, or the only one."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank == "0" for rank in ranks if rank is not None), True)


def launch(fabric: Fabric) -> None:
    """Starts the further processes of a Fabric; each ends with the one that started it.

    They would wait for one that was killed for half an hour, to join it or in a collective.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_LEADER] = str(os.getpid())
    elif leader := os.environ.get(_LEADER):
        Thread(target=_end_with, args=(int(leader),), daemon=True).start()
    fabric.launch()


_LEADER = "FEWSEG_LEADER"  # the process that starts others, which pass the environment on


def _end_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(0.5)
    os._exit(1)


def launch_ranks(processes: int) -> DistributedRanks:
    """Starts this program again in further processes, as Fabric's DDP does, and joins them.

    Each gets its part of the cores: busy processes with more threads than cores are several times slower.
    """
    from lightning_fabric import Fabric

    launch(Fabric(accelerator="auto", devices=processes))
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // processes)))
    return DistributedRanks()


class RayWorkers(Executor):
    """The actors of a Ray cluster, each with an evaluator of its own.

    A worker that dies is replaced, and the shards that it was doing are done again; ``retries`` workers may
    be lost in all. Features are computed together where workers share a cache folder.
    """

    def __init__(
        self, make: Callable[[], Worker], workers: int, *, address: str | None = None, retries: int = 10
    ) -> None:
        if workers < 1:
            raise ValueError(f"the number of Ray workers must be at least 1, got {workers}")
        self.make, self.workers, self.address, self.retries = make, workers, address, retries
        self._ray: Any = None
        self._cluster = ExitStack()
        self._actors: list[Any] = []
        self._starting: dict[Any, int] = {}
        """The first calls of actors that have not answered yet, and their places: they get no shard."""
        self._idle: deque[int] = deque()
        self._home: dict[int, int] = {}
        """The place of the actor that did a shard before and may have kept what it computed for it."""

    def __enter__(self) -> Self:
        """Starts the cluster or joins it."""
        with ExitStack() as cluster:
            self._ray = ray = cluster.enter_context(ray_cluster(self.workers, self.address))
            # self.workers stays: a run that goes on with more or less room must come to the same shards
            room, resources = ray_workers(ray, self.workers)
            self._class = ray.remote(**resources)(_Actor)
            self._actors, self._starting, self._idle, self._home = [None] * room, {}, deque(), {}
            for place in range(room):
                self._start(place)
            self._cluster = cluster.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the cluster, and stops it where it was started here."""
        self._actors, self._starting = [], {}
        self._cluster.close()

    def _do(self, job: Job) -> dict[int, Array]:
        """The job's own worker has nothing to do."""
        results = job.stored(range(len(job.shards)))
        waiting = deque(index for index in range(len(job.shards)) if index not in results)
        shared = [self._ray.put(value) for value in job.shared]
        running: dict[Any, tuple[int, int]] = {}
        with progress_bar(job.progress) as bar:
            task = bar.add_task(_TITLES[job.step], total=len(waiting))
            while waiting or running:
                for place in list(self._idle):
                    index = self._next(waiting, place)
                    if index is not None:
                        self._idle.remove(place)
                        call = self._actors[place].do.remote(job.step, job.shards[index], *shared)
                        running[call] = (index, place)
                done = self._first_done(running)
                shard, place = running.pop(done) if done in running else (None, self._starting.pop(done))
                try:
                    with ray_errors(self._ray):
                        values = self._ray.get(done)
                except _WorkerLostError as error:
                    if shard is not None:
                        waiting.appendleft(shard)
                    self._replace(place, error)
                    continue
                self._idle.append(place)
                if shard is not None:
                    results[shard] = values
                    self._home[shard] = place
                    job.save(shard, values)
                    bar.advance(task)
        return results

    def _first_done(self, running: Iterable[Any]) -> Any:
        """The first call that ends, of shards and of actors that start."""
        calls = [*running, *self._starting]
        done, _ = self._ray.wait(calls, num_returns=1, timeout=None if running else _PATIENCE)
        if not done:
            logger.warning(
                "no Ray worker has started within %d s: the cluster's CPUs or GPUs are in use by others, or "
                "its machines are slow; this goes on as soon as one starts", _PATIENCE,
            )  # fmt: skip
            done, _ = self._ray.wait(calls, num_returns=1, timeout=None)
        return done[0]

    def _next(self, waiting: deque[int], place: int) -> int | None:
        """A shard that was done here before, or else one that was done by nobody who is alive."""
        done_here = [index for index in waiting if self._home.get(index) == place]
        free = [index for index in waiting if index not in self._home]
        for index in (*done_here, *free):
            waiting.remove(index)
            return index
        return None

    def _start(self, place: int) -> None:
        self._actors[place] = actor = self._class.remote(self.make)
        self._starting[actor.started.remote()] = place

    def _replace(self, place: int, error: Exception) -> None:
        self.retries -= 1
        if self.retries < 0:
            raise RuntimeError(
                "too many Ray workers were lost: give fewer workers, each with more memory, or see in Ray's "
                f"logs why they died ({_reason(error.__cause__)})"
            ) from error
        ray_workers(self._ray, 1)  # the machines with GPUs or CPUs may be gone
        reason = type(error.__cause__).__name__
        logger.warning("a Ray worker was lost (%s): a new one does its shards again", reason)
        self._home = {index: home for index, home in self._home.items() if home != place}
        self._start(place)


_PATIENCE = 60  # seconds without a worker, after which that is said


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self.worker = make()

    def started(self) -> None:
        """Returns as soon as the worker is made."""

    def do(self, step: Step, shard: Shard, *shared: Any) -> Array:
        self.worker.prepare(shard.images)
        values: Array = getattr(self.worker, step)(shard, *shared)
        return values


@contextmanager
def ray_cluster(cpus: int, address: str | None = None) -> Iterator[Any]:
    """Ray, joined to a running cluster, or to one of this machine with so many CPUs (0: all it has).

    A cluster that was started or joined here is left at the end; so the block may be entered within another.

    Raises:
        RuntimeError: Ray is not installed, or the cluster has another version of it, of Python or of fewseg.
        OSError: there is no cluster at the address.
    """
    # `uv run fewseg ...` would have every worker started by `uv run`, in an environment of its own
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise RuntimeError(
            "Ray is not installed: install fewseg[ray], or use --processes on one machine"
        ) from error
    if ray.is_initialized():
        _check_versions(ray)
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options = {} if address or not cpus else {"num_cpus": cpus}
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, **options)
    except (OSError, ValueError):
        raise
    except Exception as error:  # versions that differ, in several lines; a start that takes too long
        raise RuntimeError(" ".join(str(error).split())) from error
    try:
        _check_versions(ray)
        yield ray
    finally:
        ray.shutdown()


def ray_workers(ray: Any, wanted: int) -> tuple[int, dict[str, int]]:
    """How many workers have room in a cluster, at most those wanted (0: no limit), and what each reserves.

    A worker has a CPU and, where the cluster has GPUs, a GPU of the same machine.

    Raises:
        RuntimeError: there is room for none.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(machine.get(kind, 0)) for machine in machines] for kind in ("CPU", "GPU"))
    room = sum(map(min, cpus, gpus)) if any(gpus) else sum(cpus)
    needs = "a CPU and a GPU of one machine" if any(gpus) else "a CPU"
    has = f"has {sum(cpus)} CPUs and {sum(gpus)} GPUs, and each worker needs {needs}"
    if not room:
        raise RuntimeError(f"the Ray cluster {has}: start its machines with --num-cpus")
    if wanted > room:
        logger.warning("the Ray cluster %s: %d workers in place of %d", has, room, wanted)
    return min(wanted or room, room), {"num_cpus": 1, "num_gpus": int(any(gpus))}


class _WorkerLostError(RuntimeError):
    """A worker or its machine is gone, and with it what it was doing."""


_LOST = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")


@contextmanager
def ray_errors(ray: Any) -> Iterator[None]:
    """Makes errors of one line of those of Ray, whose text has several lines or a traceback.

    Raises:
        RuntimeError: Ray failed, or a worker was lost.
        Exception: a task failed, with its own error.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
            raise cause from error
        lost = any(kind.__name__ in _LOST for kind in type(error).__mro__)
        raise (_WorkerLostError if lost else RuntimeError)(
            f"Ray ended the run ({_reason(error)}): see its logs; the same command goes on"
        ) from error


def _reason(error: Any) -> str:
    """The line of an error of Ray's that says what went wrong."""
    is_traceback = getattr(error, "actor_init_failed", False) or hasattr(error, "cause")
    found = re.search(r"^[A-Za-z_][\w.]*: .+", str(error), re.MULTILINE) if is_traceback else None
    return found[0] if found else f"{type(error).__name__}: {first_line(error)}"


def _check_versions(ray: Any) -> None:
    """Raises a RuntimeError where a machine of the cluster has a different Python or fewseg."""

    def installed() -> Any:  # sent by its code: a different fewseg need not have it
        import platform
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {"Python": platform.python_version(), "fewseg": version("fewseg")}
        except PackageNotFoundError:
            return {"Python": platform.python_version(), "fewseg": "none"}

    here = installed()
    at = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask = ray.remote(num_cpus=0)(installed)
    asked = [ask.options(scheduling_strategy=at(node["NodeID"], soft=True)).remote() for node in nodes]
    with ray_errors(ray):
        answers = ray.get(asked)
    for node, there in zip(nodes, answers, strict=True):
        differing = [f"{k} {there[k]} (here {here[k]})" for k in here if there[k] != here[k]]
        if differing:
            raise RuntimeError(
                f"the machine {node['NodeManagerAddress']} of the Ray cluster has {' and '.join(differing)}: "
                "install the same version on all machines"
            )
