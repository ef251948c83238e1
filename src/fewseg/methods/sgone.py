"""SG-One: the cosine to a pooled support vector guides the segmentation of the query.

Source: SG-One (Zhang et al., IEEE Transactions on Cybernetics 2020; arXiv 1810.09091), Sec. III.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.fusion import MeanVector, PairFusion
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_averages
from fewseg.ops.resize import pixels_to_cells
from fewseg.ops.similarity import unit_cells
from fewseg.types import Features, Guides, QueryMaps


@dataclass(frozen=True, kw_only=True)
class SGOneConfig(PairConfig):
    """SG-One's parts and sizes.

    Attributes:
        backbone: the stem that both branches share, VGG-16 up to its third pool; trained end to end.
        level: the level that both branches take.
        channels: width of both branches.
        fusion: how K shots become one answer; the paper compares the mean of the guidance vectors, which is
            the default, with the largest of the K scores, which is not offered.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(name="vgg16", levels=("layer2",), trainable=True)
    )
    level: str = "layer2"
    channels: int = 128
    fusion: PairFusion = field(default_factory=MeanVector)


def _conv(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True))


@register_method("sgone", SGOneConfig)
class SGOne(PairScorer):
    """SG-One for any K; see the module's docstring for the source.

    The guidance branch turns a support into the average of its features over the mask, and the query into
    the cosine of each cell with that vector. The segmentation branch takes the guidance features in, is
    multiplied by these cosines and classifies each cell.
    """

    config: SGOneConfig

    def __init__(self, config: SGOneConfig) -> None:
        super().__init__(config)
        width, d = self.backbone.width((config.level,)), config.channels
        self.guidance = nn.Sequential(_conv(width, d), _conv(d, d), nn.Conv2d(d, d, 3, padding=1))
        self.entry = _conv(width, d)
        self.joined = _conv(2 * d, d)
        self.classifier = nn.Sequential(_conv(d, d), nn.Conv2d(d, 2, 1))

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Masked average pooling at the masks' size: one guidance vector a shot (n, 1, d)."""
        maps = self.guidance(features[self.config.level])
        cells = pixels_to_cells((masks == 1).to(maps.dtype), (maps.shape[-2], maps.shape[-1]))
        return Guides(maps={"vectors": masked_averages(maps, cells)})

    def encode_query(self, features: Features) -> QueryMaps:
        """The segmentation branch's map, and the guidance branch's with cells of unit length."""
        stem = features[self.config.level]
        guidance = self.guidance(stem)
        mid = self.joined(torch.cat([self.entry(stem), guidance], dim=1))
        return QueryMaps(mid=mid, maps={"guidance": unit_cells(guidance)})

    def similarity(self, query: QueryMaps, guides: Guides) -> Tensor:
        """The cosine (n, 1, h, w) of every query cell with the guidance vector."""
        vectors = F.normalize(guides["vectors"][:, 0], dim=1)
        return (query.maps["guidance"] * vectors[..., None, None]).sum(dim=1, keepdim=True)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        logits: Tensor = self.classifier(query.mid * self.similarity(query, guides).to(query.mid.dtype))
        return logits
