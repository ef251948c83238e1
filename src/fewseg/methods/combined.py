"""Combined: SCL on PFENet with SD-AANet's attention and a prototype score beside the decoder's answer.

Sources: SCL (Zhang et al. 2021), Sec. 4.2; SD-AANet (Zhao et al. 2022), Sec. III-C; PANet (Wang et al. 2019),
Eq. 1 to 3, for the prototype score. Joining them is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fewseg.methods.layers import PyramidOutput
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.prototypical import Cosine, Fidelity, pool_prototypes
from fewseg.methods.registry import register_method
from fewseg.methods.scl import SCLPFENet, SCLPFENetConfig, SupportPass
from fewseg.methods.sdaanet import AttentionConfig, SupervisedAttention
from fewseg.ops.resize import resize
from fewseg.types import Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class PrototypeScore:
    """Alpha times the likeness of each query cell to the prototypes of background and foreground.

    It has no weights, so that it does not learn to reject what base images show as background.

    Source: PANet (Wang et al. 2019), Eq. 1 to 3.

    Attributes:
        level: backbone level whose features are compared.
        metric: how.
        alpha: by how much the likeness is multiplied, 20 in PANet.
    """

    kind: Literal["prototypes"] = "prototypes"
    level: str = "layer3"
    metric: Cosine | Fidelity = field(default_factory=Cosine)
    alpha: float = 20.0

    @property
    def levels(self) -> tuple[str, ...]:
        """Backbone levels that are read."""
        return (self.level,)

    def kept(self, features: Features, masks: Tensor) -> dict[str, Tensor]:
        """The prototypes (n, 2, C) of n shots, background first, of masks (n, H, W)."""
        return {"prototypes": pool_prototypes(features[self.level], masks.unsqueeze(1), (1,)).vectors}

    def query_maps(self, features: Features) -> dict[str, Tensor]:
        """The queries' cells (n, C, h, w), of unit length."""
        return {"cells": self.metric.prepare(features[self.level].float())}

    def scores(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Alpha D (n, 2, h, w) of n guides and n queries, or one that stands with every guide."""
        prototypes = guides["prototypes"]
        cells = query.maps["cells"].expand(len(prototypes), -1, -1, -1)
        return resize(self.alpha * self.metric.compare(cells, prototypes), query.size)


@dataclass(frozen=True, kw_only=True)
class NoPrototypeScore:
    """No prototype score: the decoder answers alone."""

    kind: Literal["none"] = "none"
    levels: ClassVar[tuple[str, ...]] = ()

    def kept(self, features: Features, masks: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        del features, masks
        return {}

    def query_maps(self, features: Features) -> dict[str, Tensor]:
        """Nothing."""
        del features
        return {}

    def scores(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Zero."""
        del guides
        return query.mid.new_zeros(())


@dataclass(frozen=True, kw_only=True)
class CombinedConfig(SCLPFENetConfig):
    """The combined model's parts and sizes; see ``SCLPFENetConfig`` for the fields that are not listed.

    Each part is left out by its own null object, the self-guided vectors by
    ``SelfGuided(vectors=("initial",), losses=("first",))``.

    Attributes:
        attention: SD-AANet's affinity attention, one more channel for the decoder, or none.
        prototypes: the prototype score that is added to the decoder's logits, or none.
        attention_weight: weight of the attention's own loss.
    """

    attention: AttentionConfig = field(default_factory=SupervisedAttention)
    prototypes: PrototypeScore | NoPrototypeScore = field(default_factory=PrototypeScore)
    attention_weight: float = 0.5


@register_method("combined", CombinedConfig)
class Combined(SCLPFENet):
    """SCL on PFENet with attention and prototype score; see the module's docstring for the sources."""

    config: CombinedConfig

    def __init__(self, config: CombinedConfig) -> None:
        super().__init__(config, extra_channels=config.attention.channels)
        config.backbone.check_gives((*config.mid_levels, *config.prototypes.levels))
        self.attention = config.attention.build(config.channels)  # after the parts of SCL, which start alike

    def _guides(self, support: SupportPass, features: Features, masks: Tensor, shots: int = 1) -> Guides:
        guides = super()._guides(support, features, masks, shots)
        more = {"pooled": support.initial} | self.config.prototypes.kept(features, masks)
        return replace(guides, maps={**guides.maps, **more})

    def encode_query(self, features: Features) -> QueryMaps:
        """The maps of SCL on PFENet, and the cells that are compared with prototypes."""
        return replace(super().encode_query(features), maps=self.config.prototypes.query_maps(features))

    def decode(
        self, query: QueryMaps, guides: Guides, prior: Tensor | None = None, *, deep: bool = False
    ) -> PyramidOutput:
        """The decoder's output with the attention among its planes, and the prototype score added."""
        planes = self.prior_map(query, guides) if prior is None else prior
        if self.attention is not None:
            learn = deep and self.training
            attention = self.attention.query_map(query.mid, guides["pooled"], learn=learn)
            planes = torch.cat([planes, attention.to(planes.dtype)], dim=1)
        out = super().decode(query, guides, planes, deep=deep)
        scores = self.config.prototypes.scores(query, guides)
        return replace(out, logits=out.logits + scores.to(out.logits.dtype))

    def added_losses(self, support: SupportPass, masks: Tensor) -> LossTerms:
        """The cross-entropy of the attention's segmentation of the supports (SD-AANet, Eq. 12)."""
        if self.attention is None:
            return super().added_losses(support, masks)
        logits = self.attention.support_logits(support.mid, support.initial, learn=self.training)
        return LossTerms(
            terms={"support_attention": cross_entropy_full_size(logits, masks)},
            weights={"support_attention": self.config.attention_weight},
        )
