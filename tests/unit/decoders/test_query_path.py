"""The mid-level feature and the query path that is put together of mid, prior and merge."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import GuidedQuery, MidLevel, NoPrior, PriorMap
from fewseg.types import Features, Guides


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    maps = {"layer2": torch.randn(2, 3, 5, 5, generator=generator)}
    maps["layer3"] = torch.randn(2, 6, 5, 5, generator=generator)
    return Features(maps=maps, image_size=(33, 33))


def test_the_mid_level_is_a_convolution_of_the_levels_in_their_order(features):
    mid = MidLevel(9, 4, ("layer3", "layer2"), dropout=0.5).eval()
    joined = torch.cat([features["layer3"], features["layer2"]], dim=1)
    torch.testing.assert_close(mid.of(features), F.relu(F.conv2d(joined, mid[0].weight)))


def test_the_mid_level_drops_whole_channels_in_training_only(features):
    torch.manual_seed(0)
    mid = MidLevel(9, 64, ("layer3", "layer2"), dropout=0.5)
    dropped = (mid.of(features) == 0).flatten(2).all(dim=2)
    assert 20 < int(dropped.sum()) < 108  # of 128, half is expected
    assert int((mid.eval().of(features) == 0).flatten(2).all(dim=2).sum()) < 20


def test_a_level_that_the_backbone_does_not_give_is_named(features):
    mid = MidLevel(9, 4, ("layer4",), dropout=0.0)
    with pytest.raises(ValueError, match=r"no level 'layer4'; it gives \['layer2', 'layer3'\]"):
        mid.of(features)


@pytest.mark.parametrize("prior", [PriorMap(level="layer3", masked_input=None), NoPrior()])
def test_the_query_path_is_mid_prior_and_merge(features, prior):
    torch.manual_seed(0)
    mid = MidLevel(9, 4, ("layer3", "layer2"), dropout=0.0)
    path = GuidedQuery(mid, channels=4, vectors=2, prior=prior, scales=(3, 1.0)).eval()
    masks = torch.ones(2, 33, 33, dtype=torch.uint8)
    keys, valid = prior.keys(features, masks, rerun=None)
    guides = Guides(maps={"vectors": torch.randn(2, 2, 4)}, keys=keys, valid=valid)
    query = path.encode(features)
    shown = path.prior_map(query, guides)
    assert shown.shape == (2, prior.channels, 5, 5)
    expected = path.merge(mid.of(features), guides["vectors"], shown)
    for ours, theirs in zip(path(query, guides), expected, strict=True):
        assert torch.equal(ours, theirs)
