"""The recipes of the combined model: SCL's data and schedule, and one change each."""

from dataclasses import fields, replace

import pytest

from fewseg.methods.combined import CombinedConfig, NoPrototypeScore
from fewseg.methods.scl import SelfGuided
from fewseg.methods.sdaanet import NoAttention
from fewseg.recipes.datasets import coco_mini, voc5i_mini_with_coco
from fewseg.recipes.registry import recipe, variant

LESS = {
    "no_attention": {"attention": NoAttention()},
    "no_prototypes": {"prototypes": NoPrototypeScore()},
    "no_self_guidance": {"self_guided": SelfGuided(vectors=("initial",), losses=("first",))},
}


@pytest.fixture
def whole():
    return recipe("voc5i_mini_fewseg")


def renamed(chosen, like):
    return replace(chosen, name=like.name, variant=like.variant)


def test_it_is_trained_and_tested_as_scl_is_and_at_two_sizes_besides(whole):
    scl = recipe("voc5i_mini_scl")
    assert (whole.data, whole.train, whole.size, whole.protocol) == (
        scl.data,
        scl.train,
        scl.size,
        scl.protocol,
    )
    assert isinstance(whole.method, CombinedConfig)
    shared = {field.name: getattr(scl.method, field.name) for field in fields(scl.method)}
    assert shared == {name: getattr(whole.method, name) for name in shared}
    more = [(e.shots, e.fusion.kind, e.sizes) for e in whole.evaluations if e not in scl.evaluations]
    assert more == [(1, "average", (241, 353)), (5, "cross-guided", (241, 353))]
    assert set(scl.evaluations) < set(whole.evaluations)


@pytest.mark.parametrize("name", LESS)
def test_an_ablation_lacks_one_part(whole, name):
    chosen = recipe(f"voc5i_mini_fewseg_{name}")
    assert renamed(chosen, whole) == replace(whole, method=replace(whole.method, **LESS[name]))
    assert chosen.variant.name in whole.variant.one_part_less


def test_the_others_change_the_training_or_the_data_alone(whole):
    ignored, more = recipe("voc5i_mini_fewseg_novel_ignored"), recipe("voc5i_mini_fewseg_with_coco")
    train = replace(whole.train, novel_pixels="ignored")
    assert renamed(ignored, whole) == replace(whole, train=train)
    assert renamed(more, whole) == replace(whole, data=voc5i_mini_with_coco)
    for chosen in (ignored, more):
        assert variant(chosen.variant.name).one_part_less == (whole.variant.name,)
    on_coco = recipe("coco_mini_fewseg")
    assert (on_coco.data, on_coco.protocol) == (coco_mini, recipe("coco_mini_scl").protocol)
    assert on_coco.method == whole.method
