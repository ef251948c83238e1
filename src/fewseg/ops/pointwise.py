"""A 1x1 convolution by filters that belong to no layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise(maps: Tensor, filters: Tensor) -> Tensor:
    """Multiplies every cell of a map by a matrix.

    On a CPU every row of cells stands as an image of its own: torch leaves 1x1 convolutions of fewer than 16
    float32 images to a slow path where it has one thread, and a float32 matrix product may be several times
    slower than a convolution there.

    Args:
        maps: (n, C, h, w).
        filters: (D, C).

    Returns:
        (n, D, h, w), channels last on a CPU.
    """
    weight = filters[..., None, None]
    if maps.device.type != "cpu":
        return F.conv2d(maps, weight)
    n, channels, h, w = maps.shape
    cells = maps.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    rows = F.conv2d(cells.reshape(n * h, 1, w, channels).permute(0, 3, 1, 2), weight)
    return rows.permute(0, 2, 3, 1).reshape(n, h, w, -1).permute(0, 3, 1, 2)
