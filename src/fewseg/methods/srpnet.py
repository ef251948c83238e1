"""SRPNet: a pyramid feature, prototypes by fidelity, self-regularised training, iterative query inference.

Source: SRPNet (Ding, Zhang and Jiang, Pattern Recognition 2022), Sec. 3.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import reduce
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import MethodConfig
from fewseg.methods.fusion import IterativeInference, PrototypeFusion
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.prototypical import Fidelity, Metric, Prototypes, PrototypeSegmenter
from fewseg.methods.registry import register_method
from fewseg.ops.resize import resize
from fewseg.types import EncodedEpisodes, Features, LossTerms, check_above, check_at_least


def _trained_backbone() -> BackboneConfig:
    levels = ("stem", "layer1", "layer2", "layer3", "layer4")
    return BackboneConfig(levels=levels, trainable=True)


@dataclass(frozen=True, kw_only=True)
class SRPNetConfig(MethodConfig):
    """SRPNet's parts and sizes.

    Attributes:
        backbone: trained end to end; batch-norm keeps its ImageNet statistics (a batch is one episode).
        levels: levels of the pyramid feature.
        grid: the grid that they are brought to: "largest" is that of the largest map (Sec. 3.2; stride 4 in
            a ResNet), a level's name that of its own: "layer3" (stride 8) is for small machines.
        channels: width of the pyramid feature.
        metric: fidelity; cosine is the paper's baseline "Cos".
        alpha: amplification factor of Eq. 3 and 8. The paper gives no value; 20 is PANet's.
        support_weight: w_s of Eq. 11; 0 is the model without SRP.
        query_weight: w_q of Eq. 11.
        fusion: iterated prototypes (IQI), or the mean prototypes alone.

    Raises:
        ValueError: a level is not the backbone's, ``grid`` is neither "largest" nor one of ``levels``, alpha
            is not above 0, or a loss weight is below 0.
    """

    backbone: BackboneConfig = field(default_factory=_trained_backbone)
    levels: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
    grid: str = "largest"
    channels: int = 512
    metric: Metric = field(default_factory=Fidelity)
    alpha: float = 20.0
    support_weight: float = 1.0
    query_weight: float = 1.0
    fusion: PrototypeFusion = field(default_factory=IterativeInference)

    def __post_init__(self) -> None:
        self.backbone.check_gives(self.levels)
        check_above(self, 0, "alpha")
        if self.grid not in ("largest", *self.levels):
            raise ValueError(
                f"grid must be 'largest' or one of the pyramid's levels {self.levels}, got {self.grid!r}"
            )
        check_at_least(self, 0, "support_weight", "query_weight")


@register_method("srpnet", SRPNetConfig)
class SRPNet(PrototypeSegmenter):
    """SRPNet for any N and K; see the module's docstring for the source."""

    config: SRPNetConfig

    def __init__(self, config: SRPNetConfig) -> None:
        super().__init__(config)
        self.metric, self.alpha = config.metric, config.alpha
        width = self.backbone.width(config.levels)
        self.pyramid = nn.Conv2d(width, config.channels, kernel_size=1)

    def embed_maps(self, features: Features) -> Tensor:
        """The maps of all levels on one grid, concatenated and reduced (Sec. 3.2)."""
        levels = self.config.levels
        sizes = {level: (int(features[level].shape[-2]), int(features[level].shape[-1])) for level in levels}
        grid = sizes.get(self.config.grid) or max(sizes.values(), key=prod)
        weights = self.pyramid.weight.split([features[level].shape[1] for level in levels], dim=1)
        groups: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for level, weight in zip(levels, weights, strict=True):
            size = min(sizes[level], grid, key=prod)
            groups[size].append((resize(features[level], size), weight))
        reduced = []
        for size, members in groups.items():
            # a smaller map is enlarged after the 1x1 convolution: both are linear and commute, at less cost
            joined, weight = (torch.cat(parts, dim=1) for parts in zip(*members, strict=True))
            part = F.conv2d(joined.to(weight.dtype), weight, self.pyramid.bias if size == grid else None)
            reduced.append(resize(part.float(), grid))
        return reduce(torch.add, reduced)

    def added_losses(self, episodes: EncodedEpisodes, pooled: Prototypes, logits: Tensor) -> LossTerms:
        """Self-regularisation: the same prototypes restore the supports' own masks (Eq. 8-11)."""
        weights = {"query": self.config.query_weight, "support": self.config.support_weight}
        if self.config.support_weight == 0:
            return LossTerms(terms={}, weights={"query": weights["query"]})
        support = episodes.support
        cells = self.prepared(support.features)
        restored = self.scores(cells, pooled.vectors.repeat_interleave(support.shots, dim=0))
        loss = cross_entropy_full_size(restored, support.masks.flatten(0, 1))
        return LossTerms(terms={"support": loss}, weights=weights)
