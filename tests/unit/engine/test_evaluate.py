"""Counts at the labels' own size by plain hand; shared work is done once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import ClassSplit
from fewseg.data.index import build_index
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.feature_store import FeatureStore
from fewseg.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.matcher import MatcherConfig

SIDE = 33
SIZES = [(40, 66), (66, 40), (50, 50), (33, 33), (20, 31), (45, 90)]


class Rectangles:
    """Light rectangles of class 1 and dark ones of class 2 on grey noise, at all sorts of sizes."""

    name = "rectangles"
    class_names = {1: "light", 2: "dark"}  # noqa: RUF012 - a constant of the test
    ids = tuple(f"r{i}" for i in range(12))

    def _pair(self, id):
        i = int(id[1:])
        height, width = SIZES[i % len(SIZES)]
        generator = torch.Generator().manual_seed(i)
        image = torch.randint(90, 160, (3, height, width), generator=generator)
        labels = torch.zeros(height, width, dtype=torch.uint8)
        for class_id, shift in ((1, 90), (2, -80)):
            top = int(torch.randint(0, height // 2, (1,), generator=generator))
            left = (class_id - 1) * width // 2
            spot = (slice(top, top + height // 2), slice(left, left + width // 3))
            image[(slice(None), *spot)] += shift
            labels[spot] = class_id
        labels[-2:] = 255
        return image.clamp(0, 255).to(torch.uint8), labels

    def read_image(self, id):
        return self._pair(id)[0]

    def read_labels(self, id):
        return self._pair(id)[1]

    def digest(self):
        return "rectangles-1"


PROTOCOL = Protocol(name="p", episodes=8, seeds=(0, 1), query_order="class_first", min_area=1)


@pytest.fixture(scope="module")
def source():
    return Rectangles()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def index(source, folder):
    return build_index(source, cache_dir=folder, workers=1, progress=False)


@pytest.fixture
def matcher(config):
    """Compares cells of the stem: near enough to colours to tell light from dark without training."""
    backbone = replace(config.backbone, levels=("stem",))
    return MatcherConfig(backbone=backbone, levels=("stem",)).build().eval()


@pytest.fixture
def evaluator(matcher, source, folder):
    store = FeatureStore(matcher.backbone, source, [EvalView(SIDE)], folder=folder, dtype=torch.float32)
    return Evaluator(matcher, source, store, progress=False)


@pytest.fixture
def sampler(index):
    """(shots, protocol) -> episodes of both classes."""
    split = ClassSplit(name="s", fold=0, base=(), novel=(1, 2), class_names=Rectangles.class_names)
    return lambda shots, protocol=PROTOCOL: EpisodeSampler(index, split, protocol, shots)


def plain_counts(said, labels, class_id):
    """Pixel by pixel."""
    counts = dict.fromkeys(("fg_inter", "fg_union", "bg_inter", "bg_union", "fg_pred", "fg_true"), 0)
    for a, label in zip(said.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if label == 255:
            continue
        b = label == class_id
        counts["fg_inter"] += a and b
        counts["fg_union"] += a or b
        counts["bg_inter"] += not a and not b
        counts["bg_union"] += not a or not b
        counts["fg_pred"] += a
        counts["fg_true"] += b
    return counts


def plain_labels(logits, size):
    """The letterboxed content of logits (2, SIDE, SIDE) at the label's size, thresholded."""
    longer = max(size)
    h, w = (int(side * SIDE / longer + 0.5) for side in size)
    difference = (logits[1] - logits[0])[None, None, :h, :w]
    return F.interpolate(difference, size=size, mode="bilinear", align_corners=False)[0, 0] > 0


def test_counts_are_at_the_labels_own_size_whatever_its_shape(evaluator, sampler, source):
    chosen = sampler(1)
    found = evaluator.run(chosen)
    specs = [spec for seed in PROTOCOL.seeds for spec in chosen.episodes(seed)]
    shapes = set()
    for row, spec in enumerate(specs):
        labels = source.read_labels(spec.query)
        shapes.add(tuple(labels.shape))
        said = plain_labels(evaluator.plain(spec), tuple(labels.shape))
        for name, value in plain_counts(said, labels, spec.class_id).items():
            assert getattr(found, name)[row] == value, (row, name)
    assert len(shapes) > 3
    assert float((found.fg_inter / found.fg_union).mean()) > 0.2  # light is told from dark
    assert found.seed.tolist() == [0] * 8 + [1] * 8
    assert found.episode.tolist() == [*range(8), *range(8)]


def test_counts_at_the_networks_size_leave_the_padding_out(evaluator, sampler, source):
    protocol = Protocol(name="p", episodes=6, seeds=(0,), min_area=1, label_size="network")
    chosen = sampler(1, protocol)
    found = evaluator.run(chosen)
    for row, spec in enumerate(chosen.episodes(0)):
        _, labels = EvalView(SIDE)(source.read_image(spec.query), source.read_labels(spec.query))
        said = evaluator.plain(spec).argmax(dim=0) == 1
        for name, value in plain_counts(said, labels, spec.class_id).items():
            assert getattr(found, name)[row] == value, (row, name)


@pytest.mark.parametrize(
    "fusion", [MeanVector(), ScoreAverage(), CrossGuided(iou="mean")], ids=lambda f: f.kind
)
def test_every_fusion_gives_the_plain_labels(evaluator, sampler, source, fusion):
    chosen = sampler(3)
    found = evaluator.run(chosen, fusion, seeds=[0])
    for row, spec in enumerate(chosen.episodes(0)):
        labels = source.read_labels(spec.query)
        said = plain_labels(evaluator.plain(spec, fusion), tuple(labels.shape))
        for name, value in plain_counts(said, labels, spec.class_id).items():
            assert getattr(found, name)[row] == value, (row, name)


def test_a_pair_is_scored_once_for_all_runs_and_fusions(evaluator, sampler, monkeypatch):
    scored, score = [], evaluator.method.score

    def counting(query, guides):
        scored.append(len(guides))
        return score(query, guides)

    monkeypatch.setattr(evaluator.method, "score", counting)
    chosen = sampler(3)
    evaluator.run(chosen, CrossGuided())
    specs = [spec for seed in PROTOCOL.seeds for spec in chosen.episodes(seed)]
    pairs = {(s.class_id, k, t) for s in specs for k in s.supports for t in (s.query, *s.supports)}
    assert sum(scored) == len(pairs)
    evaluator.run(chosen, ScoreAverage())
    evaluator.run(chosen, CrossGuided(iou="mean"))
    evaluator.run(sampler(1), ScoreAverage())
    assert sum(scored) == len(pairs)  # the first of three supports is the one of one


def test_the_one_that_is_asked_says_which_seeds(evaluator, sampler):
    assert set(evaluator.run(sampler(1), seeds=[7]).seed.tolist()) == {7}


def test_half_precision_moves_few_pixels(matcher, source, folder, sampler):
    results = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        store = FeatureStore(matcher.backbone, source, [EvalView(SIDE)], folder=folder, dtype=dtype)
        results.append(Evaluator(matcher, source, store, precision=precision, progress=False).run(sampler(1)))
    assert np.array_equal(results[0].fg_true, results[1].fg_true)
    moved = np.abs(results[0].fg_pred - results[1].fg_pred).sum()
    assert moved < 0.05 * (results[0].fg_true + results[0].bg_union).sum()


def test_the_method_is_put_in_eval_mode(matcher, evaluator):
    matcher.train()
    Evaluator(matcher, evaluator.source, evaluator.store, progress=False)
    assert not matcher.training
