"""Imported PFENet weights give the numbers of the authors' released code, with one shot and with five."""

import pytest
import torch

CASES = ("pfenet_1shot", "pfenet_5shot")


@pytest.fixture(scope="module", params=CASES)
def run(request, released):
    return released(request.param)


@pytest.fixture(scope="module")
def state(run):
    with torch.no_grad():
        return run.model.encode_support(run.support)


def test_support_vectors_of_each_shot_and_their_mean(run, state):
    guides = run.model.encode_shots(run.support.features, run.support.masks.flatten(0, 1))
    shots = run.support.shots
    run.case.assert_close(guides["vectors"].squeeze(1).unflatten(0, (-1, shots)), "prototype_per_shot")
    run.case.assert_close(state.guides["vectors"].squeeze(1), "prototype")


def test_query_feature_prior_map_and_inner_logits(run, state):
    maps = run.model.encode_query(run.query)
    run.case.assert_close(maps.mid, "query_feat")
    run.case.assert_close(run.model.query.prior_map(maps, state.guides), "prior_mask")
    out = run.model.trunk(run.model.query(maps, state.guides), maps.size, deep=True)
    for scale, logits in enumerate(out.inner):
        run.case.assert_close(logits, f"inner_logits_{scale}")


def test_losses_and_gradient_norms(run):
    run.check_losses()
    run.check_gradient_norms()


def test_losses_with_batch_norm_left_in_training(run, batch_norm_training):
    batch_norm_training(run).check_losses("_bn_train")
