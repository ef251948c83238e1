"""The cheap merge equals the 1x1 convolution over the literal concatenation, at every scale."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import GuideMerge, bin_size


def literal(merge, sizes, maps, vectors, prior):
    """SCL Eq. 2 and 11, PFENet Eq. 6: concat(map_b, V_1 .. V_v, prior_b) -> 1x1 convolution -> ReLU."""
    merged = []
    for size, conv in zip(sizes, merge.convs, strict=True):
        parts = [F.adaptive_avg_pool2d(maps, size)]
        parts += [v[:, :, None, None].expand(-1, -1, *size) for v in vectors.unbind(1)]
        if prior.shape[1]:
            parts.append(F.interpolate(prior, size=size, mode="bilinear", align_corners=True))
        merged.append(F.relu(F.conv2d(torch.cat(parts, dim=1), conv.weight)))
    return merged


@pytest.mark.parametrize(
    ("scales", "sizes"),
    [
        ((12, 6, 3), [(12, 12), (6, 6), (3, 3)]),  # 12 is above the map's own side
        ((1.0, 0.5, 0.133), [(9, 7), (4, 4), (1, 1)]),
        ((9, 0.5), [(9, 9), (4, 4)]),
    ],
)
@pytest.mark.parametrize(("vectors", "prior_channels"), [(1, 1), (2, 1), (2, 0), (3, 1)])
def test_the_merge_is_the_convolution_of_the_concatenation(scales, sizes, vectors, prior_channels):
    torch.manual_seed(0)
    merge = GuideMerge(4, vectors=vectors, prior_channels=prior_channels, scales=scales)
    maps, guide = torch.randn(2, 4, 9, 7), torch.randn(2, vectors, 4)
    prior = torch.rand(2, prior_channels, 9, 7)
    expected = literal(merge, sizes, maps, guide, prior)
    found = merge(maps, guide, prior)
    assert [tuple(m.shape) for m in found] == [(2, 4, *size) for size in sizes]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_weight_has_the_shape_of_the_whole_convolution():
    merge = GuideMerge(8, vectors=2, prior_channels=1, scales=(4,))
    assert {k: tuple(v.shape) for k, v in merge.state_dict().items()} == {"convs.0.weight": (8, 25, 1, 1)}


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        (60, (60, 60)),
        (60.0, (60, 60)),  # what a command line makes of 60
        (8, (8, 8)),
        (1, (1, 1)),
        (1.0, (31, 41)),
        (0.5, (16, 20)),
        (0.001, (1, 1)),
    ],
)
def test_numbers_above_1_are_sides_and_floats_up_to_1_fractions_of_the_map(scale, size):
    assert bin_size(scale, (31, 41)) == size
