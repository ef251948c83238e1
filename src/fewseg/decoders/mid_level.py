"""The mid-level feature of the PFENet family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.types import Features


class MidLevel(nn.Sequential):
    """concat of backbone levels -> 1x1 convolution to d channels, ReLU, Dropout2d.

    Source: PFENet (Tian et al. 2020), Sec. 4; query and support have one each.

    Args:
        in_channels: summed channels of ``levels``.
        channels: d.
        levels: backbone levels in the order of concatenation.
        dropout: Dropout2d probability.
    """

    def __init__(self, in_channels: int, channels: int, levels: tuple[str, ...], dropout: float) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.ReLU(inplace=True), nn.Dropout2d(dropout)
        )
        self.levels = levels

    def of(self, features: Features) -> Tensor:
        """Returns (n, d, h, w)."""
        maps = torch.cat([features[level] for level in self.levels], dim=1)
        out: Tensor = self(maps)
        return out
