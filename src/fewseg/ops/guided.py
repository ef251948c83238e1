"""Maps whose edges follow those of the image: the guided filter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def guided_filter(maps: Tensor, images: Tensor, radius: int, smoothness: float, stride: int = 1) -> Tensor:
    """Makes the edges of maps p follow those of colour images I.

    In each square window w, p is fitted by a linear function of the colours,
    a_w = (cov_w(I) + e U)^-1 cov_w(I, p) and b_w = mean_w(p) - a_w mean_w(I) with the identity U; the
    result at a pixel is a I + b with the means of a_w and b_w over the windows that hold it. Maps that sum
    to 1 still do; values may lie a little outside the range of p.

    Source: guided filter (He, Sun and Tang, TPAMI 2013) with colour images; a and b are fitted at a lower
    resolution as in the fast guided filter (He and Sun, 2015).

    Args:
        maps: p, (n, C, h, w) on any grid.
        images: I, (n, 3, H, W) in [0, 1].
        radius: of a window in pixels of the images: its side is 2 radius + 1.
        smoothness: e, variance of a colour from which on an edge is kept.
        stride: of the grid on which a and b are fitted, pixels.

    Returns:
        (n, C, H, W) float32.
    """
    images, count = images.float(), maps.shape[1]
    height, width = images.shape[-2:]
    size = (-(-height // stride), -(-width // stride))
    small = F.interpolate(images, size=size, mode="area")
    coarse = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    window = max(1, round(radius / stride))
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    products = torch.stack([small[:, i] * small[:, j] for i, j in pairs], dim=1)
    mixed = (small[:, :, None] * coarse[:, None]).flatten(1, 2)
    means = _mean(torch.cat([small, coarse, products, mixed], dim=1), window)
    colour, value, products, mixed = means.split([3, count, len(pairs), 3 * count], dim=1)
    spread = colour.new_zeros(*colour.shape[:1], 3, 3, *size)
    for k, (i, j) in enumerate(pairs):
        spread[:, i, j] = spread[:, j, i] = products[:, k] - colour[:, i] * colour[:, j]
    covariance = mixed.unflatten(1, (3, count)) - colour[:, :, None] * value[:, None]
    slope = (_inverse(spread, smoothness)[:, :, :, None] * covariance[:, None]).sum(dim=2)
    offset = value - (slope * colour[:, :, None]).sum(dim=1)
    fitted = _mean(torch.cat([slope.flatten(1, 2), offset], dim=1), window)
    fitted = F.interpolate(fitted, size=(height, width), mode="bilinear", align_corners=False)
    slope, offset = fitted.split([3 * count, count], dim=1)
    result: Tensor = offset
    for part, colour in zip(slope.split(count, dim=1), images.split(1, dim=1), strict=True):
        result = torch.addcmul(result, part, colour)
    return result


def _mean(maps: Tensor, reach: int) -> Tensor:
    """Over a square window, of its part within the map."""
    kernel, pads = 2 * reach + 1, reach
    rows = F.avg_pool2d(maps, (kernel, 1), stride=1, padding=(pads, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, kernel), stride=1, padding=(0, pads), count_include_pad=False)


def _inverse(matrices: Tensor, added: float) -> Tensor:
    """Of symmetric (n, 3, 3, h, w) with a value added on the diagonal, by cofactors."""
    a, b, c = (matrices[:, i, i] + added for i in range(3))
    d, e, f = matrices[:, 0, 1], matrices[:, 0, 2], matrices[:, 1, 2]
    rows = [
        [b * c - f * f, e * f - c * d, d * f - b * e],
        [e * f - c * d, a * c - e * e, d * e - a * f],
        [d * f - b * e, d * e - a * f, a * b - d * d],
    ]
    determinant = a * rows[0][0] + d * rows[0][1] + e * rows[0][2]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) / determinant[:, None, None]
