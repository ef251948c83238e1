"""Evaluation at several input sizes: the probabilities are added, whichever way the method is evaluated."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.types import EncodedShots

SIZES = (49, 33)
PROTOCOL = Protocol(name="p", episodes=5, seeds=(0,), query_order="class_first", min_area=1)


@pytest.fixture(params=["pfenet", "matcher"])
def method(request, build, config):
    """One that scores pairs, and one that does not."""
    if request.param == "pfenet":
        return build().eval()
    return MatcherConfig(backbone=config.backbone, levels=("layer3",)).build().eval()


@pytest.fixture
def evaluator(method, data, tmp_path):
    """With a store of each size."""
    stores = [
        FeatureStore(method.backbone, data.source, [EvalView(size)], folder=tmp_path, dtype=torch.float32)
        for size in SIZES
    ]
    return Evaluator(method, data.source, stores, progress=False)


def probabilities(method, source, spec, size):
    """One episode at one size, from its files: (2, 49, 49)."""
    view, ids = EvalView(size), [*spec.supports, spec.query]
    read = [view(source.read_image(id), source.read_labels(id)) for id in ids]
    images, labels = (torch.stack(parts) for parts in zip(*read, strict=True))
    masks = binary_mask(labels[:-1], spec.class_id).unsqueeze(0)
    with torch.no_grad():
        support = EncodedShots(features=method.extract(images[:-1]), masks=masks)
        logits = method.segment(method.extract(images[-1:]), method.encode_support(support))
    return F.interpolate(logits.softmax(dim=1), size=(49, 49), mode="bilinear", align_corners=True)[0]


def test_the_answer_is_the_sum_of_the_sizes_probabilities(method, data, evaluator):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 1)
    (counts,) = evaluator.run([Line(episodes=sampler, sizes=SIZES)])
    for row, spec in enumerate(sampler.episodes(0)):
        expected = sum(probabilities(method, data.source, spec, size) for size in SIZES)
        torch.testing.assert_close(evaluator.plain(spec, sizes=SIZES), expected, atol=1e-5, rtol=1e-4)
        labels = data.source.read_labels(spec.query)
        margin = (expected[1] - expected[0])[None, None, : 49 * labels.shape[0] // max(labels.shape)]
        shown = F.interpolate(margin, size=tuple(labels.shape), mode="bilinear", align_corners=False)[0, 0]
        truth = binary_mask(labels, spec.class_id)
        near = int((shown.abs() < 1e-4).sum())
        assert abs(counts.fg_inter[row] - int(((shown > 0) & (truth == 1)).sum())) <= near


def test_lines_of_one_and_of_several_sizes_in_one_pass_have_their_own_counts(method, data, evaluator):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 2)
    lines = [Line(episodes=sampler, sizes=sizes) for sizes in ((), SIZES[1:], SIZES)]
    first, second, both = evaluator.run(lines)
    for size, found in zip(SIZES, (first, second), strict=True):
        alone = Evaluator(method, data.source, evaluator.stores[size], progress=False)
        assert (alone.run(lines[:1])[0].fg_union == found.fg_union).all()
    if not isinstance(method, PairScorer):  # the random head of the other answers one class
        assert all((one.fg_union != first.fg_union).any() for one in (second, both))


@pytest.mark.parametrize("method", ["pfenet"], indirect=True)
def test_what_it_cannot_do_is_refused(method, data, evaluator):
    store = evaluator.store
    with pytest.raises(ValueError, match="stores must have different sizes"):
        Evaluator(method, data.source, [store, store])
    with pytest.raises(ValueError, match="stores must have different sizes"):
        Evaluator(method, data.source, [])
    sampler = EpisodeSampler(data.test, data.split, replace(PROTOCOL, episodes=2), 2)
    with pytest.raises(ValueError, match=r"sizes must be different ones of \[33, 49\]"):
        evaluator.run([Line(episodes=sampler, sizes=(33, 57))])
    assert len(evaluator.run([Line(episodes=sampler, fusion=ScoreAverage(), sizes=SIZES)])[0]) == 2
    with pytest.raises(ValueError, match="--fusion mean or average"):
        evaluator.run([Line(episodes=sampler, fusion=CrossGuided(), sizes=SIZES)])
