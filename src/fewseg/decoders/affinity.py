"""SD-AANet's supervised affinity attention: where in a map is what the prototype stands for?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.decoders.dense_comparison import GuidedConv
from fewseg.ops.resize import resize

POOLS = (1, 2, 3, 6)
"""Sides of the pyramid pooling's grids (PSPNet)."""


class LossNorm(nn.BatchNorm2d):
    """Batch-norm whose statistics are learned where losses are computed, and only read where one segments.

    A plain one would change with every query that a model in training mode segments. Where a channel has one
    value only (the 1 x 1 pool of a single image) there is nothing to learn, and the stored ones serve.
    """

    def forward(self, maps: Tensor, *, learn: bool = False) -> Tensor:
        """Normalises.

        Args:
            maps: (n, C, h, w).
            learn: normalise by this batch and update the stored statistics.

        Returns:
            (n, C, h, w).
        """
        several = maps.numel() > maps.shape[1]
        return F.batch_norm(
            maps,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=learn and several,
            momentum=self.momentum if self.momentum is not None else 0.1,
            eps=self.eps,
        )


class PyramidPooling(nn.Module):
    """Pools at several grids, 1x1 convolution, norm, ReLU; joined with the map by a 3x3 convolution.

    Source: PSPNet (Zhao et al. 2017), in SD-AANet (Zhao et al. 2022), Sec. III-C2.

    Args:
        in_channels: of the map.
        channels: d, of each pooled map and of the result.
        pools: sides of the grids.
    """

    def __init__(self, in_channels: int, channels: int, pools: Sequence[int] = POOLS) -> None:
        super().__init__()
        self.pools = tuple(pools)
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, channels, 1, bias=False) for _ in self.pools)
        self.norms = nn.ModuleList(LossNorm(channels) for _ in self.pools)
        width = in_channels + len(self.pools) * channels
        self.bottleneck = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        self.bottleneck_norm = LossNorm(channels)

    def forward(self, maps: Tensor, *, learn: bool) -> Tensor:
        """Returns (n, d, h, w) of maps (n, C, h, w); see ``LossNorm`` for ``learn``."""
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        joined = [maps]
        for pool, conv, norm in zip(self.pools, self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(F.adaptive_avg_pool2d(maps, pool)), learn=learn))
            joined.append(resize(pooled, size))
        found = self.bottleneck(torch.cat(joined, dim=1))
        return F.relu(self.bottleneck_norm(found, learn=learn))


class AffinityModule(nn.Module):
    """3x3 convolution of concat(map, prototype) to 4 d, ReLU, pyramid pooling, and a 1x1 head for each use.

    The support's head segments the support, which supervises the module; the query's gives the attention,
    one linear channel. Features go in as they are before any gate.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-C and Fig. 7.

    Args:
        channels: d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, 4 * channels, vectors=1)
        self.pyramid = PyramidPooling(4 * channels, channels)
        self.support_head = nn.Conv2d(channels, 2, 1)
        self.query_head = nn.Conv2d(channels, 1, 1)

    def _affinity(self, maps: Tensor, prototypes: Tensor, learn: bool) -> Tensor:
        found: Tensor = self.pyramid(F.relu(self.conv(maps, prototypes.unsqueeze(1))), learn=learn)
        return found

    def support_logits(self, maps: Tensor, prototypes: Tensor, *, learn: bool) -> Tensor:
        """The support's own segmentation.

        Args:
            maps: (n, d, h, w) support features.
            prototypes: (n, d), each shot's own.
            learn: see ``LossNorm``.

        Returns:
            Logits (n, 2, h, w), background first.
        """
        logits: Tensor = self.support_head(self._affinity(maps, prototypes, learn))
        return logits

    def query_map(self, maps: Tensor, prototypes: Tensor, *, learn: bool) -> Tensor:
        """The query's attention.

        Args:
            maps: (n, d, h, w) query features, or (1, d, h, w) for one query.
            prototypes: (n, d), the mean over the shots.
            learn: see ``LossNorm``.

        Returns:
            (n, 1, h, w), any real number.
        """
        attention: Tensor = self.query_head(self._affinity(maps, prototypes, learn))
        return attention
