"""Colour, smoothed colour and edges of an image at each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = (1.0, 2.0, 4.0)

_REACH = 3  # standard deviations of a Gaussian that are kept


def filter_channels(sigmas: Sequence[float] = SIGMAS) -> int:
    """Channels that :func:`pixel_filters` gives."""
    return 3 + 6 * len(sigmas)


def pixel_filters(images: Tensor, sigmas: Sequence[float] = SIGMAS) -> Tensor:
    """Filters images (n, 3, H, W) in [0, 1]: the colours, and at each scale six maps.

    These are the smoothed colours, the length of the grey gradient, and the larger and the smaller
    eigenvalue of the grey Hessian, which are high on dark and low on bright lines.

    Args:
        images: (n, 3, H, W) RGB.
        sigmas: scales, standard deviations of a Gaussian in pixels.

    Returns:
        (n, 3 + 6 S, H, W) float32.
    """
    images = images.float()
    maps = [images]
    for sigma in sigmas:
        smooth = _smoothed(images, sigma)
        grey = F.pad(smooth.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        middle, left, right = grey[..., 1:-1, 1:-1], grey[..., 1:-1, :-2], grey[..., 1:-1, 2:]
        above, below = grey[..., :-2, 1:-1], grey[..., 2:, 1:-1]
        gradient = _length((right - left) / 2, (below - above) / 2)
        xx, yy = right + left - 2 * middle, below + above - 2 * middle
        xy = (grey[..., 2:, 2:] + grey[..., :-2, :-2] - grey[..., 2:, :-2] - grey[..., :-2, 2:]) / 4
        spread = _length((xx - yy) / 2, xy)
        maps += [smooth, gradient, (xx + yy) / 2 + spread, (xx + yy) / 2 - spread]
    return torch.cat(maps, dim=1)


def _length(across: Tensor, down: Tensor) -> Tensor:
    return (across.square() + down.square()).sqrt()  # ONNX has no hypot


def _smoothed(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian of the images, which go on beyond their edges as they end."""
    reach = max(1, round(_REACH * sigma))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-places.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    channels = images.shape[1]
    rows = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)
