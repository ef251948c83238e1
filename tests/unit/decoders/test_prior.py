"""The prior map of any level, of one shot or the mean of several, and the null object in its place."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import NoPrior, PriorMap
from fewseg.ops.masks import foreground_cells
from fewseg.types import Features


def rerun(level, below):
    """A stage that looks at neighbours, as a real one does: masking before it is not masking after it."""
    assert level == "layer4"
    return torch.cat([F.avg_pool2d(below, 3, stride=1, padding=1), below[:, :1] - 1], dim=1)


@pytest.fixture
def support():
    generator = torch.Generator().manual_seed(0)
    third = torch.randn(2, 3, 5, 5, generator=generator)
    return Features(maps={"layer3": third, "layer4": rerun("layer4", third)}, image_size=(33, 33))


@pytest.fixture
def query():
    generator = torch.Generator().manual_seed(1)
    third = torch.randn(2, 3, 5, 5, generator=generator)
    return Features(maps={"layer3": third, "layer4": rerun("layer4", third)}, image_size=(33, 33))


@pytest.fixture
def masks():
    masks = torch.zeros(2, 33, 33, dtype=torch.uint8)
    masks[0, 6:20, 10:30] = 1
    masks[1, 0:9, 0:9] = 1
    masks[1, 20:, :] = 255
    return masks


def plain_prior(query, support, cells, masked_support):
    """PFENet Eq. 3-5, one query cell and one support cell at a time."""
    size = query.shape[-1]
    found = torch.zeros(size, size)
    for y in range(size):
        for x in range(size):
            best = [
                torch.cosine_similarity(query[:, y, x], masked_support[:, v, u], dim=0)
                for v in range(size)
                for u in range(size)
                if cells[v, u] > 0
            ]
            found[y, x] = max(best)
    return (found - found.min()) / (found.max() - found.min())


@pytest.mark.parametrize(
    ("prior", "level", "masked"),
    [
        (PriorMap(), "layer4", True),
        (PriorMap(level="layer4", masked_input=None), "layer4", False),
        (PriorMap(level="layer3", masked_input=None), "layer3", False),
    ],
)
def test_the_map_is_the_normalised_best_match_at_the_level_asked_for(
    support, query, masks, prior, level, masked
):
    keys, valid = prior.keys(support, masks, rerun)
    found = prior.compare(prior.query_map(query), keys, valid, (5, 5))
    assert found.shape == (2, 1, 5, 5)
    cells = foreground_cells(masks, (5, 5))[:, 0]
    for i in range(2):
        maps = support[level][i]
        if masked:
            maps = rerun("layer4", (support["layer3"] * cells.unsqueeze(1))[i : i + 1])[0]
        expected = plain_prior(query[level][i], maps, cells[i], maps)
        torch.testing.assert_close(found[i, 0], expected, atol=1e-4, rtol=0)


def test_several_shots_give_the_mean_of_their_normalised_maps_resized(support, query, masks):
    prior = PriorMap(level="layer3", masked_input=None)
    keys, valid = prior.keys(support, masks, rerun)  # two shots
    one = prior.query_map(query)[:1]
    alone = [prior.compare(one, keys[k : k + 1], valid[k : k + 1], (5, 5)) for k in range(2)]
    joined = prior.compare(one, keys.transpose(0, 1), valid.transpose(0, 1), (5, 5))
    torch.testing.assert_close(joined, (alone[0] + alone[1]) / 2)
    larger = prior.compare(one, keys.transpose(0, 1), valid.transpose(0, 1), (9, 9))
    torch.testing.assert_close(larger[..., ::2, ::2], joined)


def test_an_empty_mask_gives_a_map_of_zeros(support, query, masks):
    masks[1] = 0
    prior = PriorMap()
    found = prior.compare(prior.query_map(query), *prior.keys(support, masks, rerun), (5, 5))
    assert found[1].abs().max() == 0
    assert float(found[0].max()) == pytest.approx(1, abs=1e-5)


def test_the_levels_that_are_read_follow_from_the_fields():
    assert PriorMap().levels == ("layer3", "layer4")
    assert PriorMap(level="layer3", masked_input=None).levels == ("layer3",)
    assert NoPrior().levels == ()


def test_no_prior_is_a_map_of_zero_channels_that_never_runs_the_backbone(support, query, masks):
    prior = NoPrior()
    keys, valid = prior.keys(support, masks, rerun=None)
    assert (keys.shape, valid.shape) == ((2, 1, 0, 0), (2, 1, 0))
    compared = prior.query_map(query)
    assert prior.compare(compared, keys, valid, (5, 5)).shape == (2, 0, 5, 5)
    assert (prior.channels, PriorMap().channels) == (0, 1)
