"""The guided filter, written out in loops."""

import numpy as np
import pytest
import torch

from fewseg.ops.guided import guided_filter

RNG = np.random.default_rng(0)
RADIUS, SMOOTHNESS = 2, 0.01


def plain(maps, image, radius, smoothness):
    """Fits each window by least squares with ridge, then averages the fits that hold a pixel."""
    height, width = image.shape[1:]

    def window(i, j):
        return slice(max(0, i - radius), i + radius + 1), slice(max(0, j - radius), j + radius + 1)

    slopes, rests = np.zeros((height, width, 3)), np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            rows, columns = window(i, j)
            colours, values = image[:, rows, columns].reshape(3, -1), maps[rows, columns].ravel()
            away = colours - colours.mean(axis=1, keepdims=True)
            spread = away @ away.T / away.shape[1] + smoothness * np.eye(3)
            slopes[i, j] = np.linalg.solve(spread, away @ (values - values.mean()) / away.shape[1])
            rests[i, j] = values.mean() - slopes[i, j] @ colours.mean(axis=1)
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            own = window(i, j)
            found[i, j] = slopes[own].mean(axis=(0, 1)) @ image[:, i, j] + rests[own].mean()
    return found


def test_it_is_the_mean_of_linear_fits_in_windows():
    image, maps = RNG.random((3, 9, 11)), RNG.random((2, 9, 11))
    found = guided_filter(torch.tensor(maps)[None], torch.tensor(image)[None], RADIUS, SMOOTHNESS)
    for own, true in zip(found[0], maps, strict=True):
        np.testing.assert_allclose(own, plain(true, image, RADIUS, SMOOTHNESS), atol=2e-5)


def test_each_image_guides_its_own_maps_alone():
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    together = guided_filter(maps, images, RADIUS, SMOOTHNESS)
    alone = [guided_filter(maps[i : i + 1], images[i : i + 1], RADIUS, SMOOTHNESS) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_blurred_edge_moves_to_that_of_the_image_and_shares_still_sum_to_one(stride):
    image = torch.zeros(1, 3, 48, 48)
    image[..., 22:] = 0.8
    ramp = torch.linspace(-1, 1, 6).sigmoid().view(1, 1, 1, 6).expand(1, 1, 6, 6)
    maps = torch.cat([ramp, 1 - ramp], dim=1)
    found = guided_filter(maps, image, 8, 1e-4, stride)
    assert found.shape == (1, 2, 48, 48)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 48, 48), atol=1e-4, rtol=0)
    step = (found[0, 0, 24, 1:] - found[0, 0, 24, :-1]).argmax()
    assert step == 21
    assert found[0, 0, 24, 22] - found[0, 0, 24, 21] > 0.1
