"""SD-AANet: PFENet with a self-distilled, gated prototype (SDPM) and a supervised attention map (SAAM).

Source: SD-AANet (Zhao et al. 2022), Sec. III; PFENet (Tian et al. 2020), its decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.decoders.channel_gate import gated
from fewseg.decoders.guided_query import GuidedQuery
from fewseg.decoders.mid_level import MidLevel
from fewseg.decoders.prior import PriorConfig, PriorMap
from fewseg.decoders.pyramid import PyramidOutput, PyramidTrunk
from fewseg.fusion import MeanVector, PairFusion
from fewseg.losses.segmentation import cross_entropy_full_size, deep_supervision
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.sdaanet.attention import AttentionConfig, SupervisedAttention
from fewseg.methods.sdaanet.gate import GateConfig, MeanGate
from fewseg.methods.sdaanet.teachers import DistillationConfig, NoDistillation, SeparateTeachers
from fewseg.ops.masks import foreground_cells
from fewseg.ops.pooling import masked_average
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class SDAANetConfig:
    """SD-AANet's and PFENet's parts and sizes.

    Table III without SDPM is ``gate=NoGate(), distillation=NoDistillation()``, without SAAM
    ``attention=NoAttention()``; Table V is ``distillation``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        prior: the prior map or none.
        scales: pyramid scales, see ``PFENetConfig``.
        gate: how the channel gates reach the query; none for the ablation.
        distillation: who teaches the support prototypes; nobody for the ablation.
        attention: SAAM; none for the ablation.
        fusion: how K shots become one answer; the mean of prototypes, gates, prior maps is the paper's.
        deep_weight: weight of the inner classifiers' mean cross-entropy.
        distillation_weight: alpha of Eq. 12. The paper says 50 and so does its code, whose loss
            (``PrototypeTeacher``) is a mean over channels of softened prototypes, some 80 times smaller on
            real features. Under the paper's own sum (Eq. 5) 50 may shrink the prototypes until every
            softmax is uniform; watch ``distillation`` in the log, and lower it.
        attention_weight: beta of Eq. 12.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d in the classifiers.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer3", "layer2")
    prior: PriorConfig = field(default_factory=PriorMap)
    scales: tuple[float, ...] = (60, 30, 15, 8)
    gate: GateConfig = field(default_factory=MeanGate)
    distillation: DistillationConfig = field(default_factory=SeparateTeachers)
    attention: AttentionConfig = field(default_factory=SupervisedAttention)
    fusion: PairFusion = field(default_factory=MeanVector)
    deep_weight: float = 1.0
    distillation_weight: float = 50.0
    attention_weight: float = 0.5
    mid_dropout: float = 0.5
    head_dropout: float = 0.1

    def build(self) -> SDAANet:
        """Builds the model with a randomly initialised head."""
        return SDAANet(self)


@dataclass(frozen=True, kw_only=True)
class PooledShots:
    """What SDPM and SAAM make of n shots.

    Attributes:
        mid: (n, d, h, w) ungated mid-level feature.
        raw: (n, d) prototype before the gate, p_s.
        values: (n, d) channel weights v; ones without a gate.
    """

    mid: Tensor
    raw: Tensor
    values: Tensor

    @property
    def prototypes(self) -> Tensor:
        """p'_s (n, d): the pooled gated feature, which is the gated pooled one."""
        return gated(self.values) * self.raw


class SDAANet(PairScorer):
    """SD-AANet for any K; see the module's docstring for the sources.

    A guide is the gated prototype, the ungated one and what is kept of the gate. Prototypes, gates, prior
    maps and the attention's prototype enter by their means over the shots, so the paper's K-shot form is
    ``MeanVector``.
    """

    def __init__(self, config: SDAANetConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = config.fusion
        self.backbone = config.backbone.build()
        d, width = config.channels, sum(self.backbone.channels[level] for level in config.mid_levels)
        self.mid_support = MidLevel(width, d, config.mid_levels, config.mid_dropout)
        self.query = GuidedQuery(
            MidLevel(width, d, config.mid_levels, config.mid_dropout),
            channels=d,
            vectors=1,
            prior=config.prior,
            scales=config.scales,
            extra_channels=config.attention.channels,
        )
        self.trunk = PyramidTrunk(d, scales=len(config.scales), dropout=config.head_dropout)
        self.gate = config.gate.build(d)  # after the baseline's parts, which start alike with and without it
        self.attention = config.attention.build(d)

    def pool(self, features: Features, masks: Tensor) -> PooledShots:
        """Prototypes and gates of n shots (Eq. 1-3), masks (n, H, W)."""
        mid = self.mid_support.of(features)
        cells = foreground_cells(masks, (mid.shape[-2], mid.shape[-1]), mid.dtype)
        raw = masked_average(mid, cells)
        values = torch.ones_like(raw) if self.gate is None else self.gate(raw)
        return PooledShots(mid=mid, raw=raw, values=values)

    def _guides(self, shots: PooledShots, features: Features, masks: Tensor) -> Guides:
        keys, valid = self.config.prior.keys(features, masks, self.backbone.rerun)
        prototypes = torch.stack([shots.prototypes, shots.raw], dim=1)
        vectors = torch.cat([prototypes, self.config.gate.kept(shots.values)], dim=1)
        return Guides(vectors=vectors, keys=keys, valid=valid)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's prototypes, gate and prior keys; depends on the support alone."""
        return self._guides(self.pool(features, masks), features, masks)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's ungated mid-level feature and the map that its prior compares."""
        return self.query.encode(features)

    def query_multiplier(self, guides: Guides) -> Tensor:
        """What reaches the query's channels of the gates of n guides of J shots: (n, d)."""
        return self.config.gate.multiplier(guides.vectors[:, 2:], guides.keys.shape[1])

    def attention_map(self, query: QueryMaps, guides: Guides, *, learn: bool = False) -> Tensor:
        """SAAM's map of n (query, guide) pairs: (n, 1, h, w); zero channels without SAAM."""
        if self.attention is None:
            return query.mid.new_zeros(len(guides), 0, *query.size)
        return self.attention.query_map(query.mid, guides.vectors[:, 1], learn=learn)

    def _decode(
        self, query: QueryMaps, guides: Guides, prior: Tensor | None = None, *, deep: bool, learn: bool
    ) -> PyramidOutput:
        maps = query.mid
        if self.gate is not None:  # without one the maps stay one query's, however many guides it has
            maps = maps * self.query_multiplier(guides)[..., None, None]
        extra = self.attention_map(query, guides, learn=learn)
        prior = self.prior_map(query, guides) if prior is None else prior
        planes = torch.cat([prior, extra.to(maps.dtype)], dim=1)
        out: PyramidOutput = self.trunk(
            self.query.merge(maps, guides.vectors[:, :1], planes), query.size, deep=deep
        )
        return out

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """PFENet's prior maps (n, 1, h, w), the mean over the joined shots of each guide."""
        return self.query.prior_map(query, guides)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        return self._decode(query, guides, prior, deep=False, learn=False).logits

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """L_ce with its deep supervision, L_KD and L_ce,s (Eq. 12), on the means over the K shots."""
        support, config, learn = episodes.support, self.config, self.training
        masks = support.masks.flatten(0, 1)
        shots = self.pool(support.features, masks)
        guides = MeanVector().join(self._guides(shots, support.features, masks), support.shots)
        maps = self.encode_query(episodes.query)
        out = self._decode(maps, guides, deep=True, learn=learn)
        terms = {
            "query": cross_entropy_full_size(out.logits, episodes.query_masks),
            "query_deep": deep_supervision(out.inner, episodes.query_masks),
        }
        distilled = self.distillation_loss(shots, maps, episodes.query_masks)
        if distilled is not None:
            terms["distillation"] = distilled
        if self.attention is not None:
            logits = self.attention.support_logits(shots.mid, shots.raw, learn=learn)
            each = logits.unflatten(0, (-1, support.shots)).unbind(1)
            pairs = zip(each, support.masks.unbind(1), strict=True)
            terms["support_attention"] = torch.stack([cross_entropy_full_size(*p) for p in pairs]).mean()
        weights = {
            "query_deep": config.deep_weight,
            "distillation": config.distillation_weight,
            "support_attention": config.attention_weight,
        }
        return LossTerms(terms=terms, weights={k: v for k, v in weights.items() if k in terms})

    def distillation_loss(self, shots: PooledShots, query: QueryMaps, query_masks: Tensor) -> Tensor | None:
        """L_KD of B * K shots and B queries: the only use of the query mask beside the cross-entropies.

        A query that shows nothing of its class has no prototype and teaches nothing; if none does, L_KD is 0.
        """
        teacher, episodes = self.config.distillation, len(query_masks)
        if isinstance(teacher, NoDistillation):
            return None
        cells = teacher.query_cells(query_masks, query.size).to(query.mid.dtype)
        shown = cells.flatten(1).any(dim=1)
        if not shown.any():
            return shots.raw.new_zeros(())
        students, gates = (
            values.float().unflatten(0, (episodes, -1))[shown]
            for values in (shots.prototypes, gated(shots.values))
        )
        return teacher.loss(students, gates, masked_average(query.mid, cells).float()[shown])
