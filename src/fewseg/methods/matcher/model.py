"""Training-free matching: the cosine of each query cell to a foreground and a background prototype.

Source: the non-parametric half of PANet (Wang et al., ICCV 2019, Eq. 1-4) on frozen ImageNet features,
without any training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.fusion import Fusion, MeanVector
from fewseg.methods.base import PairScorer
from fewseg.ops.masks import foreground_cells
from fewseg.ops.pooling import masked_average
from fewseg.types import IGNORE, EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class MatcherConfig:
    """The matcher's parts.

    Attributes:
        backbone: the frozen trunk.
        levels: levels that are compared, each scaled to unit length a cell and then concatenated.
        alpha: factor of the cosines (20 as in PANet); sharpens probabilities, never changes the mask.
        fusion: how K shots become one answer; the mean of prototypes by default.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    levels: tuple[str, ...] = ("layer3", "layer2")
    alpha: float = 20.0
    fusion: Fusion = field(default_factory=MeanVector)

    def build(self) -> Matcher:
        """Builds the matcher; it has no parameters but the backbone's."""
        return Matcher(self)


class Matcher(PairScorer):
    """Compares query cells with two prototypes a guide: background, then foreground."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = config.fusion
        self.backbone = config.backbone.build()

    def _map(self, features: Features) -> Tensor:
        return torch.cat([F.normalize(features[level], dim=1) for level in self.config.levels], dim=1)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Background and foreground prototype of each shot; ignored pixels belong to neither."""
        maps = self._map(features)
        size = (maps.shape[-2], maps.shape[-1])
        foreground = foreground_cells(masks, size, maps.dtype)
        outside = torch.where(masks == IGNORE, IGNORE, (masks == 0).to(masks.dtype))
        background = foreground_cells(outside, size, maps.dtype)
        vectors = torch.stack([masked_average(maps, background), masked_average(maps, foreground)], dim=1)
        n = vectors.shape[0]
        return Guides(
            vectors=vectors,
            keys=vectors.new_zeros(n, 1, 0, 0),
            valid=torch.zeros(n, 1, 0, dtype=torch.bool, device=vectors.device),
        )

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's compared map, each cell of unit length."""
        maps = F.normalize(self._map(features), dim=1)
        return QueryMaps(mid=maps, prior=maps.new_zeros(maps.shape[0], 0, 1, 1))

    def score(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Scaled cosines (n, 2, h, w), background first."""
        vectors = F.normalize(guides.vectors, dim=2).to(query.mid.dtype)
        cells = query.mid.flatten(2)
        cosines = torch.bmm(vectors, cells.expand(len(vectors), -1, -1))  # item by item
        scores: Tensor = self.config.alpha * cosines.unflatten(2, query.size)
        return scores

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Always raises: there is nothing to train.

        Raises:
            ValueError: always.
        """
        raise ValueError("the matcher has nothing to train: evaluate it as it is")
