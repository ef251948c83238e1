"""Evaluates in one or two processes; the last is killed in the middle where a file says so."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import two_evaluating_processes as small

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.synthetic import synthetic_5i
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import SingleProcess, launch_ranks
from fewseg.methods.fusion import CrossGuided, ScoreAverage


class Killed(Evaluator):
    """Killed at its third shard of answers."""

    done = 0

    def counts(self, shard, ious):
        Killed.done += 1
        if Killed.done == 3 and (not self.executor.writes or self.executor.workers == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().counts(shard, ious)


def main(folder: Path, processes: int) -> None:
    executor = launch_ranks(processes) if processes > 1 else SingleProcess()
    source, index = small.data(folder)
    sampler = EpisodeSampler(index, synthetic_5i(0), replace(small.SYNTHETIC, episodes=10, seeds=(0,)), 2)
    lines = [Line(episodes=sampler, fusion=fusion) for fusion in (CrossGuided(), ScoreAverage())]
    evaluator = small.evaluator(small.Cells(), source, folder, executor=executor)
    computed, shards = [], []
    compute = evaluator.store._compute
    evaluator.store._compute = lambda rows: (computed.extend(rows), compute(rows))
    if (folder / "kill").exists():
        evaluator.__class__ = Killed
    counts = evaluator.counts
    evaluator.counts = lambda *arguments: shards.append(1) or counts(*arguments)
    found = evaluator.run(lines, folder / "work")
    if executor.writes:
        alone = small.evaluator(small.Cells(), source, folder / "alone").run(lines)
        for one, shared in zip(alone, found, strict=True):
            small.check_same_counts(one, shared)
        done = f"{len(computed)} features made again, {len(shards)} shards computed"
        print(f"{done}, the counts of one process", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
