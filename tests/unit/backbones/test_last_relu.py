"""A VGG without its last ReLU (released PANet), and keys from before there was the choice."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.backbones.weights import state_sha256

CONFIG = BackboneConfig(name="vgg11", weights=None, levels=("layer1", "layer2"))
SMALL = BackboneConfig(
    name="resnet18",
    weights=None,
    levels=("layer2",),
    shape=ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4),
)


@pytest.fixture(scope="module")
def pair():
    """The same random VGG with and without its last ReLU."""
    return CONFIG.build(), replace(CONFIG, last_relu=False).build()


def test_only_the_deepest_level_loses_its_relu(pair):
    whole, without = pair
    images = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    expected, found = whole(images), without(images)
    assert torch.equal(found["layer1"], expected["layer1"])
    assert float(expected["layer2"].min()) >= 0
    assert float(found["layer2"].min()) < 0
    # a pool follows: the largest of cut values is the cut largest value
    torch.testing.assert_close(found["layer2"].relu(), expected["layer2"])


def test_the_weights_keep_their_names(pair):
    whole, without = pair
    assert list(whole.state_dict()) == list(without.state_dict())
    relus = [sum(isinstance(m, nn.ReLU) for m in b.modules()) for b in pair]
    assert relus[1] == relus[0] - 1


def key_without_the_choice(backbone):
    """What the digest was made of before ``last_relu``."""
    known = (
        "name",
        "levels",
        "first_block_dilation",
        "stride_on_1x1",
        "bn_eps",
        "bn",
        "shape",
    )
    settings = {k: v for k, v in asdict(backbone.config).items() if k in known}
    settings |= {"mean": backbone.mean.tolist(), "std": backbone.std.tolist()}
    text = json.dumps(settings, sort_keys=True) + state_sha256(backbone.trunk.state_dict())
    return hashlib.sha256(text.encode()).hexdigest()


def test_old_digests_stay_and_the_map_without_relu_has_its_own(pair):
    whole, without = pair
    for backbone in (whole, SMALL.build()):
        assert backbone.digest() == key_without_the_choice(backbone)
    assert without.digest() not in (whole.digest(), key_without_the_choice(without))


def test_a_resnet_cannot_leave_out_its_relu():
    with pytest.raises(ValueError, match="last_relu is for VGGs, not 'resnet18'"):
        replace(SMALL, last_relu=False)
