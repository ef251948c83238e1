"""PFENet's decoder after the merge: top-down enrichment over scales, deep supervision, classifier."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.ops.in_place import plus
from fewseg.ops.pointwise import pointwise
from fewseg.ops.resize import resize


@dataclass(frozen=True, kw_only=True)
class PyramidOutput:
    """What the pyramid says.

    Attributes:
        logits: (n, 2, h, w), background first.
        inner: one (n, 2, h_b, w_b) a scale, for deep supervision; empty when not asked for.
        levels: the enriched maps, each (n, d, h, w).
    """

    logits: Tensor
    inner: tuple[Tensor, ...]
    levels: tuple[Tensor, ...]


def _conv(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.ReLU(inplace=True)]


def _classifier(channels: int, dropout: float) -> nn.Sequential:
    head = nn.Conv2d(channels, 2, 1)
    return nn.Sequential(*_conv(channels, channels, 3), nn.Dropout2d(dropout), head)


class PyramidTrunk(nn.Module):
    """Everything after the merge, shared by query and support.

    At each scale: 1x1 convolution of concat(merged, previous scale) added to merged; two 3x3 convolutions
    as a residual; an inner classifier. All scales at full size are concatenated, reduced by a 1x1
    convolution, refined by a residual of two 3x3 convolutions and classified. A scale reaches the next one
    by way of the full size, as PFENet's own code has it (its paper does not say).

    Source: PFENet (Tian et al. 2020), Sec. 3.3, Eq. 7-9.

    Args:
        channels: d.
        scales: number of scales.
        dropout: Dropout2d probability in the classifiers.
    """

    def __init__(self, channels: int, *, scales: int, dropout: float = 0.1) -> None:
        super().__init__()
        d = channels
        self.top_down = nn.ModuleList(nn.Sequential(*_conv(2 * d, d, 1)) for _ in range(scales - 1))
        self.refine = nn.ModuleList(nn.Sequential(*_conv(d, d, 3), *_conv(d, d, 3)) for _ in range(scales))
        self.inner = nn.ModuleList(_classifier(d, dropout) for _ in range(scales))
        self.reduce = nn.Sequential(*_conv(scales * d, d, 1))
        self.residual = nn.Sequential(*_conv(d, d, 3), *_conv(d, d, 3))
        self.classifier = _classifier(d, dropout)

    def forward(
        self,
        merged: Sequence[Tensor],
        size: tuple[int, int],
        *,
        deep: bool,
        previous: Sequence[Tensor] | None = None,
    ) -> PyramidOutput:
        """Decodes merged maps.

        Args:
            merged: one (n, d, h_b, w_b) a scale, first scale first.
            size: (h, w) of the result.
            deep: also compute the inner classifiers' logits (training).
            previous: levels of an earlier pass to take in the top-down step instead of this pass's own
                (the released second support pass of SCL).

        Returns:
            Logits, inner logits and levels.
        """
        levels: list[Tensor] = []
        inner: list[Tensor] = []
        reduced: list[Tensor] = []
        above = levels if previous is None else previous
        for b, maps in enumerate(merged):
            if b > 0:
                carried = resize(above[b - 1], (maps.shape[-2], maps.shape[-1]))
                maps = plus(self.top_down[b - 1](torch.cat([maps, carried], dim=1)), maps)
            maps = plus(self.refine[b](maps), maps)
            if deep:
                inner.append(self.inner[b](maps))
            levels.append(resize(maps, size))
            reduced.append(self._reduced(b, levels[b]))
        trunk = F.relu_(functools.reduce(plus, reduced))
        trunk = plus(self.residual(trunk), trunk)
        return PyramidOutput(logits=self.classifier(trunk), inner=tuple(inner), levels=tuple(levels))

    def _reduced(self, b: int, maps: Tensor) -> Tensor:
        """What scale b adds to the 1x1 convolution over all scales, (n, d, h, w) before its ReLU.

        Resized first: the other order is cheaper and the same but for rounding, which is then beyond what the
        released tensors allow.
        """
        d, conv = maps.shape[1], self.reduce[0]
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight[:, b * d : (b + 1) * d]
        return pointwise(maps, weight.flatten(1))
