"""The one way in which maps change size inside a network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes (n, C, h, w) maps to ``size`` bilinearly with aligned corners.

    Aligned corners are the convention of the whole PFENet family: with image sides 8k + 1 and maps of
    side k + 1 the corners of the cells fall on pixels, so that a resized binary mask stays binary.

    Args:
        maps: floating tensor (n, C, h, w).
        size: (H, W) wanted.

    Returns:
        (n, C, H, W); ``maps`` itself when the size is already right.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
