"""``forward`` and ``evaluate`` give the released logits; training drops what theirs do."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from case_images import CaseEpisodes, CaseSource, evaluator_of
from fewseg.engine.evaluate import Line
from fewseg.metrics.counts import count

CASES = ["pfenet_1shot", "pfenet_5shot", "scl_pfenet_1shot", "scl_pfenet_5shot"]
CASES += ["sdaanet_1shot", "sdaanet_5shot"]
_CORNER = 97  # pixels


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


def test_evaluate_gives_the_released_logits_and_the_counts_of_their_labels(run, tmp_path):
    masks = run.case.input("query_mask"), run.case.input("support_mask")
    source = CaseSource(run.pixels("query"), masks[0], run.pixels("support"), masks[1])
    evaluator = evaluator_of(run.model, source, tmp_path)
    answers = {question.target: logits for question, logits in evaluator.answers(source.specs)}
    found = torch.stack([answers[spec.query] for spec in source.specs])
    run.case.assert_close(found, "logits")
    assert torch.equal(evaluator.plain(source.specs[0]), found[0])
    (counts,) = evaluator.run([Line(episodes=CaseEpisodes(source.specs))])
    released = count(labels_of(run).numpy(), run.case.input("query_mask").numpy())
    for name in ("fg_inter", "fg_union", "bg_inter", "bg_union", "fg_true"):
        assert abs(getattr(counts, name) - getattr(released, name)).max() <= 5


def dropped(run):
    """(Part of the model, share that is dropped) -> how often maps pass such a layer in a training step.

    Of images that are cut to a corner, since it is the same at any size.
    """
    passes, model = Counter(), copy.deepcopy(run.model).train()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout2d):

            def passed(layer, *_, name=name):
                assert layer.training
                passes[name.rpartition(".")[0], layer.p] += 1

            module.register_forward_hook(passed)
        else:
            assert not isinstance(module, nn.Dropout)
    corners = {
        name: value[..., :_CORNER, :_CORNER]
        for name, value in vars(run.episodes).items()
        if isinstance(value, torch.Tensor) and value.ndim > 1
    }
    with torch.no_grad():
        model.losses(replace(run.episodes, **corners))
    return passes


def test_training_drops_maps_where_the_released_networks_do(run):
    """Both reducing convolutions 0.5; each deep supervision and each classifier 0.1; SAAM 0.1 a map."""
    shots = run.support.shots
    decoders = 3 if "scl" in run.case.about["case"] else 1  # the query's and both support passes'
    saam = 1 + shots if "sdaanet" in run.case.about["case"] else 0
    shares = Counter()
    for (_, share), passes in dropped(run).items():
        shares[share] += passes
    assert shares == {0.5: 2, 0.1: 5 * decoders + saam}


def test_training_of_canet_with_scl_drops_maps_where_the_released_network_does(released):
    """0.5 on the mid-level maps of both images; on the comparison, ASPP and classifier of three decodings."""
    assert dropped(released("scl_canet_1shot")) == {
        ("mid", 0.5): 2,
        ("comparison", 0.5): 3,
        ("trunk.aspp", 0.5): 3 * 5,  # branches
        ("trunk.classifier", 0.5): 3,
    }
