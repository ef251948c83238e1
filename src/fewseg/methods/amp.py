"""AMP: proxies of each class at several resolutions, imprinted as the weights of a classifier.

Source: AMP (Siam et al., ICCV 2019; arXiv 1902.11123), Sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.fusion import MeanVector, PrototypeFusion
from fewseg.methods.matcher import Matcher, MatcherConfig
from fewseg.methods.prototypical import EMBEDDING, Cosine, UnitVectors, dot_products
from fewseg.methods.registry import register_method
from fewseg.types import Features


def imprinted_scores(cells: Tensor, proxies: Tensor, widths: tuple[int, ...]) -> Tensor:
    """The mean over the levels of each cell's cosine with each proxy: (n, P, h, w).

    Every level's part of a proxy has unit length, as its own 1x1 convolution; their scores are added.

    Source: AMP (Siam et al. 2019), Eq. 1-2 (the normalised proxy) and Fig. 2 (scores added over resolutions).

    Args:
        cells: (n, C, h, w), the levels side by side, each of unit length.
        proxies: (n, P, C).
        widths: of the levels, C in all.
    """
    unit = torch.cat([UnitVectors().start(part) for part in proxies.split(widths, dim=2)], dim=2)
    return dot_products(cells, unit) / len(widths)


@dataclass(frozen=True, kw_only=True)
class AMPConfig(MatcherConfig):
    """AMP's parts; see ``MatcherConfig`` for the fields that are not listed.

    Attributes:
        backbone: the frozen trunk; the paper's is trained on the base classes.
        levels: the resolutions.
        metric: the cosine, level by level.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(name="vgg16", levels=("layer2", "layer3", "layer4"))
    )
    levels: tuple[str, ...] = ("layer2", "layer3", "layer4")
    metric: Cosine = field(default_factory=Cosine)
    fusion: PrototypeFusion = field(default_factory=MeanVector)


@register_method("amp", AMPConfig)
class AMP(Matcher):
    """Scores every level on its own, so that none outweighs the others, and adds the scores.

    Deviations: the backbone is what the config names, frozen on ImageNet, where the paper trains an FCN-8s
    on the base classes; the background's proxy is imprinted from the supports alone, where the paper moves
    the base classes' background weights towards it (alpha of Eq. 3): without base training there are none.
    """

    config: AMPConfig

    def prepared(self, features: Features) -> Tensor:
        """The levels side by side, each of unit length."""
        return self.embed(features)[EMBEDDING]

    def scores(self, prepared: Tensor, prototypes: Tensor) -> Tensor:
        """Alpha times the scores added over the levels, (n, 1 + N, h, w)."""
        widths = tuple(self.backbone.channels[level] for level in self.config.levels)
        return self.alpha * imprinted_scores(prepared, prototypes, widths)
