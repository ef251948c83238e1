"""The mid-level feature of the PFENet family and of CANet."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.types import Features


class MidLevel(nn.Sequential):
    """concat of backbone levels -> convolution to d channels, ReLU, Dropout2d.

    Source: PFENet (Tian et al. 2020), Sec. 4, with a 1x1 convolution, query and support having one each;
    CANet (Zhang et al. 2019), Sec. 3, with a 3x3 one of dilation 2 and a bias, shared by both.

    Args:
        in_channels: summed channels of ``levels``.
        channels: d.
        levels: backbone levels in the order of concatenation.
        dropout: Dropout2d probability.
        kernel: 1, or 3 with dilation 2 and a bias.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        levels: tuple[str, ...],
        dropout: float,
        *,
        kernel: Literal[1, 3] = 1,
    ) -> None:
        wide = kernel == 3
        conv = nn.Conv2d(in_channels, channels, kernel, padding=2 * wide, dilation=1 + wide, bias=wide)
        super().__init__(conv, nn.ReLU(inplace=True), nn.Dropout2d(dropout))
        self.levels = levels

    def of(self, features: Features) -> Tensor:
        """Returns (n, d, h, w)."""
        maps = torch.cat([features[level] for level in self.levels], dim=1)
        out: Tensor = self(maps)
        return out
