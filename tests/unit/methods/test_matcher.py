"""The matcher: the cosine of every query cell to two prototypes, written out."""

import pytest
import torch

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
    masks[..., :9, :9] = 1  # cells (0..1, 0..1)
    masks[..., 16, :] = 255  # the last row of cells belongs to neither
    state = matcher.encode_support(EncodedShots(features=of_maps(support), masks=masks))
    logits = matcher.segment(of_maps(query), state)

    def unit(cell):
        half = cell / cell.norm()
        return torch.cat([half, half])  # two levels of the same direction, each of unit length

    regions = {0: [(0, 2), (1, 2)], 1: [(0, 0), (0, 1), (1, 0), (1, 1)]}
    for label, cells in regions.items():
        prototype = sum(unit(support[0, :, y, x]) for y, x in cells) / len(cells)
        for y in range(3):
            for x in range(3):
                expected = 20 * torch.cosine_similarity(unit(query[0, :, y, x]), prototype, dim=0)
                assert float(logits[0, label, 8 * y, 8 * x]) == pytest.approx(float(expected), abs=1e-3)


def test_there_is_nothing_to_train(matcher):
    assert not [p for p in matcher.parameters() if p.requires_grad]
    with pytest.raises(ValueError, match="nothing to train: evaluate it"):
        matcher.training_losses(None)
