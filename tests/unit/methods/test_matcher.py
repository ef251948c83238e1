"""The matcher: the cosine of every query cell to two prototypes, written out."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.methods.matcher import MatcherConfig
from fewseg.types import EncodedShots, Features


@pytest.fixture(scope="module")
def matcher():
    shape = ResNetShape(channels=(4, 8, 8, 8), stem_width=4)
    backbone = BackboneConfig(name="resnet18", weights=None, levels=("layer2", "layer3"), shape=shape)
    return MatcherConfig(backbone=backbone).build()


def of_maps(maps):
    return Features(maps={"layer2": maps, "layer3": 3 * maps}, image_size=(17, 17))


def test_logits_are_twenty_times_the_cosine_to_background_and_foreground(matcher):
    generator = torch.Generator().manual_seed(0)
    support, query = torch.randn(2, 1, 4, 3, 3, generator=generator).unbind(0)
    masks = torch.zeros(1, 1, 17, 17, dtype=torch.uint8)
    masks[..., :9, :9] = 1
    masks[..., 16, :] = 255  # belongs to neither
    state = matcher.encode_support(EncodedShots(features=of_maps(support), masks=masks))
    logits = matcher.segment(of_maps(query), state)

    def unit(maps):
        half = maps / maps.norm(dim=1, keepdim=True)
        return torch.cat([half, half], dim=1)  # two levels of the same direction, each of unit length

    pixels = F.interpolate(unit(support), size=(17, 17), mode="bilinear", align_corners=True)[0]
    cells = unit(query)[0]
    for label in (0, 1):
        prototype = pixels[:, masks[0, 0] == label].mean(dim=1)
        for y in range(3):
            for x in range(3):
                expected = 20 * torch.cosine_similarity(cells[:, y, x], prototype, dim=0)
                assert float(logits[0, label, 8 * y, 8 * x]) == pytest.approx(float(expected), abs=1e-3)


def test_there_is_nothing_to_train(matcher):
    assert not [p for p in matcher.parameters() if p.requires_grad]
    with pytest.raises(ValueError, match="nothing to train: evaluate it"):
        matcher.training_losses(None)
