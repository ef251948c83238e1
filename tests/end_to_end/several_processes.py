"""Work for several processes: ``several_processes.py WHAT FOLDER``, and small methods and sets for it."""

import hashlib
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import FoldData
from fewseg.data.index import build_index
from fewseg.data.protocols import SYNTHETIC
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, TrainView
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import SingleProcess, launch_ranks
from fewseg.engine.features import FeatureStore
from fewseg.engine.train_config import SGD, TrainConfig
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.pfenet import PFENetConfig
from fewseg.metrics.counts import COUNT_NAMES
from fewseg.recipes import run
from fewseg.recipes.recipe import Recipe
from fewseg.types import Guides, QueryMaps

SIZE = 65
SHAPE = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), stem_width=8)
BACKBONE = BackboneConfig(name="resnet18", weights=None, levels=("layer2",), shape=SHAPE)


class Cells(PairScorer):
    """Scores a pair by cosines to the means of the support's two regions: no training."""

    def __init__(self):
        super().__init__(SimpleNamespace(backbone=BACKBONE, fusion=CrossGuided()))

    def encode_shots(self, features, masks):
        maps = features["layer2"]
        cells = [F.interpolate((masks == j).unsqueeze(1).float(), maps.shape[-2:]) for j in (0, 1)]
        vectors = torch.stack([(maps * c).sum((2, 3)) / (c.sum((2, 3)) + 1e-5) for c in cells], dim=1)
        return Guides(maps={"vectors": vectors})

    def encode_query(self, features):
        maps = features["layer2"]
        return QueryMaps(mid=maps, prior=maps.new_zeros(len(maps), 0, 1, 1))

    def score(self, query, guides, prior=None):
        return 20 * F.cosine_similarity(query.mid.unsqueeze(1), guides["vectors"][..., None, None], dim=2)

    def training_losses(self, episodes):
        raise NotImplementedError


def methods():
    matcher = MatcherConfig(backbone=BACKBONE, levels=("layer2",)).build()
    return [(Cells(), CrossGuided(), 3), (Cells(), ScoreAverage(), 1), (matcher, None, 2)]


def data(folder: Path):
    source = SyntheticSource(60, SIZE)
    return source, build_index(source, cache_dir=folder / "index", workers=1, progress=False)


def evaluator(method, source, folder: Path, **options) -> Evaluator:
    store = FeatureStore(
        method.backbone, source, [EvalView(SIZE)], folder=folder / "features", dtype=torch.float32
    )
    return Evaluator(method, source, store, batch=4, progress=False, **options)


def check_same_counts(one, other):
    for name in ("seed", "episode", "class_id", *COUNT_NAMES):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def evaluate(folder: Path) -> None:
    """Two processes evaluate two methods; the first compares with what it gets alone."""
    executor = launch_ranks(2)
    source, index = data(folder)
    protocol = replace(SYNTHETIC, episodes=15, seeds=(0, 1))
    for method, fusion, shots in methods():
        lines = [Line(episodes=EpisodeSampler(index, synthetic_5i(0), protocol, shots), fusion=fusion)]
        (shared,) = evaluator(method, source, folder, executor=executor).run(lines)
        if executor.writes:
            (alone,) = evaluator(method, source, folder / "alone").run(lines)
            assert len(np.unique(alone.fg_inter)) > 5
            check_same_counts(alone, shared)
    print(f"rank {torch.distributed.get_rank()} agrees", flush=True)  # noqa: T201


class Killed(Evaluator):
    """Killed at its third shard of answers."""

    done = 0

    def counts(self, shard, ious):
        Killed.done += 1
        if Killed.done == 3 and (not self.executor.writes or self.executor.workers == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().counts(shard, ious)


def lose(folder: Path, processes: int) -> None:
    """One or two processes evaluate; the last is killed in the middle where a file asks for it."""
    executor = launch_ranks(processes) if processes > 1 else SingleProcess()
    source, index = data(folder)
    sampler = EpisodeSampler(index, synthetic_5i(0), replace(SYNTHETIC, episodes=10, seeds=(0,)), 2)
    lines = [Line(episodes=sampler, fusion=fusion) for fusion in (CrossGuided(), ScoreAverage())]
    lost = evaluator(Cells(), source, folder, executor=executor)
    computed, shards = [], []
    compute = lost.store._compute
    lost.store._compute = lambda rows, **left: (computed.extend(rows), compute(rows, **left))
    if (folder / "kill").exists():
        lost.__class__ = Killed
    counts = lost.counts
    lost.counts = lambda *arguments: shards.append(1) or counts(*arguments)
    found = lost.run(lines, folder / "work")
    if executor.writes:
        alone = evaluator(Cells(), source, folder / "alone").run(lines)
        for one, shared in zip(alone, found, strict=True):
            check_same_counts(one, shared)
        done = f"{len(computed)} features made again, {len(shards)} shards computed"
        print(f"{done}, the counts of one process", flush=True)  # noqa: T201


def leave_early(folder: Path) -> None:
    """The leading process of two is killed before the other joins it."""
    other = folder / "rank1.txt"
    if "LOCAL_RANK" in os.environ:
        other.write_text(str(os.getpid()))
        while os.getppid() == int(os.environ["FEWSEG_LEADER"]):
            time.sleep(0.05)
    else:

        def end() -> None:
            while not other.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=end).start()
    launch_ranks(2)


def leave(folder: Path) -> None:
    """The leading process of two is killed while the other has much to do."""
    executor = launch_ranks(2)
    (folder / f"rank{executor.rank}.txt").write_text(str(os.getpid()))
    torch.distributed.barrier()
    if executor.writes:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def train(folder: Path) -> None:
    """Two processes train a tiny head; each writes a digest of the weights that it ends with."""
    torch.set_num_threads(1)
    source, index = data(folder)
    fold = FoldData(dataset="synthetic", source=source, split=synthetic_5i(0), train=index, test=index)
    backbone = replace(BACKBONE, levels=("layer2", "layer3"))
    prior = PriorMap(level="layer3", masked_input=None)
    recipe = Recipe(
        name="two_processes",
        method=PFENetConfig(backbone=backbone, channels=8, prior=prior, scales=(1.0, 0.5)),
        data=lambda *_: fold,
        train=TrainConfig(
            steps=3, batch=1, view=TrainView(size=65), cached_views=1, min_area=64, optimiser=SGD(lr=0.1)
        ),
        size=65,
        protocol=replace(SYNTHETIC, episodes=2),
    )
    kept = []
    build = run.build_method
    run.build_method = lambda recipe: kept.append(build(recipe)) or kept[-1]
    run.train_recipe(recipe, fold, folder / "run", progress=False, devices=2)
    values = b"".join(p.detach().numpy().tobytes() for p in kept[0].parameters() if p.requires_grad)
    rank = torch.distributed.get_rank()
    (folder / f"rank{rank}.txt").write_text(hashlib.sha256(values).hexdigest())


if __name__ == "__main__":
    work = {"evaluate": evaluate, "leave": leave, "leave_early": leave_early, "lose": lose, "train": train}[
        sys.argv[1]
    ]
    work(Path(sys.argv[2]), *map(int, sys.argv[3:]))
