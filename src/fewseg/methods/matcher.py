"""Matcher: each query cell goes to the nearest of the prototypes of frozen features, without training.

Source: the non-parametric half of PANet (Wang et al., ICCV 2019, Eq. 1-4) on ImageNet features, without any
training; with the metric and the iteration of SRPNet (Ding et al. 2022) as parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.fusion import MeanVector, PrototypeFusion
from fewseg.methods.prototypical import Cosine, Metric, PrototypeSegmenter
from fewseg.methods.registry import register_method
from fewseg.ops.resize import resize
from fewseg.types import Features, check_above


@dataclass(frozen=True, kw_only=True)
class MatcherConfig(MethodConfig):
    """The matcher's parts.

    Attributes:
        backbone: the frozen trunk, any that timm has and fewseg knows.
        levels: levels that are compared, each scaled to unit length a cell and then concatenated on the
            grid of the first.
        metric: cosine, fidelity or squared Euclidean.
        alpha: factor of the metric (20 as in PANet); sharpens probabilities, never changes the mask of one
            set of prototypes.
        fusion: mean prototypes, or iterated ones.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    levels: tuple[str, ...] = ("layer3", "layer2")
    metric: Metric = field(default_factory=Cosine)
    alpha: float = 20.0
    fusion: PrototypeFusion = field(default_factory=MeanVector)

    def __post_init__(self) -> None:
        self.backbone.check_gives(self.levels)
        check_above(self, 0, "alpha")


@register_method("matcher", MatcherConfig)
class Matcher(PrototypeSegmenter):
    """Compares query cells with the prototypes of the background and of every way."""

    config: MatcherConfig

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__(config)
        self.metric, self.alpha = config.metric, config.alpha

    training_losses = FewShotSegmenter.training_losses  # there is nothing to train

    def embed_maps(self, features: Features) -> Tensor:
        """The levels, each of unit length, side by side."""
        first = features[self.config.levels[0]]
        size = (int(first.shape[-2]), int(first.shape[-1]))
        maps = [resize(F.normalize(features[level].float(), dim=1), size) for level in self.config.levels]
        return torch.cat(maps, dim=1)
