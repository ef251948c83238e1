"""The evaluator shares work between episodes; its integers are those of the plain way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import ClassSplit, FoldData
from fewseg.data.index import build_index
from fewseg.data.protocols import Protocol
from fewseg.data.synthetic import SYNTHETIC_CLASSES, SyntheticSource
from fewseg.data.transforms import EvalView
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import Extractor, FeatureStore
from fewseg.methods.asgnet import ASGNet
from fewseg.methods.fusion import CrossGuided
from fewseg.methods.pair_scorer import PairScorer
from fewseg.types import EncodedShots

LABEL_SIDE, SIDE = 81, 65
PROTOCOL = Protocol(name="tiny", episodes=6, seeds=(0, 3), query_order="class_first", min_area=40)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = SyntheticSource(24, LABEL_SIDE, seed=1, classes=(1, 2, 3), split="val")
    index = build_index(source, cache_dir=tmp_path_factory.mktemp("index"), workers=1, progress=False)
    split = ClassSplit(name="tiny", fold=0, base=(3,), novel=(1, 2), class_names=SYNTHETIC_CLASSES)
    return FoldData(dataset="tiny", source=source, split=split, train=index, test=index)


@pytest.fixture
def evaluator(model, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "features"  # one for all cases: the backbones are few
    network = model.backbone if model.backbone.config.fixed else Extractor(model)
    store = FeatureStore(network, data.source, [EvalView(SIDE)], folder=folder, dtype=torch.float32)
    return Evaluator(model, data.source, store, progress=False)


def mask_of(labels, class_id):
    mask = torch.zeros_like(labels)
    mask[labels == class_id] = 1
    mask[labels == 255] = 255
    return mask


def plain_counts(model, data, spec):
    """One episode from its files: nothing shared, nothing cached, counted a pixel set at a time."""
    view = EvalView(SIDE)
    ids = [*spec.supports, spec.query]
    pairs = [view(data.source.read_image(i), data.source.read_labels(i)) for i in ids]
    images = torch.stack([image for image, _ in pairs])
    masks = torch.stack([mask_of(labels, spec.class_id) for _, labels in pairs[:-1]])
    with torch.no_grad():
        support = EncodedShots(features=model.extract(images[:-1]), masks=masks.unsqueeze(0))
        logits = model.segment(model.extract(images[-1:]), model.encode_support(support))
    margin = logits[:, 1:] - logits[:, :1]  # what labels hang on: two large logits would hide its last digits
    full = F.interpolate(margin, size=(LABEL_SIDE, LABEL_SIDE), mode="bilinear", align_corners=False)
    predicted = full[0, 0] > 0
    truth = mask_of(data.source.read_labels(spec.query), spec.class_id)
    counted, true = truth != 255, truth == 1
    undecided = int((full.abs() < 1e-4 * logits.abs().max().clamp(max=1)).sum())
    return undecided, {
        "fg_inter": int((predicted & true & counted).sum()),
        "fg_union": int(((predicted | true) & counted).sum()),
        "bg_inter": int((~predicted & ~true & counted).sum()),
        "bg_union": int(((~predicted | ~true) & counted).sum()),
    }


@pytest.mark.one_fusion  # five shots take every fusion
def test_shared_work_gives_the_counts_of_the_plain_way_with_one_shot(model, data, evaluator):
    check_shared_work(model, data, evaluator, 1)


def test_shared_work_gives_the_counts_of_the_plain_way_with_five_shots(model, data, evaluator):
    check_shared_work(model, data, evaluator, 5)


def check_shared_work(model, data, evaluator, shots):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, shots)
    (found,) = evaluator.run([Line(episodes=sampler)])
    specs = [spec for seed in PROTOCOL.seeds for spec in sampler.episodes(seed)]
    assert len(found) == len(specs) == 12
    for row, spec in enumerate(specs):
        assert (found.class_id[row], found.query[row]) == (spec.class_id, spec.query)
        assert tuple(found.supports[row]) == spec.supports
        undecided, plain = plain_counts(model, data, spec)
        assert undecided < 0.03 * LABEL_SIDE**2
        for name, value in plain.items():  # rounding decides where two prototypes are equally near
            assert abs(getattr(found, name)[row] - value) <= undecided, (row, name)
    if hasattr(model, "trunk"):
        assert len(np.unique(found.fg_inter)) > 3  # the answers differ: the comparison means something


class Relabelled:
    """A source whose labels of some images are others."""

    def __init__(self, source, ids):
        self.source, self.changed = source, ids

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read_labels(self, id):
        labels = self.source.read_labels(id)
        return labels.flip(0).flip(1) if id in self.changed else labels

    def digest(self):
        return "relabelled " + self.source.digest()


def test_the_querys_labels_are_out_of_reach_of_the_answer(model, data, evaluator, tmp_path):
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 2)
    spec = next(iter(sampler.episodes(0)))
    source = Relabelled(data.source, {spec.query})
    store = FeatureStore(
        evaluator.store.backbone, source, [EvalView(SIDE)], folder=tmp_path, dtype=torch.float32
    )
    other = Evaluator(model, source, store, progress=False)
    for one in (evaluator, other):
        one.store.ensure(spec.images, [0], progress=False)
    assert torch.equal(evaluator.plain(spec), other.plain(spec))
    answers = [next(one.answers([spec]))[1] for one in (evaluator, other)]
    assert torch.equal(*answers)


@pytest.mark.one_fusion
def test_all_fusions_in_one_pass_have_the_counts_of_each_alone(model, data, evaluator):
    own = model.fusion
    sampler = EpisodeSampler(data.test, data.split, PROTOCOL, 3)
    fusions = model.fusions[::-1]
    if isinstance(model, PairScorer):
        fusions = (*fusions, CrossGuided(iou="mean"))
    lines = [Line(episodes=sampler, fusion=fusion, seeds=[0]) for fusion in fusions]
    for line, counts in zip(lines, evaluator.run(lines), strict=True):
        (alone,) = Evaluator(model, data.source, evaluator.store, batch=1, progress=False).run([line])
        # other chunks of pairs round otherwise: a pixel at most, or a cell that takes another prototype
        most = 4 if isinstance(model, ASGNet) else 1
        for name in ("fg_inter", "fg_union"):
            np.testing.assert_allclose(getattr(counts, name), getattr(alone, name), rtol=0, atol=most)
    assert model.fusion == own
