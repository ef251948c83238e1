"""SCL on PFENet: the self-guided module with a multi-scale support path.

Source: SCL (Zhang et al. 2021), Sec. 4 and 5.1; PFENet (Tian et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.decoders.guided_query import GuidedQuery
from fewseg.decoders.merge import GuideMerge
from fewseg.decoders.mid_level import MidLevel
from fewseg.decoders.prior import PriorConfig, PriorMap
from fewseg.decoders.pyramid import PyramidOutput, PyramidTrunk
from fewseg.fusion import CrossGuided, PairFusion
from fewseg.losses.segmentation import cross_entropy_full_size, deep_supervision
from fewseg.methods.scl.self_guided import SelfGuided
from fewseg.methods.scl.support_path import SupportPass, SupportPathScorer
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class SCLPFENetConfig:
    """SCL's and PFENet's parts and sizes.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        prior: the query's prior map or none; the support path has none.
        scales: pyramid scales, see ``PFENetConfig``.
        self_guided: vectors, losses and form of the second pass.
        fusion: how K shots become one answer.
        deep_weight: weight of the inner classifiers' mean cross-entropy, in all three passes.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d in the classifiers.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer3", "layer2")
    prior: PriorConfig = field(default_factory=PriorMap)
    scales: tuple[float, ...] = (60, 30, 15, 8)
    self_guided: SelfGuided = field(default_factory=SelfGuided)
    fusion: PairFusion = field(default_factory=CrossGuided)
    deep_weight: float = 1.0
    mid_dropout: float = 0.5
    head_dropout: float = 0.1

    def build(self) -> SCLPFENet:
        """Builds the model with randomly initialised head."""
        return SCLPFENet(self)


class SCLPFENet(SupportPathScorer):
    """SCL on PFENet for any K; see the module's docstring for the sources.

    Trained as a 1-shot model: with K shots in a training episode every (shot, query) pair is an example.
    """

    def __init__(self, config: SCLPFENetConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion, self.self_guided = config.fusion, config.self_guided
        self.backbone = config.backbone.build()
        d, width = config.channels, sum(self.backbone.channels[level] for level in config.mid_levels)
        vectors, scales = config.self_guided.width, config.scales
        self.mid_support = MidLevel(width, d, config.mid_levels, config.mid_dropout)
        self.merge_support = GuideMerge(d, vectors=vectors, prior_channels=0, scales=scales)
        mid_query = MidLevel(width, d, config.mid_levels, config.mid_dropout)
        self.query = GuidedQuery(mid_query, channels=d, vectors=vectors, prior=config.prior, scales=scales)
        self.trunk = PyramidTrunk(d, scales=len(scales), dropout=config.head_dropout)

    def support_map(self, features: Features) -> Tensor:
        """The support's mid-level feature, (n, d, h, w)."""
        return self.mid_support.of(features)

    def _decode_support(
        self, mid: Tensor, vectors: Tensor, *, deep: bool, previous: Sequence[Tensor] | None = None
    ) -> PyramidOutput:
        size = (mid.shape[-2], mid.shape[-1])
        merged = self.merge_support(mid, vectors, mid.new_zeros(mid.shape[0], 0, *size))
        out: PyramidOutput = self.trunk(merged, size, deep=deep, previous=previous)
        return out

    def _guides(self, support: SupportPass, features: Features, masks: Tensor) -> Guides:
        keys, valid = self.config.prior.keys(features, masks, self.backbone.rerun)
        return Guides(vectors=self.second_vectors(support), keys=keys, valid=valid)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's guide vectors and prior keys; depends on the support alone."""
        return self._guides(self.first_pass(features, masks), features, masks)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature and the map that its prior compares."""
        return self.query.encode(features)

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """PFENet's prior maps (n, 1, h, w), the mean over the joined shots of each guide."""
        return self.query.prior_map(query, guides)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs (Eq. 11-12)."""
        logits: Tensor = self.trunk(self.query(query, guides, prior), query.size, deep=False).logits
        return logits

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """L_s1 + L_s2 + L_q, each with its deep supervision (Eq. 14)."""
        shots = episodes.support.shots
        features, masks = episodes.support.features, episodes.support.masks.flatten(0, 1)
        support = self.first_pass(features, masks, deep=True)
        guides = self._guides(support, features, masks)
        maps = self.encode_query(episodes.query)
        of_query = torch.arange(len(episodes.query)).repeat_interleave(shots)
        merged = self.query(maps.select(of_query) if shots > 1 else maps, guides)
        answers = {"query": (self.trunk(merged, maps.size, deep=True), episodes.query_masks[of_query])}
        if "first" in self.config.self_guided.losses:
            answers["support_first"] = (support.first, masks)
        if "second" in self.config.self_guided.losses:
            answers["support_second"] = (self.second_pass(support, guides.vectors, deep=True), masks)
        terms, weights = {}, {}
        for name, (out, truth) in answers.items():
            terms[name] = cross_entropy_full_size(out.logits, truth)
            terms[f"{name}_deep"] = deep_supervision(out.inner, truth)
            weights[f"{name}_deep"] = self.config.deep_weight
        return LossTerms(terms=terms, weights=weights)
