"""SCL on CANet: the self-guided module with a single-scale support path.

Source: SCL (Zhang et al. 2021), Sec. 4 and 5.1, Fig. 5; CANet (Zhang et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.decoders.dense_comparison import DenseComparison
from fewseg.decoders.history import PredictionHistory
from fewseg.decoders.iterative import IterativeTrunk, Refinement, ResidualBlock
from fewseg.decoders.mid_level import MidLevel
from fewseg.decoders.prior import NoPrior
from fewseg.decoders.pyramid import PyramidOutput
from fewseg.fusion import CrossGuided, PairFusion
from fewseg.losses.segmentation import cross_entropy_full_size
from fewseg.methods.scl.self_guided import SelfGuided
from fewseg.methods.scl.support_path import SupportPass, SupportPathScorer
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class SCLCANetConfig:
    """SCL's and CANet's parts and sizes.

    Attributes:
        backbone: the frozen trunk; no level above layer3 is read.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        self_guided: vectors and losses; CANet's support path has one scale and hence one form of second pass.
        fusion: how K shots become one answer.
        refinement: how often inference feeds its answer back.
        history_reset: see ``CANetConfig``; 0.9 in the released code.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d after the dense comparison and in the classifier.

    Raises:
        ValueError: ``self_guided`` asks for the second pass of the released code on PFENet.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3")
    self_guided: SelfGuided = field(default_factory=SelfGuided)
    fusion: PairFusion = field(default_factory=CrossGuided)
    refinement: Refinement = field(default_factory=Refinement)
    history_reset: float = 0.7
    mid_dropout: float = 0.5
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.self_guided.second_pass != "paper":
            raise ValueError(
                f"self_guided.second_pass is {self.self_guided.second_pass!r}: only PFENet's support path "
                "has levels that a second pass could take; on CANet give 'paper'"
            )

    def build(self) -> SCLCANet:
        """Builds the model with a randomly initialised head."""
        return SCLCANet(self)


class SCLCANet(SupportPathScorer):
    """SCL on CANet for any K; see the module's docstring for the sources.

    Query and support share the mid-level feature, the dense comparison and everything behind the first
    residual block. Trained as a 1-shot model: with K shots in a training episode every (shot, query) pair is
    an example, and the pair's history is the mean of the K scores.
    """

    def __init__(self, config: SCLCANetConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion, self.self_guided = config.fusion, config.self_guided
        self.backbone = config.backbone.build()
        d, width = config.channels, sum(self.backbone.channels[level] for level in config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout, kernel=3)
        self.comparison = DenseComparison(d, vectors=config.self_guided.width, dropout=config.head_dropout)
        self.support_entry = ResidualBlock(d)
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout)
        self.history = PredictionHistory(config.history_reset)

    def support_map(self, features: Features) -> Tensor:
        """The support's mid-level feature, (n, d, h, w); the query's is made by the same convolution."""
        return self.mid.of(features)

    def _decode_support(
        self, mid: Tensor, vectors: Tensor, *, deep: bool, previous: Sequence[Tensor] | None = None
    ) -> PyramidOutput:
        """Segments shots without history; there is one scale, so nothing deep and no levels."""
        del deep, previous
        logits = self.trunk.after_entry(self.support_entry(self.comparison(mid, vectors)))
        return PyramidOutput(logits=logits, inner=(), levels=())

    def _guides(self, support: SupportPass, features: Features, masks: Tensor) -> Guides:
        keys, valid = NoPrior().keys(features, masks, self.backbone.rerun)
        return Guides(vectors=self.second_vectors(support), keys=keys, valid=valid)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's guide vectors; depends on the support alone."""
        return self._guides(self.first_pass(features, masks), features, masks)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features), prior=NoPrior().query_map(features))

    def iterate(self, query: QueryMaps, guides: Guides, history: Tensor | None = None) -> Tensor:
        """One iteration of the query path (Eq. 11-12).

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides.
            history: (n, 2, h', w') probabilities of the previous iteration; None for zeros.

        Returns:
            Logits (n, 2, h, w).
        """
        logits: Tensor = self.trunk(self.comparison(query.mid, guides.vectors), history)
        return logits

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs after the refinements."""
        del prior
        return self.config.refinement.run(self.trunk, self.comparison(query.mid, guides.vectors))

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """L_s1 + L_s2 + L_q, the query being decoded once from its pair's history (Eq. 14)."""
        shots, ids = episodes.support.shots, episodes.pair_ids
        ids = None if ids is None else ids.repeat_interleave(shots)
        cells = episodes.query[self.config.mid_levels[0]][:, :1]
        history = self.history.recall(ids, cells.repeat_interleave(shots, dim=0))
        terms, logits = self.losses_from(episodes, history)
        self.history.remember(episodes.pair_ids, logits.unflatten(0, (-1, shots)).mean(dim=1))
        return terms

    def losses_from(self, episodes: EncodedEpisodes, history: Tensor) -> tuple[LossTerms, Tensor]:
        """The losses under a given history.

        Args:
            episodes: B episodes of K shots.
            history: (B * K, 2, h', w') probabilities of the previous iteration, or zeros.

        Returns:
            The losses, and the query's logits (B * K, 2, h, w).
        """
        features, masks = episodes.support.features, episodes.support.masks.flatten(0, 1)
        support = self.first_pass(features, masks)
        guides = self._guides(support, features, masks)
        of_query = torch.arange(len(episodes.query)).repeat_interleave(episodes.support.shots)
        logits = self.iterate(self.encode_query(episodes.query).select(of_query), guides, history)
        terms = {"query": cross_entropy_full_size(logits, episodes.query_masks[of_query])}
        if "first" in self.config.self_guided.losses:
            terms["support_first"] = cross_entropy_full_size(support.first.logits, masks)
        if "second" in self.config.self_guided.losses:
            second = self.second_pass(support, guides.vectors).logits
            terms["support_second"] = cross_entropy_full_size(second, masks)
        return LossTerms(terms=terms), logits
