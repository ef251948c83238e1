"""Who does the shares of an evaluation: this process, or several that each do one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric

from fewseg.data.protocols import LabelSize
from fewseg.engine.shares import Pair, Question, Share
from fewseg.fusion import Fusion
from fewseg.metrics.counts import Counts

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
