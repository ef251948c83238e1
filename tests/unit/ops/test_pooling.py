"""Masked average pooling is the mean over the foreground cells, and zeros where there is none."""

import pytest
import torch

from fewseg.ops.pooling import AREA_EPS, masked_average, masked_averages


def plain_average(features, cells, eps):
    """SCL Eq. 1 as a loop over cells."""
    n, channels, height, width = features.shape
    found = torch.zeros(n, channels)
    for i in range(n):
        area, total = 0.0, torch.zeros(channels)
        for y in range(height):
            for x in range(width):
                area += float(cells[i, 0, y, x])
                total += float(cells[i, 0, y, x]) * features[i, :, y, x]
        found[i] = total / (area + eps)
    return found


@pytest.mark.parametrize("eps", [AREA_EPS, 1e-5])
def test_the_pooled_vector_is_the_weighted_mean_of_the_cells(eps):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator)
    cells = torch.rand(3, 1, 5, 6, generator=generator)
    torch.testing.assert_close(masked_average(features, cells, eps), plain_average(features, cells, eps))


def test_two_cells_by_hand():
    features, cells = torch.tensor([[[[2.0, 4.0, 100.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
    for pool in (masked_average, masked_averages):
        assert float(pool(features, cells)) == pytest.approx(6 / 2.0005)


def test_an_empty_mask_pools_to_zeros_with_finite_gradients():
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    pooled = masked_average(features, torch.zeros(2, 1, 4, 4))
    assert pooled.abs().max() == 0
    pooled.sum().backward()
    assert bool(torch.isfinite(features.grad).all())


def test_regions_pooled_at_once_are_those_pooled_one_by_one():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator)
    cells = torch.rand(3, 2, 5, 6, generator=generator)
    cells[1, 1] = 0
    for maps in (features, features.contiguous(memory_format=torch.channels_last)):
        found = masked_averages(maps, cells, 1e-5)
        for region in range(2):
            expected = plain_average(features, cells[:, region : region + 1], 1e-5)
            torch.testing.assert_close(found[:, region], expected, atol=1e-5, rtol=1e-5)
    assert found[1, 1].abs().max() == 0
