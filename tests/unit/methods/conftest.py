"""Small methods and support sets for the tests of this folder."""

from dataclasses import fields

import pytest
import torch

from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.types import EncodedShots
from small_segmenters import built, small_backbone

SIZES = {
    "backbone": small_backbone("layer2", "layer3"),
    "channels": 8,
    "prior": PriorMap(level="layer3", masked_input=None),
    "scales": (1.0, 0.5),
}


def small(config, **changes):
    names = {f.name for f in fields(config)}
    sizes = {name: value for name, value in SIZES.items() if name in names}
    return built(config(**(sizes | changes)))


@pytest.fixture
def make_method():
    """(config class, changes) -> a small method."""
    return small


@pytest.fixture
def pfenet():
    return small(PFENetConfig)


@pytest.fixture
def make_scl():
    """Builds a small SCL with some fields changed."""
    return lambda **changes: small(SCLPFENetConfig, **changes)


@pytest.fixture
def shots():
    """Gives (episodes, shots) -> images, masks: rectangles of light on noise, with an ignored edge."""

    def make(episodes, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(episodes, count, 3, 65, 65, generator=generator)
        masks = torch.zeros(episodes, count, 65, 65, dtype=torch.uint8)
        for b in range(episodes):
            for k in range(count):
                top, left = (int(v) for v in torch.randint(0, 30, (2,), generator=generator))
                masks[b, k, top : top + 30, left : left + 25] = 1
                masks[b, k, top : top + 30, left + 25] = 255
        images += 0.5 * (masks == 1).unsqueeze(2)
        return images.clamp(0, 1), masks

    return make


def encoded(method, images, masks):
    return EncodedShots(features=method.extract(images.flatten(0, 1)), masks=masks)


@pytest.fixture
def encode():
    """Runs support images (B, K, 3, H, W) through a method's backbone."""
    return encoded


@pytest.fixture
def undecided():
    """Makes a random head listen to its guide, and call half of the pixels of these images foreground."""

    def shift(method, images, masks):
        with torch.no_grad():
            for conv in method.query.merge.convs:
                conv.weight[:, method.config.channels :] *= 8
            logits = method.segment(
                method.extract(images[:, 0]), method.encode_support(encoded(method, images, masks))
            )
            method.trunk.classifier[-1].bias[1] -= (logits[:, 1] - logits[:, 0]).median()

    return shift
