"""Evaluates in two processes; the second is killed at its first question where a file says so."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import two_evaluating_processes as small

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.synthetic import synthetic_5i
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.executors import launch_ranks
from fewseg.methods.fusion import CrossGuided
from fewseg.metrics.counts import COUNT_NAMES


class Killed(Evaluator):
    def answer(self, share, task, ious):
        if not self.workforce.writes:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(share, task, ious)


def main(folder: Path) -> None:
    workforce = launch_ranks(2)
    source, index = small.data(folder)
    sampler = EpisodeSampler(index, synthetic_5i(0), replace(small.SYNTHETIC, episodes=10, seeds=(0,)), 2)
    evaluator = small.evaluator(small.Cells(), source, folder, workforce=workforce)
    computed = []
    compute = evaluator.store._compute
    evaluator.store._compute = lambda rows: (computed.extend(rows), compute(rows))
    if (folder / "kill").exists():
        evaluator.__class__ = Killed
    shared = evaluator.run(sampler, CrossGuided())
    if workforce.writes:
        alone = small.evaluator(small.Cells(), source, folder / "alone").run(sampler, CrossGuided())
        for name in ("seed", "episode", "class_id", *COUNT_NAMES):
            assert np.array_equal(getattr(alone, name), getattr(shared, name)), name
        print(f"{len(computed)} features made again, the counts of one process", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
