"""PFENet: a training-free prior map and a multi-scale enriched query feature.

Source: PFENet (Tian et al., TPAMI 2020), the baseline of SCL and of SD-AANet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.fusion import MeanVector, PairFusion
from fewseg.methods.layers import (
    GuidedQuery,
    MidLevel,
    PriorConfig,
    PriorMap,
    PyramidOutput,
    PyramidTrunk,
    Rounding,
)
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(PairConfig):
    """The parts and sizes of the query path of PFENet; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        prior: the prior map or none.
        scales: pyramid scales: above 1 sides in cells (60, 30, 15, 8 for 473 px), floats up to 1 fractions
            of the map's side.
        rounding: of fractional scales to cells: "down" is the released code's.
        deep_weight: weight of the inner classifiers' mean cross-entropy.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d in the classifiers.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer3", "layer2")
    prior: PriorConfig = field(default_factory=PriorMap)
    scales: tuple[float, ...] = (60, 30, 15, 8)
    rounding: Rounding = field(default="down", metadata={"before": "nearest"})
    deep_weight: float = 1.0
    mid_dropout: float = 0.5
    head_dropout: float = 0.1


class PyramidScorer(PairScorer):
    """The layers that PFENet shares with the methods that extend it, and its query path.

    Args:
        config: its parts and sizes.
        vectors: guide vectors of a shot.
        extra_channels: planes that the decoder gets beside the prior map.
    """

    config: PyramidConfig

    def __init__(self, config: PyramidConfig, *, vectors: int = 1, extra_channels: int = 0) -> None:
        super().__init__(config)
        config.backbone.check_gives((*config.mid_levels, *config.prior.levels))
        d, width = config.channels, self.backbone.width(config.mid_levels)
        self.mid_support = MidLevel(width, d, config.mid_levels, config.mid_dropout)
        self._add_branch()
        self.query = GuidedQuery(
            MidLevel(width, d, config.mid_levels, config.mid_dropout),
            channels=d,
            vectors=vectors,
            prior=config.prior,
            scales=config.scales,
            rounding=config.rounding,
            extra_channels=extra_channels,
        )
        self.trunk = PyramidTrunk(d, scales=len(config.scales), dropout=config.head_dropout)

    def _add_branch(self) -> None:
        """Adds a support path whose initial values are drawn before the query's; none in PFENet."""

    @property
    def query_levels(self) -> tuple[str, ...]:  # type: ignore[override]
        """The prior's level where the supports' is run again on the masked map below it."""
        prior, mid = self.query.prior, self.config.mid_levels
        if not isinstance(prior, PriorMap) or prior.masked_input is None or prior.level in mid:
            return ()
        return (prior.level,)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature and the map that its prior compares."""
        return self.query.encode(features)

    def prior_keys(self, features: Features, masks: Tensor, shots: int = 1) -> tuple[Tensor, Tensor]:
        """The prior's keys of B * K shots, masks (B * K, H, W), and their validity; see ``PriorMap.keys``.

        Where the trunk's batch-norm learns, its last stage runs again on the K shots one after another, as
        in the released code.
        """

        def rerun(level: str, below: Tensor) -> Tensor:
            if shots == 1 or not self.backbone.learns_statistics:
                return self.backbone.rerun(level, below)
            by_shot = below.unflatten(0, (-1, shots)).unbind(1)
            return torch.stack([self.backbone.rerun(level, x) for x in by_shot], dim=1).flatten(0, 1)

        return self.query.prior.keys(features, masks, rerun, self.config.small_objects)

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """PFENet's prior maps (n, 1, h, w), the mean over the joined shots of each guide."""
        return self.query.prior_map(query, guides)

    def decode(
        self, query: QueryMaps, guides: Guides, prior: Tensor | None = None, *, deep: bool = False
    ) -> PyramidOutput:
        """The decoder's output for n (query, guide) pairs; for the losses, ``deep`` adds inner logits."""
        out: PyramidOutput = self.trunk(self.query(query, guides, prior), query.size, deep=deep)
        return out

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        return self.decode(query, guides, prior).logits


@dataclass(frozen=True, kw_only=True)
class PFENetConfig(PyramidConfig):
    """PFENet's parts and sizes; see ``PyramidConfig`` for the fields that are not listed.

    Attributes:
        fusion: how K shots become one answer.
    """

    fusion: PairFusion = field(default_factory=MeanVector)


@register_method("pfenet", PFENetConfig)
class PFENet(PyramidScorer):
    """PFENet for any K; see the module's docstring for the source."""

    config: PFENetConfig

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The support vector of each shot (masked average pooling) and its prior keys."""
        return self._guides(features, masks)

    def _guides(self, features: Features, masks: Tensor, shots: int = 1) -> Guides:
        mid = self.mid_support.of(features)
        cells = self.cells(masks, mid)
        keys, valid = self.prior_keys(features, masks, shots)
        vectors = masked_average(mid, cells).unsqueeze(1)
        return Guides(maps={"vectors": vectors}, keys=keys, valid=valid)

    def support_maps(self, features: Features, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The map of each shot, and the vector that is pooled from it."""
        return self.mid_support.of(features), self.support_prototypes(features, masks)

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query and of the inner classifiers, on the mean of the K vectors."""
        support = episodes.support
        guides = self._guides(support.features, support.masks.flatten(0, 1), support.shots)
        guides = MeanVector().join(guides, support.shots)
        maps = self.encode_query(episodes.query)
        out = self.decode(maps, guides, deep=True)
        terms = {
            "query": cross_entropy_full_size(out.logits, episodes.query_masks),
            "query_deep": deep_supervision(out.inner, episodes.query_masks),
        }
        return LossTerms(terms=terms, weights={"query_deep": self.config.deep_weight})
