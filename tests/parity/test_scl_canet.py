"""Imported SCL(CANet) weights give the numbers of the authors' released code, at images' own sizes."""

import copy
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from torch import nn

from fewseg.data.episodes import EpisodeSpec
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import OriginalView
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.engine.plain import encoded_shots
from fewseg.engine.released import RELEASED_CANET_CROSS_GUIDED
from fewseg.methods.canet import Refinement
from fewseg.methods.layers import resize
from fewseg.methods.scl import primary_and_auxiliary
from fewseg.types import EncodedEpisodes, EncodedShots, Guides


class Shots:
    """Support images of sizes of their own, each through the backbone and the first pass."""

    def __init__(self, run, images, masks):
        self.model, self.run = run.model, run
        self.images, self.masks = images, masks

    @cached_property
    def passes(self):
        pairs = zip(self.images, self.masks, strict=True)
        with torch.no_grad():
            return [self.model.first_pass(self.run.features(i), m.to(torch.uint8)) for i, m in pairs]

    @cached_property
    def vectors(self):
        return [self.model.second_vectors(found) for found in self.passes]

    def seconds(self):
        """The second pass of every shot."""
        return [self.model.second_pass(f, v).logits for f, v in zip(self.passes, self.vectors, strict=True)]


def weights_of(fusion, cross_iou):
    return fusion.weights(*cross_iou.shape[:2], cross_iou=cross_iou)


def guide(vectors):
    return Guides(maps={"vectors": vectors})


@pytest.fixture(scope="module")
def one(released):
    return released("scl_canet_1shot")


@pytest.fixture(scope="module")
def five(released):
    return released("scl_canet_5shot")


@pytest.fixture(scope="module")
def pairs(one):
    """Two 1-shot training pairs at one size, and their previous answers."""
    support = EncodedShots(
        features=one.features(one.case.input("support")),
        masks=one.case.input("support_mask").to(torch.uint8),
    )
    return EncodedEpisodes(
        support=support,
        query=one.features(one.case.input("query")),
        query_masks=one.case.input("query_mask"),
    )


def test_support_passes_and_vectors(one, pairs):
    model, masks = one.model, pairs.support.masks[:, 0]
    first = model.first_pass(pairs.support.features, masks)
    one.case.assert_close(first.initial, "z")
    one.case.assert_close(first.cells, "support_mask_feat")
    one.case.assert_close(first.first.logits, "supp_logits")
    vectors = model.encode_shots(pairs.support.features, masks)["vectors"]
    one.case.assert_close(vectors[:, 0], "z_pri")
    one.case.assert_close(vectors[:, 1], "z_aux")
    one.case.assert_close(model.second_pass(first, vectors).logits, "new_supp_logits")


def test_query_logits_under_a_history(one, pairs):
    guides = one.model.encode_shots(pairs.support.features, pairs.support.masks[:, 0])
    maps, history = one.model.encode_query(pairs.query), one.case.input("history_mask")
    one.case.assert_close(one.model.iterate(maps, guides, history), "logits")
    with pytest.raises(AssertionError, match="off by"):
        one.case.assert_close(one.model.iterate(maps, guides), "logits")


def in_training(run, history):
    """The run's model in training without dropout, with a history that is always handed back."""
    model = copy.deepcopy(run.model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    model.history.reset = 0.0
    margin = history[:, 1].logit()
    model.history.remember(run.episodes.pair_ids, torch.stack([torch.zeros_like(margin), margin], dim=1))
    return replace(run, model=model)


def stacked(losses):
    return torch.stack([losses[name] for name in ("query", "support_first", "support_second")])


def test_losses_and_gradient_norms_under_a_history(one):
    """The case's foreground is in half precision, as what is kept: nothing is lost between the two."""
    history = one.case.input("history_mask")
    assert torch.equal(history[:, 1].half().float(), history[:, 1])
    run = in_training(one, history)
    one.case.assert_close(stacked(run.losses), "loss_query_supp_newsupp")
    run.check_gradient_norms()


def test_losses_under_the_other_pairs_history_are_outside_the_released_tolerance(one):
    run = in_training(one, one.case.input("history_mask").flip(0))
    with pytest.raises(AssertionError, match="off by"):
        one.case.assert_close(stacked(run.losses), "loss_query_supp_newsupp")


def test_the_released_answers_are_the_next_history(one):
    history = one.case.input("history_mask")
    run = in_training(one, history)
    assert len(run.losses)
    found = run.model.history.recall(run.episodes.pair_ids, history)
    expected = resize(one.case.output("logits").softmax(dim=1), (history.shape[-2], history.shape[-1]))
    allowed = one.case.atol("logits") + 2**-12  # half of what half precision tells apart below 1
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)


def test_original_sizes_whose_cells_are_soft(one):
    shots = Shots(one, [one.case.input("ori_support")], [one.case.input("ori_support_mask")[:, 0]])
    (first,), (vectors,), (second,) = shots.passes, shots.vectors, shots.seconds()
    one.case.assert_close(first.initial, "ori_z")
    one.case.assert_close(first.cells, "ori_support_mask_feat")
    one.case.assert_close(first.first.logits, "ori_supp_logits")
    one.case.assert_close(vectors[:, 0], "ori_z_pri")
    one.case.assert_close(vectors[:, 1], "ori_z_aux")
    one.case.assert_close(second, "ori_new_supp_logits")
    maps = one.model.encode_query(one.features(one.case.input("ori_query")))
    one.case.assert_close(one.model.iterate(maps, guide(vectors)), "ori_logits")


def test_the_papers_regions_are_outside_the_released_tolerance(one):
    shots = Shots(one, [one.case.input("ori_support")], [one.case.input("ori_support_mask")[:, 0]])
    (first,) = shots.passes
    assert one.model.config.self_guided.threshold == "truncated"
    _, auxiliary = primary_and_auxiliary(first.mid, first.cells, first.first.logits, 0.5)
    with pytest.raises(AssertionError, match="off by"):
        one.case.assert_close(auxiliary, "ori_z_aux")


@pytest.fixture(scope="module")
def shots(five):
    images = [five.case.input(f"support_{k}") for k in range(5)]
    return Shots(five, images, [five.case.input(f"support_mask_{k}")[:, 0] for k in range(5)])


def cross_iou(run, shots, guides):
    """(1, 5, 5), [0, k, i] of shot k's prediction of support image i, each image at its own size."""
    columns = []
    with torch.no_grad():
        for image, mask in zip(shots.images, shots.masks, strict=True):
            target = EncodedShots(features=run.features(image), masks=mask.to(torch.uint8).unsqueeze(0))
            columns.append(run.model.cross_iou(target, guides, run.model.fusion))
    return torch.cat(columns, dim=2)


@pytest.fixture(scope="module")
def reliability(five, shots):
    return cross_iou(five, shots, guide(torch.cat(shots.vectors)))


def test_five_shots_vectors_and_logits(five, shots):
    five.case.assert_close(torch.cat(shots.vectors)[:, 0], "z_pri")
    five.case.assert_close(torch.cat(shots.vectors)[:, 1], "z_aux")
    for k, second in enumerate(shots.seconds()):
        five.case.assert_close(shots.passes[k].first.logits, f"supp_logits_{k}")
        five.case.assert_close(second, f"new_supp_logits_{k}")
    maps = five.model.encode_query(five.features(five.case.input("query")))
    guides, history = guide(torch.cat(shots.vectors)), five.case.input("history_mask")
    each = five.model.iterate(maps, guides, history.expand(5, -1, -1, -1))
    five.case.assert_close(each, "logits_per_shot")
    five.case.assert_close(each.sum(dim=0, keepdim=True), "logits")
    plain = five.model._decode_support(maps.mid.expand(5, -1, -1, -1), guides["vectors"], deep=False)
    five.case.assert_close(plain.logits, "logits_nohistory_per_shot")


def test_cross_guided_weights(five, reliability):
    assert five.model.fusion == RELEASED_CANET_CROSS_GUIDED
    five.case.assert_close(reliability[0].T, "iou_matrix")
    five.case.assert_close(weights_of(five.model.fusion, reliability)[0] * 5, "U")
    mean = replace(RELEASED_CANET_CROSS_GUIDED, divisor=None)
    four = reliability[:, :4, :4]  # the literal 5 and K differ
    torch.testing.assert_close(weights_of(mean, four), weights_of(RELEASED_CANET_CROSS_GUIDED, four) * 5 / 4)


def test_predictions_brought_to_mask_size_with_aligned_corners_are_outside_the_released_tolerance(
    five, shots, reliability, monkeypatch
):
    monkeypatch.setattr(five.model, "cross_iou_align_corners", True)
    aligned = cross_iou(five, shots, guide(torch.cat(shots.vectors)))
    with pytest.raises(AssertionError, match="off by"):
        five.case.assert_close(weights_of(five.model.fusion, aligned)[0] * 5, "U")


def with_iterations(run, monkeypatch, iterations):
    """The imported model with other refinements: 4 in the authors' script, 0 or 1 in the cases."""
    config = run.model.config
    assert config.refinement.image_scales == (0.7, 1.0, 1.3)
    changed = replace(config, refinement=replace(config.refinement, iterations=iterations))
    monkeypatch.setattr(run.model, "config", changed)
    return run.model


@pytest.mark.parametrize("iterations", [0, 1])
def test_forward_feeds_the_answer_of_three_scales_back(one, monkeypatch, iterations):
    model = with_iterations(one, monkeypatch, iterations)
    query, support = (one.pixels(f"ori_{name}") for name in ("query", "support"))
    mask = one.case.input("ori_support_mask").to(torch.uint8)
    with torch.no_grad():
        logits = model(query, support.unsqueeze(1), mask)
    one.case.assert_close(logits.softmax(dim=1), f"ori_eval_softmax_round{iterations}")


def test_the_answer_without_scales_is_outside_the_released_tolerance(one, monkeypatch):
    model = with_iterations(one, monkeypatch, 1)
    monkeypatch.setattr(model, "config", replace(model.config, refinement=Refinement(iterations=1)))
    query, support = (one.pixels(f"ori_{name}") for name in ("query", "support"))
    with torch.no_grad():
        logits = model(query, support.unsqueeze(1), one.case.input("ori_support_mask").to(torch.uint8))
    with pytest.raises(AssertionError, match="off by"):
        one.case.assert_close(logits.softmax(dim=1), "ori_eval_softmax_round1")


class CaseSource:
    """The images of the 5-shot case at their own sizes, as a data set of one class."""

    name, class_names = "case", {1: "thing"}
    ids = ("query", *(f"support_{k}" for k in range(5)))

    def __init__(self, run):
        self.run = run

    def read_image(self, id):
        return self.run.pixels(id)[0]

    def read_labels(self, id):
        return self.run.case.input(id.replace("_", "_mask_") if "_" in id else f"{id}_mask")[0, 0].byte()

    def digest(self):
        return "case"


class OneEpisode:
    """The case as the only episode of a protocol."""

    protocol = Protocol(name="case", episodes=1, seeds=(0,))
    spec = EpisodeSpec(index=0, class_id=1, query="query", supports=CaseSource.ids[1:])

    def episodes(self, seed):
        return [self.spec]


@pytest.fixture
def evaluator(five, tmp_path):
    source = CaseSource(five)
    store = FeatureStore(five.model.network, source, [OriginalView()], folder=tmp_path, dtype=torch.float32)
    return Evaluator(five.model, source, store, progress=False)


def test_evaluate_gives_the_rounds_of_five_weighted_shots_and_their_counts(five, evaluator, monkeypatch):
    inter, union = 0, 0
    assert five.model.config.refinement.iterations == 4
    for iterations in (0, 1):
        with_iterations(five, monkeypatch, iterations)
        ((_, logits),) = evaluator.answers([OneEpisode.spec])
        five.case.assert_close(logits.softmax(dim=0).unsqueeze(0), f"eval_softmax_round{iterations}")
        (counts,) = evaluator.run([Line(episodes=OneEpisode())])
        inter, union = inter + int(counts.fg_inter[0]), union + int(counts.fg_union[0])
    five.case.assert_close(torch.tensor([inter, union]), "eval_inter_union")
    assert torch.equal(logits, evaluator.plain(OneEpisode.spec))


def test_evaluate_weighs_the_shots_by_the_authors_reliability(five, evaluator):
    evaluator.prepare(CaseSource.ids)
    images = evaluator.images
    support = encoded_shots(
        OneEpisode.spec.ways,
        lambda id: images.features([id]),
        lambda id, classes: images.masks([id], classes),
    )
    with torch.no_grad():
        state = five.model.encode_support(support)
    five.case.assert_close(state.weights[0] * 5, "U")
