"""PANet: cosine prototypes with prototype alignment in training.

Source: PANet (Wang et al., ICCV 2019), Sec. 3.4, Eq. 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import MethodConfig
from fewseg.methods.fusion import MeanVector, PrototypeFusion
from fewseg.methods.losses import cross_entropy_each
from fewseg.methods.prototypical import (
    EMBEDDING,
    PIXEL_EPS,
    Cosine,
    Metric,
    Prototypes,
    PrototypeSegmenter,
)
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.types import IGNORE, EncodedEpisodes, Features, LossTerms, check_above

Score = Callable[[Tensor, Tensor], Tensor]
"""Maps (n, C, h, w) and prototypes (n, P, C) -> logits (n, P, h, w)."""


@dataclass(frozen=True, kw_only=True)
class PrototypeAlignment:
    """The alignment loss is added to the query's."""

    kind: Literal["alignment"] = "alignment"
    weight: float = 1.0  # lambda of Eq. 7.


@dataclass(frozen=True, kw_only=True)
class NoAlignment:
    """The query's loss alone (PANet's ablation)."""

    kind: Literal["none"] = "none"


Alignment = PrototypeAlignment | NoAlignment


def alignment_loss(
    query: Tensor,
    logits: Tensor,
    support: Tensor,
    masks: Tensor,
    way_of: Sequence[int],
    score: Score,
    *,
    align_corners: bool = True,
) -> Tensor:
    """L_PAR (B,): query prototypes, pooled over the predicted masks, segment each support image.

    Each support is a two-class problem of its way against the background; pixels of other ways are left
    out. A way that no query cell is predicted to be has no prototype and adds no loss. Query maps are
    (B, Q, C, h, w) with logits (B, Q, 1 + N, h, w), support maps (B, S, C, h, w) with masks (B, S, H, W).

    Source: PANet (Wang et al., ICCV 2019), Eq. 6; the labels at cell resolution are the released code's.
    """
    predicted = logits.argmax(dim=2)
    ways = logits.shape[2] - 1
    classes = torch.stack([_query_prototype(query, predicted == j) for j in range(1 + ways)], dim=1)
    exists = (predicted.unsqueeze(2) == torch.arange(1 + ways, device=query.device).view(1, 1, -1, 1, 1)).any(
        dim=(1, 3, 4)
    )  # fmt: skip
    per_way = []
    for j in range(1, 1 + ways):
        places = [s for s, w in enumerate(way_of) if w == j]
        pair = classes[:, [0, j]].repeat_interleave(len(places), dim=0)
        binary = _against_background(masks[:, places].flatten(0, 1), j)
        restored = score(support[:, places].flatten(0, 1), pair)
        loss = cross_entropy_each(restored, binary, align_corners=align_corners)
        per_way.append(loss.view(len(query), -1).mean(dim=1) * exists[:, j])
    return torch.stack(per_way).sum(dim=0) / ways


def _query_prototype(query: Tensor, inside: Tensor) -> Tensor:
    """Mean (B, C) over the predicted cells (B, Q, h, w) of all queries of an episode."""
    maps = query.transpose(1, 2).flatten(3)  # the cells of all queries as one long row of cells
    return masked_average(maps, inside.flatten(2).unsqueeze(1).to(maps.dtype), PIXEL_EPS)


def _against_background(masks: Tensor, way: int) -> Tensor:
    """Labels 1 where the way is, 0 where the background is, 255 elsewhere."""
    binary = torch.full_like(masks, IGNORE)
    binary[masks == way] = 1
    binary[masks == 0] = 0
    return binary


def _trained_backbone() -> BackboneConfig:
    return BackboneConfig(name="vgg16", levels=("layer4",), trainable=True, last_relu=False)


@dataclass(frozen=True, kw_only=True)
class PANetConfig(MethodConfig):
    """PANet's parts.

    Attributes:
        backbone: trained end to end; VGG-16 without its last ReLU (released code), or a ResNet.
        level: the level that is compared.
        metric: cosine.
        alpha: amplification of the cosine (Eq. 3).
        alignment: the alignment loss, or none (the paper's ablation).
        align_corners: how maps are resized; False is the released code's.
        fusion: the mean of the shots' prototypes.
    """

    backbone: BackboneConfig = field(default_factory=_trained_backbone)
    level: str = "layer4"
    metric: Metric = field(default_factory=Cosine)
    alpha: float = 20.0
    alignment: Alignment = field(default_factory=PrototypeAlignment)
    align_corners: bool = True
    fusion: PrototypeFusion = field(default_factory=MeanVector)

    def __post_init__(self) -> None:
        self.backbone.check_gives((self.level,))
        check_above(self, 0, "alpha")


@register_method("panet", PANetConfig)
class PANet(PrototypeSegmenter):
    """PANet for any N and K; see the module's docstring for the source."""

    config: PANetConfig

    def __init__(self, config: PANetConfig) -> None:
        super().__init__(config)
        self.metric, self.alpha = config.metric, config.alpha
        self.align_corners = config.align_corners

    def embed_maps(self, features: Features) -> Tensor:
        """The backbone's map, unchanged."""
        return features[self.config.level]

    def added_losses(self, episodes: EncodedEpisodes, pooled: Prototypes, logits: Tensor) -> LossTerms:
        """The alignment loss (Eq. 6-7)."""
        del pooled
        alignment, support = self.config.alignment, episodes.support
        if isinstance(alignment, NoAlignment):
            return LossTerms(terms={})

        def score(maps: Tensor, prototypes: Tensor) -> Tensor:
            return self.scores(self.metric.prepare(maps), prototypes)

        loss = alignment_loss(
            episodes.query[EMBEDDING].unsqueeze(1),
            logits.unsqueeze(1),
            support.features[EMBEDDING].unflatten(0, (-1, support.shots)),
            support.masks,
            support.way_of,
            score,
            align_corners=self.align_corners,
        ).mean()
        return LossTerms(terms={"alignment": loss}, weights={"alignment": alignment.weight})
