"""Resizing, its adjoint, and resizing by matrix products."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.ops import resize as module
from fewseg.ops.resize import pixels_to_cells, resize, resize_by_products


def test_a_map_of_the_right_size_comes_back_itself():
    maps = torch.randn(1, 1, 4, 5)
    assert resize(maps, (4, 5)) is maps


BOTH = pytest.mark.parametrize("align_corners", [True, False])
SIZES = [((9, 9), (65, 65)), ((3, 4), (17, 13)), ((5, 2), (5, 9)), ((1, 3), (4, 4)), ((4, 4), (4, 4))]


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@BOTH
@pytest.mark.parametrize(("cells", "pixels"), SIZES)
def test_the_inner_products_of_adjoints_are_equal(cells, pixels, align_corners):
    maps, weights = some(2, 1, *cells), some(2, *pixels, seed=1)
    there = (resize(maps, pixels, align_corners=align_corners)[:, 0] * weights).sum(dim=(1, 2))
    back = (maps * pixels_to_cells(weights, cells, align_corners=align_corners)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(back, there, atol=1e-4, rtol=1e-4)


@BOTH
@pytest.mark.parametrize(("cells", "pixels"), SIZES)
def test_products_resize_as_resize_does_with_the_same_gradient(cells, pixels, align_corners):
    maps, weights = some(2, 3, *cells), some(2, 3, *pixels, seed=1)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found = resize_by_products(ours, pixels, align_corners=align_corners)
    expected = resize(theirs, pixels, align_corners=align_corners)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_the_conventions_differ_and_resize_follows_torch_in_both():
    maps = some(1, 2, 3, 3)
    for align_corners in (True, False):
        expected = F.interpolate(maps, size=(9, 9), mode="bilinear", align_corners=align_corners)
        assert torch.equal(resize(maps, (9, 9), align_corners=align_corners), expected)
    assert not torch.allclose(resize(maps, (9, 9)), resize(maps, (9, 9), align_corners=False))


def test_what_inference_mode_computed_first_serves_gradients_afterwards():
    module._interpolation.cache_clear()
    with torch.inference_mode():
        pixels_to_cells(torch.ones(1, 14, 15), (6, 7))
    maps = some(1, 1, 6, 7).requires_grad_()
    resize_by_products(maps, (14, 15)).sum().backward()
    assert float(maps.grad.sum()) == pytest.approx(14 * 15, rel=1e-5)
