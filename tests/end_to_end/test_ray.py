"""A local Ray of two workers, one of which is killed at work: the counts are those of one process."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from fewseg.data.episodes import EpisodeSampler
from fewseg.engine.evaluate import Line
from fewseg.engine.executors import RayWorkers

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # as fewseg does, before Ray is first imported
ray = pytest.importorskip("ray")
HERE = str(Path(__file__).parent)


class KilledOnce:
    """An evaluator whose process is killed in the middle of its second shard, the first time."""

    def __init__(self, folder):
        sys.path.insert(0, HERE)
        import several_processes as small

        torch.set_num_threads(1)
        self.mark = folder / "killed"
        source, _ = small.data(folder)
        self.worker, self.done = small.evaluator(small.Cells(), source, folder), 0
        self.prepare, self.counts = self.worker.prepare, self.worker.counts

    def cross_iou(self, shard):
        found = self.worker.cross_iou(shard)
        self.done += 1
        if self.done == 2 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def test_a_killed_worker_changes_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *sys.path]))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they starve beside tests of others
    import several_processes as small

    source, index = small.data(tmp_path)
    sampler = EpisodeSampler(index, small.synthetic_5i(0), small.replace(small.SYNTHETIC, episodes=15), 3)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    workers = RayWorkers(lambda: KilledOnce(tmp_path), 2)
    lines = [Line(episodes=sampler)]
    (shared,) = small.evaluator(small.Cells(), source, tmp_path, executor=workers).run(lines)
    assert (tmp_path / "killed").exists()
    assert "a Ray worker was lost" in caplog.text
    (alone,) = small.evaluator(small.Cells(), source, tmp_path / "alone").run(lines)
    small.check_same_counts(alone, shared)
