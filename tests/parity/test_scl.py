"""Imported SCL(PFENet) weights give the numbers of the authors' released code."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewseg.engine.released import RELEASED_CROSS_GUIDED
from fewseg.methods.scl import SelfGuided
from fewseg.metrics.counts import count
from fewseg.ops.resize import resize


@pytest.fixture(scope="module")
def one(released):
    return released("scl_pfenet_1shot")


@pytest.fixture(scope="module")
def five(released):
    return released("scl_pfenet_5shot")


@pytest.fixture(scope="module")
def guides(one):
    return one.model.encode_shots(one.support.features, one.support.masks.flatten(0, 1))


@pytest.fixture(scope="module")
def five_state(five):
    with torch.no_grad():
        return five.model.encode_support(five.support)


def test_first_support_pass(one):
    first = one.model.first_pass(one.support.features, one.support.masks.flatten(0, 1), deep=True)
    one.case.assert_close(first.mid, "support_feat")
    one.case.assert_close(first.cells, "support_mask_feat")
    one.case.assert_close(first.initial, "v_s")
    one.case.assert_close(first.first.logits, "supp_logits_feat")
    predicted = first.first.logits.argmax(dim=1, keepdim=True)
    assert torch.equal(predicted, one.case.output("supp_pred_mask").long())
    for scale, logits in enumerate(first.first.inner):
        one.case.assert_close(logits, f"supp_inner_logits_{scale}")


def test_primary_and_auxiliary_vectors(one, guides):
    one.case.assert_close(guides["vectors"][:, 0], "v_pri")
    one.case.assert_close(guides["vectors"][:, 1], "v_aux")


def test_second_support_pass_takes_the_first_ones_levels(one, guides):
    first = one.model.first_pass(one.support.features, one.support.masks.flatten(0, 1))
    one.case.assert_close(one.model.second_pass(first, guides["vectors"]).logits, "new_supp_logits_feat")


def test_query_path(one, guides):
    maps = one.model.encode_query(one.query)
    one.case.assert_close(maps.mid, "query_feat")
    one.case.assert_close(one.model.query.prior_map(maps, guides), "prior_mask")
    one.case.assert_close(one.model.score(maps, guides), "query_logits_feat")
    out = one.model.trunk(one.model.query(maps, guides), maps.size, deep=True)
    for scale, logits in enumerate(out.inner):
        one.case.assert_close(logits, f"inner_logits_{scale}")


def test_losses_and_gradient_norms(one):
    terms = ("query", "support_first", "support_second")
    one.case.assert_close(torch.stack([one.losses[name] for name in terms]), "ce_main_query_supp_newsupp")
    for ours, theirs in zip(terms, ("query", "supp", "newsupp"), strict=True):
        expected = one.case.output(f"ce_inner_{theirs}").mean()
        atol = one.case.atol(f"ce_inner_{theirs}")
        torch.testing.assert_close(one.losses[f"{ours}_deep"].detach(), expected, rtol=0, atol=atol)
    one.check_losses()
    one.check_gradient_norms()


def test_losses_with_batch_norm_left_in_training(one, batch_norm_training):
    batch_norm_training(one).check_losses("_bn_train")


def test_five_shots_vectors_prior_maps_and_scores(five, five_state):
    model, guides = five.model, five_state.guides
    first = model.first_pass(five.support.features, five.support.masks.flatten(0, 1))
    five.case.assert_close(first.initial, "v_s")
    five.case.assert_close(first.first.logits, "supp_logits_feat")
    five.case.assert_close(guides["vectors"][:, 0], "v_pri")
    five.case.assert_close(guides["vectors"][:, 1], "v_aux")
    maps = model.encode_query(five.query).select(torch.zeros(5, dtype=torch.long))
    five.case.assert_close(model.query.prior_map(maps, guides), "prior_mask_per_shot")
    five.case.assert_close(model.score(maps, guides), "query_logits_feat_per_shot")


@pytest.fixture(scope="module")
def cross_logits(five, five_state):
    with torch.no_grad():
        return five.model.cross_logits(five.support, five_state.guides, RELEASED_CROSS_GUIDED.path)


def test_every_shot_segments_every_support_image_as_in_the_released_cross_guided_module(five, cross_logits):
    five.case.assert_close(cross_logits.unflatten(0, (5, 5)), "cgm_supp_logits_feat")
    predicted = resize(cross_logits, (97, 97)).argmax(dim=1)
    counts = count(predicted, five.support.masks.flatten(0, 1).repeat(5, 1, 1))
    inter, union = (counts.bg_inter, counts.fg_inter), (counts.bg_union, counts.fg_union)
    for ours, theirs in ((inter, "iou_intersection"), (union, "iou_union")):
        five.case.assert_close(torch.from_numpy(np.stack(ours, -1)).unflatten(0, (5, 5)), theirs)


def test_cross_guided_weights(five, five_state):
    five.case.assert_close(five_state.weights[0] * 5, "U")


def test_the_foregrounds_iou_is_outside_the_released_tolerance_and_is_that_of_the_counts(five, cross_logits):
    fusion = replace(RELEASED_CROSS_GUIDED, iou="foreground")
    masks = five.support.masks.flatten(0, 1).repeat(5, 1, 1)
    iou = five.model.predicted_iou(cross_logits, masks, fusion).view(1, 5, 5)
    ratios = five.case.output("iou_intersection") / five.case.output("iou_union")
    torch.testing.assert_close(iou[0], ratios[..., 1], rtol=0, atol=1e-3)
    with pytest.raises(AssertionError, match="off by"):
        five.case.assert_close(fusion.weights(1, 5, cross_iou=iou)[0] * 5, "U")


def test_segmenting_the_supports_by_the_query_path_is_outside_the_released_tolerance(five, five_state):
    with torch.no_grad():
        logits = five.model.cross_logits(five.support, five_state.guides, "query")
    with pytest.raises(AssertionError, match="off by"):
        five.case.assert_close(logits.unflatten(0, (5, 5)), "cgm_supp_logits_feat")


def test_the_papers_second_pass_is_outside_the_released_tolerance(one, guides):
    first = one.model.first_pass(one.support.features, one.support.masks.flatten(0, 1))
    own = one.model._decode_support(first.mid, guides["vectors"], deep=False)
    assert one.model.config.self_guided != SelfGuided()
    with pytest.raises(AssertionError, match="off by"):
        one.case.assert_close(own.logits, "new_supp_logits_feat")
