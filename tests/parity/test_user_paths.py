"""``forward`` and ``evaluate`` give the released logits; training drops what theirs do."""

import copy

import pytest
import torch
from torch import nn

from fewseg.data.episodes import EpisodeSpec
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.metrics.counts import count

CASES = ["pfenet_1shot", "pfenet_5shot", "scl_pfenet_1shot", "scl_pfenet_5shot"]
CASES += ["sdaanet_1shot", "sdaanet_5shot"]


@pytest.fixture(scope="module", params=CASES)
def run(request, released):
    return released(request.param)


def test_forward_gives_the_released_logits_and_labels(run):
    with torch.no_grad():
        logits = run.model(run.pixels("query"), run.pixels("support"), run.case.input("support_mask"))
    run.case.assert_close(logits, "logits")
    assert int((logits.argmax(dim=1) != labels_of(run)).sum()) <= 5


def labels_of(run):
    """The released labels; the case of SCL with five shots has the logits alone."""
    found = run.case.output("logits").argmax(dim=1)
    assert "out_pred" not in run.case.arrays or int((found != run.case.output("pred")).sum()) <= 5
    return found


class CaseSource:
    """The case's square images as a data set of one class."""

    name, class_names = "case", {1: "thing"}

    def __init__(self, run):
        queries, supports = run.pixels("query"), run.pixels("support")
        masks = run.case.input("query_mask"), run.case.input("support_mask")
        self.pairs, self.specs = {}, []
        for b in range(len(queries)):
            shots = tuple(f"{b}-support-{k}" for k in range(supports.shape[1]))
            self.pairs[f"{b}-query"] = (queries[b], masks[0][b])
            self.pairs |= dict(zip(shots, zip(supports[b], masks[1][b], strict=True), strict=True))
            self.specs.append(EpisodeSpec(index=b, class_id=1, query=f"{b}-query", supports=shots))

    @property
    def ids(self):
        return tuple(self.pairs)

    def read_image(self, id):
        return self.pairs[id][0]

    def read_labels(self, id):
        return self.pairs[id][1].byte()

    def digest(self):
        return "case"


class CaseEpisodes:
    """All episodes of the case."""

    def __init__(self, specs):
        self.specs, self.protocol = specs, Protocol(name="case", episodes=len(specs), seeds=(0,))

    def episodes(self, seed):
        return self.specs


def test_evaluate_gives_the_released_logits_and_the_counts_of_their_labels(run, tmp_path):
    source = CaseSource(run)
    view = EvalView(run.case.input("query").shape[-1])
    store = FeatureStore(run.model.network, source, [view], folder=tmp_path, dtype=torch.float32)
    evaluator = Evaluator(run.model, source, store, batch=1, progress=False)
    answers = {question.target: logits for question, logits in evaluator.answers(source.specs)}
    found = torch.stack([answers[spec.query] for spec in source.specs])
    run.case.assert_close(found, "logits")
    for spec, logits in zip(source.specs, found, strict=True):
        assert torch.equal(evaluator.plain(spec), logits)
    (counts,) = evaluator.run([Line(episodes=CaseEpisodes(source.specs))])
    released = count(labels_of(run).numpy(), run.case.input("query_mask").numpy())
    for name in ("fg_inter", "fg_union", "bg_inter", "bg_union", "fg_true"):
        assert abs(getattr(counts, name) - getattr(released, name)).max() <= 5


def dropped(run):
    """Share that is dropped -> how often maps pass such a layer in a training step."""
    passes, model = {}, copy.deepcopy(run.model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):

            def passed(layer, *_):
                assert layer.training
                passes[layer.p] = passes.get(layer.p, 0) + 1

            module.register_forward_hook(passed)
        else:
            assert not isinstance(module, nn.Dropout)
    with torch.no_grad():
        model.losses(run.episodes)
    return passes


def test_training_drops_maps_where_the_released_networks_do(run):
    """Both reducing convolutions 0.5; each deep supervision and each classifier 0.1; SAAM 0.1 a map."""
    shots = run.support.shots
    decoders = 3 if "scl" in run.case.about["case"] else 1  # the query's and both support passes'
    saam = 1 + shots if "sdaanet" in run.case.about["case"] else 0
    assert dropped(run) == {0.5: 2, 0.1: 5 * decoders + saam}
