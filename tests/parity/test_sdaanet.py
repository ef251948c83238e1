"""Imported SD-AANet weights give the numbers of the authors' released code, with one shot and with five."""

import pytest
import torch

from fewseg.methods.sdaanet import CompoundedGate, MeanGate, PrototypeTeacher, SeparateTeachers
from fewseg.ops.masks import masked_average
from fewseg.types import Guides

CASES = ("sdaanet_1shot", "sdaanet_5shot")


@pytest.fixture(scope="module", params=CASES)
def run(request, released):
    return released(request.param)


@pytest.fixture(scope="module")
def pooled(run):
    with torch.no_grad():
        return run.model.pool(run.support.features, run.support.masks.flatten(0, 1))


@pytest.fixture(scope="module")
def state(run):
    with torch.no_grad():
        return run.model.encode_support(run.support)


@pytest.fixture(scope="module")
def maps(run):
    with torch.no_grad():
        return run.model.encode_query(run.query)


def test_the_imported_config_names_what_the_code_does(run):
    config = run.model.config
    assert (config.gate, config.distillation) == (CompoundedGate(), PrototypeTeacher())
    assert config.backbone.name == "resnet50"


def test_prototypes_and_gates_of_each_shot_and_their_mean(run, pooled, state):
    shots = run.support.shots
    run.case.assert_close(pooled.raw.unflatten(0, (-1, shots)), "prototype_raw_per_shot")
    run.case.assert_close(pooled.values.unflatten(0, (-1, shots)), "se_gate_sigmoid")
    run.case.assert_close(pooled.prototypes.unflatten(0, (-1, shots)), "prototype_gated_per_shot")
    run.case.assert_close(state.guides["vectors"][:, 0], "prototype_final")


def test_query_feature_gate_prior_and_attention_map(run, maps, state):
    run.case.assert_close(maps.mid, "query_feat_before_gate")
    run.case.assert_close(run.model.query_multiplier(state.guides), "query_gate_effective")
    run.case.assert_close(run.model.query.prior_map(maps, state.guides), "prior_mask")
    run.case.assert_close(run.model.attention_map(maps, state.guides), "query_attention")


def test_inner_logits(run, maps, state):
    with torch.no_grad():
        out = run.model._decode(maps, state.guides, deep=True, learn=False)
        for scale, logits in enumerate(out.inner):
            run.case.assert_close(logits, f"inner_logits_{scale}")


def test_support_segmentation_and_teachers_prototype(run, pooled, maps):
    with torch.no_grad():
        logits = run.model.attention.support_logits(pooled.mid, pooled.raw, learn=False)
    run.case.assert_close(logits.unflatten(0, (-1, run.support.shots)), "support_attention_logits_feat")
    cells = run.model.config.distillation.query_cells(run.case.input("query_mask"), maps.size)
    run.case.assert_close(masked_average(maps.mid, cells), "proto_teacher_query")


def test_each_loss_and_the_gradient_norms(run):
    run.case.assert_close(run.losses["query"], "main_loss")
    run.case.assert_close(run.losses["query_deep"], "aux_loss")
    run.case.assert_close(run.losses["distillation"], "kd_loss")
    run.case.assert_close(run.losses["support_attention"], "support_ce_loss")
    run.check_gradient_norms()


def test_the_papers_gate_and_teacher_are_outside_the_released_tolerance(run, pooled, maps):
    values = pooled.values.unflatten(0, (-1, run.support.shots))
    paper = MeanGate().multiplier(Guides(maps=MeanGate().kept(values.mean(dim=1))))
    with pytest.raises(AssertionError, match="off by"):
        run.case.assert_close(paper, "query_gate_effective")
    cells = SeparateTeachers().query_cells(run.case.input("query_mask"), maps.size)
    with pytest.raises(AssertionError, match="off by"):
        run.case.assert_close(masked_average(maps.mid, cells), "proto_teacher_query")
