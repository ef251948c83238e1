"""Masked pooling."""

from __future__ import annotations

from torch import Tensor

AREA_EPS = 5e-4
"""Added to a mask's area, in cells, so that an empty mask pools to zeros (the PFENet family's constant)."""


def masked_average(features: Tensor, cells: Tensor, eps: float = AREA_EPS) -> Tensor:
    """Masked global average pooling: the mean feature over the foreground cells.

    Source: SCL (Zhang et al. 2021), Eq. 1; also PFENet, CANet, SD-AANet Eq. 2. The released PFENet family
    adds 5e-4 to the area (the default here), PANet 1e-5.

    Args:
        features: (n, C, h, w).
        cells: (n, 1, h, w) weights in [0, 1].
        eps: what is added to the area, in cells; must be > 0.

    Returns:
        (n, C); zeros where the mask is empty.
    """
    total = (features * cells).sum(dim=(2, 3))
    area = cells.sum(dim=(2, 3))
    return total / (area + eps)
