"""The feature processing module's merge: a map, its guide vectors and its prior, at every scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.ops.in_place import plus
from fewseg.ops.resize import resize


def bin_size(scale: float, size: tuple[int, int]) -> tuple[int, int]:
    """Cells of one pyramid scale: above 1 a side in cells, a float up to 1 a fraction of the map's own side.

    Args:
        scale: e.g. 60 (PFENet's first bin; may exceed the map) or 0.5.
        size: (h, w) of the map.

    Returns:
        (h_b, w_b), at least 1 each.
    """
    if isinstance(scale, float) and scale <= 1.0:
        return max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    return int(scale), int(scale)


class GuideMerge(nn.Module):
    """At each scale b: 1x1 convolution of concat(map_b, expanded vectors, prior_b), then ReLU.

    Source: PFENet (Tian et al. 2020), Eq. 6, with one support vector; SCL (Zhang et al. 2021), Eq. 2 and
    11, with two. The weight is that of the convolution over the concatenation, but an expanded vector is
    constant over cells: its share is one matrix product an image instead of one a cell.

    Args:
        channels: d.
        vectors: V, guide vectors concatenated.
        prior_channels: channels of the prior map (0 for none).
        scales: pyramid scales, see ``bin_size``.
    """

    def __init__(self, channels: int, *, vectors: int, prior_channels: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.channels = channels
        self.scales = tuple(scales)
        width = channels * (1 + vectors) + prior_channels
        convs = [nn.Conv2d(width, channels, 1, bias=False) for _ in self.scales]
        self.convs: Iterable[nn.Conv2d] = nn.ModuleList(convs)  # type: ignore[assignment]

    def forward(self, maps: Tensor, vectors: Tensor, prior: Tensor) -> list[Tensor]:
        """Merges at every scale.

        Args:
            maps: (n, d, h, w), or (1, d, h, w) for one map under n guides: its share is computed once.
            vectors: (n, V, d).
            prior: (n, P, h, w), P may be 0.

        Returns:
            One (n, d, h_b, w_b) a scale.
        """
        d = self.channels
        guide = vectors.flatten(1)
        merged = []
        for scale, conv in zip(self.scales, self.convs, strict=True):
            size = bin_size(scale, (maps.shape[-2], maps.shape[-1]))
            weight = conv.weight
            own, shared, rest = weight.split([d, guide.shape[1], weight.shape[1] - d - guide.shape[1]], dim=1)
            pooled = maps if size == tuple(maps.shape[-2:]) else F.adaptive_avg_pool2d(maps, size)
            out = F.conv2d(pooled, own) + F.linear(guide, shared.flatten(1))[..., None, None]
            if rest.shape[1]:
                out = plus(out, F.conv2d(resize(prior, size), rest))
            merged.append(F.relu_(out))
        return merged
