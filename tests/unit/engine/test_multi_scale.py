"""Evaluation at several sizes: the probabilities are added, whichever way the method is evaluated."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.engine.evaluate import Evaluator, MultiScaleEvaluator
from fewseg.engine.features import FeatureStore
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.matcher import MatcherConfig
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
def scales(method, data, tmp_path):
    """One evaluator a size."""

    def at(size):
        store = FeatureStore(
            method.backbone, data.source, [EvalView(size)], folder=tmp_path, dtype=torch.float32
        )
        return Evaluator(method, data.source, store, progress=False)

    return [at(size) for size in SIZES]


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


def test_the_answer_is_the_sum_of_the_sizes_probabilities(method, data, scales):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 1)
    evaluator = MultiScaleEvaluator(scales)
    counts = evaluator.run(sampler)
    for row, spec in enumerate(sampler.episodes(0)):
        expected = sum(probabilities(method, data.source, spec, size) for size in SIZES)
        torch.testing.assert_close(evaluator.plain(spec), expected, atol=1e-5, rtol=1e-4)
        labels = data.source.read_labels(spec.query)
        margin = (expected[1] - expected[0])[None, None, : 49 * labels.shape[0] // max(labels.shape)]
        shown = F.interpolate(margin, size=tuple(labels.shape), mode="bilinear", align_corners=False)[0, 0]
        truth = binary_mask(labels, spec.class_id)
        near = int((shown.abs() < 1e-4).sum())
        assert abs(counts.fg_inter[row] - int(((shown > 0) & (truth == 1)).sum())) <= near


def test_one_size_is_the_plain_evaluation(method, data, scales):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 2)
    alone, wrapped = scales[0].run(sampler), MultiScaleEvaluator(scales[:1]).run(sampler)
    assert (alone.fg_inter == wrapped.fg_inter).all()
    assert (alone.fg_union == wrapped.fg_union).all()


@pytest.mark.parametrize("method", ["matcher"], indirect=True)
def test_several_sizes_answer_otherwise_than_each_of_them(method, data, scales):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 1)
    both = MultiScaleEvaluator(scales).run(sampler)
    assert all((both.fg_union != scale.run(sampler).fg_union).any() for scale in scales)


def test_what_it_cannot_do_is_refused(build, data, scales):
    with pytest.raises(ValueError, match="each of another size"):
        MultiScaleEvaluator([scales[0], scales[0]])
    with pytest.raises(ValueError, match="each of another size"):
        MultiScaleEvaluator([])


@pytest.mark.parametrize("method", ["pfenet"], indirect=True)
def test_shots_are_averaged_and_not_weighed_across_sizes(data, scales):
    sampler = EpisodeSampler(data.test, data.split, replace(PROTOCOL, episodes=2), 2)
    evaluator = MultiScaleEvaluator(scales)
    assert len(evaluator.run(sampler, ScoreAverage())) == 2
    with pytest.raises(ValueError, match="--fusion mean or average"):
        evaluator.run(sampler, CrossGuided())
