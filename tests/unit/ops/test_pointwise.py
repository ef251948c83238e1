"""A matrix applied to every cell, whatever the layout of the map."""

import pytest
import torch

from fewseg.ops.similarity import pointwise


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n", [1, 3])
def test_every_cell_is_multiplied_by_the_matrix(n, layout):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(n, 5, 4, 7, generator=generator).contiguous(memory_format=layout)
    filters = torch.randn(6, 5, generator=generator)
    expected = torch.einsum("dc,nchw->ndhw", filters, maps)
    torch.testing.assert_close(pointwise(maps, filters), expected)


def test_gradients_reach_map_and_matrix():
    maps, filters = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    pointwise(maps, filters).square().sum().backward()
    expected = torch.einsum("dc,nchw->ndhw", filters.detach(), maps.detach())
    torch.testing.assert_close(maps.grad, 2 * torch.einsum("dc,ndhw->nchw", filters.detach(), expected))
    torch.testing.assert_close(filters.grad, 2 * torch.einsum("ndhw,nchw->dc", expected, maps.detach()))
