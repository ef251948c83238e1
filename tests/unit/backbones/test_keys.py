"""Every way of naming the stem comes out under timm's names."""

import torch

from fewseg.backbones import BackboneConfig, released_trunk_key
from fewseg.backbones.weights import to_timm_names

DEEP = ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")


def timm_state(name):
    backbone = BackboneConfig(name=name, weights=None, levels=("layer1",)).build()
    return backbone.trunk.state_dict()


def renamed(state, names):
    out = {}
    for key, value in state.items():
        head = next((name for name in names if key.startswith(f"{name}.")), None)
        out[names[head] + key.removeprefix(head) if head else key] = value
    return out


def same(first, second):
    return first.keys() == second.keys() and all(first[key] is second[key] for key in first)


def test_released_deep_stem_names_become_timms():
    state = timm_state("resnet50s")
    official = dict(
        zip(DEEP, ("layer0.0", "layer0.1", "layer0.3", "layer0.4", "layer0.6", "layer0.7"), strict=True)
    )
    given = renamed(state, official)
    assert "layer0.7.running_mean" in given
    assert same(to_timm_names(given), state)


def test_released_plain_stem_names_become_timms():
    state = timm_state("resnet50")
    given = renamed(state, {"conv1": "layer0.0", "bn1": "layer0.1"})
    assert "layer0.1.bias" in given
    assert same(to_timm_names(given), state)


def test_flat_deep_stem_names_become_timms():
    state = timm_state("resnet50s")
    flat = dict(zip(DEEP, ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"), strict=True))
    given = renamed(state, flat)
    assert "conv3.weight" in given
    assert "layer1.0.conv3.weight" in given
    assert same(to_timm_names(given), state)


def test_timms_own_names_stay():
    state = timm_state("resnet50")
    assert same(to_timm_names(state), state)


def test_one_released_key_depends_on_the_stem_and_other_keys_stay():
    assert released_trunk_key("layer0.1.weight") == "conv1.1.weight"
    assert released_trunk_key("layer0.1.weight", deep_stem=False) == "bn1.weight"
    assert released_trunk_key("layer0.7.running_var") == "bn1.running_var"
    for key in ("layer1.0.bn1.weight", "cls.0.weight", "layer01.0.weight"):
        assert released_trunk_key(key) == key
        assert same(to_timm_names({key: torch.ones(1)}), {key: None}) is False
