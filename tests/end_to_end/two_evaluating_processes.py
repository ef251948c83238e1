"""Evaluates two methods in two processes; the first compares with what it gets alone."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.index import build_index
from fewseg.data.protocols import SYNTHETIC
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import launch_ranks
from fewseg.engine.features import FeatureStore
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.metrics.counts import COUNT_NAMES
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


def main(folder: Path) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
