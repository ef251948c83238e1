"""The recipes on a whole ResNet-50 differ in layer4 alone, and train on cached maps of all levels."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewseg.engine.checkpoint import read_checkpoint
from fewseg.methods.layers import NoPrior, PriorMap
from fewseg.recipes.registry import recipe, variant
from fewseg.recipes.run import train_recipe
from small_segmenters import small_backbone
from tiny_folds import SIDE, tiny_folds

SHARED = Path(os.environ.get("FEWSEG_SHARED", Path(__file__).parents[3] / ".." / "shared"))
WEIGHTS = SHARED / "weights" / "resnet50-v1-whole-8bit.safetensors"
PFENETS = {
    "no_prior": (NoPrior(), ("layer2", "layer3")),
    "layer3": (PriorMap(level="layer3", masked_input=None), ("layer2", "layer3")),
    "layer4": (PriorMap(level="layer4", masked_input="layer3"), ("layer2", "layer3", "layer4")),
}


@pytest.mark.parametrize("name", PFENETS)
def test_pfenets_differ_from_the_one_on_the_trunk_in_backbone_and_prior_alone(name):
    chosen, on_trunk = recipe(f"voc5i_mini_pfenet_whole_{name}"), recipe("voc5i_mini_pfenet")
    prior, levels = PFENETS[name]
    assert (chosen.method.prior, chosen.method.backbone.levels) == (prior, levels)
    assert Path(chosen.method.backbone.weights).name == WEIGHTS.name
    assert not chosen.method.backbone.trainable
    same = {"backbone": on_trunk.method.backbone, "prior": on_trunk.method.prior}
    assert (
        replace(chosen, name=on_trunk.name, variant=on_trunk.variant, method=replace(chosen.method, **same))
        == on_trunk
    )


@pytest.mark.parametrize("last", [3, 4])
def test_srpnets_differ_from_the_one_on_the_trunk_in_backbone_and_levels_alone(last):
    chosen, on_trunk = recipe(f"voc5i_mini_srpnet_whole_layer{last}"), recipe("voc5i_mini_srpnet")
    levels = tuple(f"layer{i}" for i in range(1, last + 1))
    assert chosen.method.levels == chosen.method.backbone.levels == levels
    assert chosen.method.backbone.trainable
    same = {"backbone": on_trunk.method.backbone, "levels": on_trunk.method.levels}
    assert (
        replace(chosen, name=on_trunk.name, variant=on_trunk.variant, method=replace(chosen.method, **same))
        == on_trunk
    )


def test_each_is_measured_against_those_without_layer4_on_the_same_network():
    assert variant("pfenet_whole_layer4").one_part_less == ("pfenet_whole_no_prior", "pfenet_whole_layer3")
    assert variant("pfenet_whole_layer3").one_part_less == ("pfenet_whole_no_prior",)
    assert variant("srpnet_whole_layer4").one_part_less == ("srpnet_whole_layer3",)


def test_the_prior_from_layer4_is_trained_on_cached_maps(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    chosen = recipe("voc5i_mini_pfenet_whole_layer4")
    small = small_backbone(*chosen.method.backbone.levels)
    view = replace(chosen.train.view, size=SIDE)
    tiny = replace(
        chosen,
        method=replace(chosen.method, backbone=small, channels=8),
        train=replace(chosen.train, steps=1, view=view, min_area=20, precision="32-true"),
        size=SIDE,
    )
    path = train_recipe(tiny, tiny_folds(tmp_path / "index")(0), tmp_path / "run", progress=False)
    assert read_checkpoint(path).training["step"] == 1


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the weights are not at $FEWSEG_SHARED")
def test_the_weights_give_maps_of_every_level(monkeypatch):
    monkeypatch.setenv("FEWSEG_SHARED", str(SHARED))
    backbone = recipe("voc5i_mini_srpnet_whole_layer4").method.backbone.build().eval()
    with torch.inference_mode():
        maps = backbone(torch.rand(1, 3, 65, 65)).maps
    assert {name: tuple(one.shape[1:]) for name, one in maps.items()} == {
        "layer1": (256, 17, 17),
        "layer2": (512, 9, 9),
        "layer3": (1024, 9, 9),
        "layer4": (2048, 9, 9),
    }
    assert all(one.isfinite().all() and one.std() > 0 for one in maps.values())
