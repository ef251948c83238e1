"""CANet's dense comparison of a map with guide vectors, and its attention over shots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GuidedConv(nn.Conv2d):
    """A 3x3 convolution of concat(map, expanded vectors).

    Weight and result are those of the convolution over the concatenation. An expanded vector is constant
    over the cells but for the zeros beyond the border: its share is one matrix product an image for each of
    the nine taps, switched off where a tap lies outside, instead of a convolution.

    Args:
        channels: d, of the map and of each vector.
        out_channels: of the result.
        vectors: V, vectors concatenated behind the map.
        dilation: of the 3x3 convolution; the padding is equal, so that the size stays.
    """

    def __init__(self, channels: int, out_channels: int, *, vectors: int, dilation: int = 1) -> None:
        super().__init__(channels * (1 + vectors), out_channels, 3, padding=dilation, dilation=dilation)
        self.channels = channels

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:  # type: ignore[override]
        """Convolves.

        Args:
            maps: (n, d, h, w), or (1, d, h, w) for one map under n guides: its share is computed once.
            vectors: (n, V, d).

        Returns:
            (n, out_channels, h, w).
        """
        own, rest = self.weight[:, : self.channels], self.weight[:, self.channels :]
        size = maps.shape[-2:]
        padding, dilation = self.padding, self.dilation
        assert isinstance(padding, tuple)
        shared = F.conv2d(maps, own, self.bias, padding=padding, dilation=dilation)
        taps = F.linear(vectors.flatten(1), rest.permute(0, 2, 3, 1).flatten(0, 2))
        inside = F.unfold(maps.new_ones(1, 1, *size), 3, padding=padding, dilation=dilation)[0]
        constant = taps.unflatten(1, (-1, 9)) @ inside.to(taps.dtype)
        out: Tensor = shared + constant.unflatten(2, size)
        return out


class DenseComparison(nn.Module):
    """Compares every cell with the guide vectors: 3x3 convolution of dilation 2 to d, ReLU, Dropout2d.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.2, with one vector; SCL (Zhang et al. 2021), Eq. 2 and 11
    on CANet, with two. The dilation is that of the released SCL code.

    Args:
        channels: d.
        vectors: V, guide vectors of one guide.
        dropout: Dropout2d probability.
    """

    def __init__(self, channels: int, *, vectors: int, dropout: float) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, channels, vectors=vectors, dilation=2)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Returns (n, d, h, w) of maps (n or 1, d, h, w) and vectors (n, V, d)."""
        out: Tensor = self.dropout(F.relu(self.conv(maps, vectors)))
        return out


class ShotWeights(nn.Module):
    """How much each of K shots says about a query: a branch parallel to the dense comparison.

    Two blocks: a 3x3 convolution to d channels with 3x3 max pooling, and a 3x3 convolution to one channel
    with global average pooling; then softmax over the shots. Where the paper is silent (activation, stride
    of the pooling) this takes a ReLU and a stride of 1, so that small maps serve too.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.4.

    Args:
        channels: d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, channels, vectors=1)
        self.weigh = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, maps: Tensor, vectors: Tensor, shots: int) -> Tensor:
        """Weighs shots.

        Args:
            maps: (n * K, d, h, w), or (1, d, h, w) for one query.
            vectors: (n * K, 1, d), the shot running fastest.
            shots: K.

        Returns:
            (n, K), each row summing to 1.
        """
        compared = F.max_pool2d(F.relu(self.conv(maps, vectors)), 3, stride=1, padding=1)
        strength: Tensor = self.weigh(compared).mean(dim=(1, 2, 3))
        return strength.view(-1, shots).softmax(dim=1)


def weighted_shots(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over shots: (n * K, d, h, w) and (n, K) to (n, d, h, w)."""
    each = maps.unflatten(0, (weights.shape[0], weights.shape[1]))
    return torch.einsum("nkdhw,nk->ndhw", each, weights.to(maps.dtype))
