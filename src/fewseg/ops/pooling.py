"""Masked pooling."""

from __future__ import annotations

import torch
from torch import Tensor

AREA_EPS = 5e-4
"""Added to a mask's area, in cells, so that an empty mask pools to zeros (the PFENet family's constant)."""


def masked_average(features: Tensor, cells: Tensor, eps: float = AREA_EPS) -> Tensor:
    """Masked global average pooling: the mean (n, C) over the cells (n, 1, h, w), weights in [0, 1].

    Source: SCL (Zhang et al. 2021), Eq. 1; also PFENet, CANet, SD-AANet Eq. 2. The released PFENet family
    adds 5e-4 to the area (the default here), PANet 1e-5. An empty mask gives zeros.
    """
    total = (features * cells).sum(dim=(2, 3))
    area = cells.sum(dim=(2, 3))
    return total / (area + eps)


def masked_averages(features: Tensor, cells: Tensor, eps: float = AREA_EPS) -> Tensor:
    """``masked_average`` over R regions (n, R, h, w) at once, as one matrix product an item: (n, R, C)."""
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)  # a view of a channels-last map
    totals = torch.bmm(cells.flatten(2).to(rows.dtype), rows)
    return totals / (cells.flatten(2).sum(dim=2, keepdim=True) + eps)
