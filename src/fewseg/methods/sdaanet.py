"""SD-AANet: PFENet with self-distilled prototypes (SDPM) and supervised affinity attention (SAAM).

Of each shot i there is the student p'_s,i = u_i p_s,i and the gate u_i = (v_i + 1) / 2; of the query the
ungated prototype p_q, pooled under the query mask. A gate commutes with pooling: the query pooled after gate
i is u_i p_q.

Source: SD-AANet (Zhao et al. 2022), Sec. III-B3 and III-B4. Eq. 7 and 9 print v where their text means the
i-th support prototype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.methods.canet import GuidedConv
from fewseg.methods.fusion import MeanVector, PairFusion
from fewseg.methods.layers import (
    PyramidOutput,
)
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision, kl_to_teacher, tempered_kl
from fewseg.methods.pfenet import PyramidConfig, PyramidScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import SmallObjects, foreground_cells, masked_average
from fewseg.ops.resize import resize
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


class MaskedTeacher(ABC):
    """Teachers that pool the query as the supports are pooled; the mean of the K divergences (Eq. 4-5).

    Attributes:
        detach: let no gradient through the teacher. The paper does not say; its code lets it through.
    """

    detach: bool

    def query_cells(
        self, masks: Tensor, size: tuple[int, int], small_objects: SmallObjects = "touched"
    ) -> Tensor:
        """The query mask (B, H, W) on the feature grid, (B, 1, h, w)."""
        return foreground_cells(masks, size, small_objects=small_objects)

    @abstractmethod
    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t of each shot (B, K, d), or of all (B, 1, d); see ``loss`` for the arguments."""

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """L_KD of gated support prototypes and gates (B, K, d) and the ungated query prototype (B, d)."""
        teachers = self.teachers(students, gates, query).expand_as(students)
        return kl_to_teacher(students, teachers.detach() if self.detach else teachers).mean()


@dataclass(frozen=True, kw_only=True)
class SeparateTeachers(MaskedTeacher):
    """A teacher for each shot (Eq. 8-9): d_t,i = (softmax(p'_s,i) + softmax(u_i p_q)) / 2."""

    kind: Literal["separate"] = "separate"
    detach: bool = False

    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t,i (B, K, d)."""
        return (students.softmax(dim=-1) + (gates * query.unsqueeze(1)).softmax(dim=-1)) / 2


@dataclass(frozen=True, kw_only=True)
class IntegralTeacher(MaskedTeacher):
    """One teacher for all shots, of the query under the mean gate (Eq. 6-7).

    d_t = (mean_i softmax(p'_s,i) + softmax(mean_i u_i p_q)) / 2. The paper defines d_t for one shot; that
    the K support distributions enter by their mean is ours, and what makes it one teacher.
    """

    kind: Literal["integral"] = "integral"
    detach: bool = False

    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t (B, 1, d)."""
        support = students.softmax(dim=-1).mean(dim=1)
        return ((support + (gates.mean(dim=1) * query).softmax(dim=-1)) / 2).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class PrintedSeparateTeachers(MaskedTeacher):
    """A teacher for each shot, of the query alone: d_t,i = softmax(u_i p_q).

    Source: SD-AANet (Zhao et al. 2022), Eq. 9 as printed; ``SeparateTeachers`` has the half of Eq. 4 too.
    """

    kind: Literal["separate-printed"] = "separate-printed"
    detach: bool = False

    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t,i (B, K, d)."""
        del students
        return (gates * query.unsqueeze(1)).softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class PrintedIntegralTeacher(MaskedTeacher):
    """One teacher for all shots, of the query alone: d_t = softmax(mean_i u_i p_q).

    Source: SD-AANet (Zhao et al. 2022), Eq. 7 as printed; ``IntegralTeacher`` has the half of Eq. 4 too.
    """

    kind: Literal["integral-printed"] = "integral-printed"
    detach: bool = False

    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t (B, 1, d)."""
        del students
        return (gates.mean(dim=1) * query).softmax(dim=-1).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class PrototypeTeacher:
    """The teacher of the released code: softmax of the mean of prototypes instead of a mean of softmaxes.

    The query prototype is ungated, its mask resized to the nearest cell; gradients go into the teacher; the
    divergence is softened and averaged over all elements.

    Attributes:
        temperature: of both softmaxes.
        factor: 0.9 times the squared temperature.
    """

    kind: Literal["prototype"] = "prototype"
    temperature: float = 5.0
    factor: float = 0.9 * 25

    def query_cells(
        self, masks: Tensor, size: tuple[int, int], small_objects: SmallObjects = "touched"
    ) -> Tensor:
        """The query mask (B, H, W) at the nearest pixels of the feature grid, (B, 1, h, w)."""
        del small_objects
        return F.interpolate((masks == 1).unsqueeze(1).float(), size=size, mode="nearest")

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """The released L_KD; see ``MaskedTeacher.loss``."""
        del gates
        teachers = (students + query.unsqueeze(1)) / 2
        divergence = tempered_kl(students, teachers, temperature=self.temperature, factor=self.factor)
        return divergence.mean()


@dataclass(frozen=True, kw_only=True)
class UnitTeachers(MaskedTeacher):
    """``SeparateTeachers`` on directions alone: every prototype is scaled to one length before its softmax.

    Eq. 5 is least where all prototypes are zero; here their length changes nothing. No paper has this form.

    Attributes:
        length: of every prototype, above 0.
    """

    kind: Literal["unit"] = "unit"
    length: float = 10.0
    detach: bool = False

    def teachers(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """d_t,i (B, K, d), of students that are scaled already."""
        return (students.softmax(dim=-1) + self._scaled(gates * query.unsqueeze(1)).softmax(dim=-1)) / 2

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """L_KD; see ``MaskedTeacher.loss``."""
        return super().loss(self._scaled(students), gates, query)

    def _scaled(self, prototypes: Tensor) -> Tensor:
        return self.length * F.normalize(prototypes, dim=-1)


@dataclass(frozen=True, kw_only=True)
class NoDistillation:
    """No teacher and no loss."""

    kind: Literal["none"] = "none"


DistillationConfig = (
    SeparateTeachers
    | IntegralTeacher
    | PrintedSeparateTeachers
    | PrintedIntegralTeacher
    | PrototypeTeacher
    | UnitTeachers
    | NoDistillation
)


POOLS = (1, 2, 3, 6)
"""Sides of the pyramid pooling's grids (PSPNet)."""


class LossNorm(nn.BatchNorm2d):
    """Batch-norm whose statistics are learned where losses are computed, and only read where one segments.

    Where a channel has one value only (the 1 x 1 pool of a single image) the stored statistics serve.
    """

    def forward(self, maps: Tensor, *, learn: bool = False) -> Tensor:
        """Normalises (n, C, h, w), with ``learn`` by this batch, updating the stored statistics."""
        several = maps.numel() > maps.shape[1]
        return F.batch_norm(
            maps,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=learn and several,
            momentum=self.momentum if self.momentum is not None else 0.1,
            eps=self.eps,
        )


class PyramidPooling(nn.Module):
    """Pools at several grids, 1x1 convolution, norm, ReLU; joined with the map by a 3x3 convolution.

    Source: PSPNet (Zhao et al. 2017), in SD-AANet (Zhao et al. 2022), Sec. III-C2.
    """

    def __init__(
        self, in_channels: int, channels: int, pools: Sequence[int] = POOLS, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pools = tuple(pools)
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, channels, 1, bias=False) for _ in self.pools)
        self.norms = nn.ModuleList(LossNorm(channels) for _ in self.pools)
        width = in_channels + len(self.pools) * channels
        self.bottleneck = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        self.bottleneck_norm = LossNorm(channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor, *, learn: bool) -> Tensor:
        """Returns (n, d, h, w) of maps (n, C, h, w); see ``LossNorm`` for ``learn``."""
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        joined = [maps]
        for pool, conv, norm in zip(self.pools, self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(F.adaptive_avg_pool2d(maps, pool)), learn=learn))
            joined.append(resize(pooled, size))
        joint = self.bottleneck(torch.cat(joined, dim=1))
        out: Tensor = self.dropout(F.relu(self.bottleneck_norm(joint, learn=learn)))
        return out


class AffinityModule(nn.Module):
    """3x3 convolution of concat(map, prototype) to 4 d, ReLU, pyramid pooling, and a 1x1 head for each use.

    The support's head segments the support, which supervises the module; the query's gives the attention,
    one linear channel. Features go in ungated.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-C and Fig. 7.
    """

    def __init__(self, channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, 4 * channels, vectors=1)
        self.pyramid = PyramidPooling(4 * channels, channels, dropout=dropout)
        self.support_head = nn.Conv2d(channels, 2, 1)
        self.query_head = nn.Conv2d(channels, 1, 1)

    def _affinity(self, maps: Tensor, prototypes: Tensor, learn: bool) -> Tensor:
        affinity: Tensor = self.pyramid(F.relu(self.conv(maps, prototypes.unsqueeze(1))), learn=learn)
        return affinity

    def support_logits(self, maps: Tensor, prototypes: Tensor, *, learn: bool) -> Tensor:
        """The support's own segmentation (n, 2, h, w), of maps (n, d, h, w) and own prototypes (n, d)."""
        logits: Tensor = self.support_head(self._affinity(maps, prototypes, learn))
        return logits

    def query_map(self, maps: Tensor, prototypes: Tensor, *, learn: bool) -> Tensor:
        """The query's attention (n, 1, h, w), of maps (n or 1, d, h, w) and the mean prototype (n, d)."""
        attention: Tensor = self.query_head(self._affinity(maps, prototypes, learn))
        return attention


@dataclass(frozen=True, kw_only=True)
class SupervisedAttention:
    """The supervised affinity attention module: one more channel for the decoder, and one more loss.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-C.

    Attributes:
        dropout: Dropout2d after the pyramid pooling's bottleneck. The paper is silent; 0.1 is the released
            code's.
    """

    kind: Literal["saam"] = "saam"
    dropout: float = field(default=0.1, metadata={"before": 0.0})
    channels: ClassVar[int] = 1

    def build(self, channels: int) -> AffinityModule | None:
        """The module for features of ``channels`` channels."""
        return AffinityModule(channels, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class NoAttention:
    """No attention: zero channels, no loss."""

    kind: Literal["none"] = "none"
    channels: ClassVar[int] = 0

    def build(self, channels: int) -> AffinityModule | None:
        """None."""
        del channels
        return None


AttentionConfig = SupervisedAttention | NoAttention


class ChannelGate(nn.Module):
    """v = sigmoid(FC(ReLU(FC(p_s)))), the SSE block; the hidden layer has d / reduction units, at least one.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-B2 and Fig. 5a; the reduction is that of SENet and of the
    released code.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, prototypes: Tensor) -> Tensor:
        """Channel weights (n, d) in (0, 1) of prototypes (n, d)."""
        return self.expand(F.relu(self.reduce(prototypes))).sigmoid()  # type: ignore[no-any-return]


def gated(values: Tensor) -> Tensor:
    """What a feature is multiplied by: (v F + F) / 2 = F (v + 1) / 2 (SD-AANet Eq. 3).

    It commutes with masked average pooling, so that a gated feature is never made to pool it.
    """
    return (values + 1) / 2


class LearnedGate:
    """A gate of learned channel weights; see ``ChannelGate`` for ``reduction``."""

    reduction: int

    def build(self, channels: int) -> ChannelGate | None:
        """The gate for prototypes of ``channels`` channels."""
        return ChannelGate(channels, reduction=self.reduction)


@dataclass(frozen=True, kw_only=True)
class MeanGate(LearnedGate):
    """The query is multiplied by the mean over shots of (v_i + 1) / 2.

    That is both strategies of the paper: the mean of the K gated queries (Separate, below Eq. 9) is the query
    under the mean gate (Integral, Eq. 6, read with the 1/K that its text has).

    Source: SD-AANet (Zhao et al. 2022), Eq. 3, 6 and 8.
    """

    kind: Literal["mean"] = "mean"
    reduction: int = 4

    def kept(self, values: Tensor) -> dict[str, Tensor]:
        """What a guide keeps of v, (n, d), by name; K shots are joined by the mean."""
        return {"gate": values}

    def multiplier(self, guides: Guides) -> Tensor:
        """(n, d) in (0.5, 1)."""
        return gated(guides["gate"])


@dataclass(frozen=True, kw_only=True)
class CompoundedGate(LearnedGate):
    """The query is multiplied by every shot's gate in turn, and once more by their mean, itself gated.

    With u_i = (v_i + 1) / 2 that is (prod u_i) (mean u_i + 1) / 2, which fades the query as K grows.

    Source: the released code of SD-AANet, which multiplies inside its loop over the shots and again after.
    """

    kind: Literal["compounded"] = "compounded"
    reduction: int = 4

    def kept(self, values: Tensor) -> dict[str, Tensor]:
        """The gate u, and log u, whose mean over the shots gives the product."""
        once = gated(values)
        return {"gate": once, "log_gate": once.log()}

    def multiplier(self, guides: Guides) -> Tensor:
        """(n, d) in (0, 1)."""
        return (guides.shots * guides["log_gate"]).exp() * gated(guides["gate"])


@dataclass(frozen=True, kw_only=True)
class NoGate:
    """No gate: features and prototypes stay unchanged."""

    kind: Literal["none"] = "none"

    def build(self, channels: int) -> ChannelGate | None:
        """None."""
        del channels
        return None

    def kept(self, values: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        del values
        return {}

    def multiplier(self, guides: Guides) -> Tensor:
        """Ones (n, d)."""
        return torch.ones_like(guides["ungated"])


GateConfig = MeanGate | CompoundedGate | NoGate


@dataclass(frozen=True, kw_only=True)
class SDAANetConfig(PyramidConfig):
    """SD-AANet's and PFENet's parts and sizes; see ``PyramidConfig`` for the fields that are not listed.

    Table III without SDPM is ``gate=NoGate(), distillation=NoDistillation()``, without SAAM
    ``attention=NoAttention()``; Table V is ``distillation``.

    Attributes:
        gate: how the channel gates reach the query; none for the ablation.
        distillation: who teaches the support prototypes; nobody for the ablation.
        attention: SAAM; none for the ablation.
        fusion: how K shots become one answer; the mean of prototypes, gates, prior maps is the paper's.
        distillation_weight: alpha of Eq. 12. The paper states 50 and so does its code, whose loss
            (``PrototypeTeacher``) is a mean over channels of softened prototypes, some 80 times smaller on
            real features. Under the paper's own sum (Eq. 5) 50 may shrink the prototypes until every
            softmax is uniform; watch ``distillation`` in the log, and lower it.
        attention_weight: beta of Eq. 12.
    """

    gate: GateConfig = field(default_factory=MeanGate)
    distillation: DistillationConfig = field(default_factory=SeparateTeachers)
    attention: AttentionConfig = field(default_factory=SupervisedAttention)
    fusion: PairFusion = field(default_factory=MeanVector)
    distillation_weight: float = 50.0
    attention_weight: float = 0.5


@dataclass(frozen=True, kw_only=True)
class PooledShots:
    """Of n shots: mid-level features (n, d, h, w), ungated prototypes p_s and channel weights v (n, d)."""

    mid: Tensor
    raw: Tensor
    values: Tensor

    @property
    def prototypes(self) -> Tensor:
        """p'_s (n, d): the pooled gated feature, which is the gated pooled one."""
        return gated(self.values) * self.raw


def prototype_sizes(prototypes: Tensor) -> dict[str, Tensor]:
    """What vanishes when L_KD shrinks the prototypes (n, d), which makes every softmax uniform.

    Their mean length, and their contrast: 1 - H / log d of the entropy H of their softmax, mean over n.
    """
    vectors = prototypes.detach().float()
    logs = vectors.log_softmax(dim=-1)
    entropy = -(logs.exp() * logs).sum(dim=-1)
    contrast = 1 - entropy / math.log(vectors.shape[-1])
    return {"prototype_length": vectors.norm(dim=-1).mean(), "prototype_contrast": contrast.mean()}


@register_method("sdaanet", SDAANetConfig)
class SDAANet(PyramidScorer):
    """SD-AANet for any K; see the module's docstring for the sources.

    Prototypes, gates, prior maps and the attention's prototype enter by their means over the shots: the
    paper's K-shot form is ``MeanVector``.
    """

    config: SDAANetConfig

    def __init__(self, config: SDAANetConfig) -> None:
        super().__init__(config, extra_channels=config.attention.channels)
        # after the baseline's parts, which start alike with and without these
        self.gate = config.gate.build(config.channels)
        self.attention = config.attention.build(config.channels)

    def pool(self, features: Features, masks: Tensor) -> PooledShots:
        """Prototypes and gates of n shots (Eq. 1-3), masks (n, H, W)."""
        mid = self.mid_support.of(features)
        cells = self.cells(masks, mid)
        raw = masked_average(mid, cells)
        values = torch.ones_like(raw) if self.gate is None else self.gate(raw)
        return PooledShots(mid=mid, raw=raw, values=values)

    def _guides(self, pooled: PooledShots, features: Features, masks: Tensor, shots: int = 1) -> Guides:
        keys, valid = self.prior_keys(features, masks, shots)
        maps = {"vectors": pooled.prototypes.unsqueeze(1), "ungated": pooled.raw}
        return Guides(maps=maps | self.config.gate.kept(pooled.values), keys=keys, valid=valid)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's prototypes, gate and prior keys; depends on the support alone."""
        return self._guides(self.pool(features, masks), features, masks)

    def support_maps(self, features: Features, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The map of each shot behind its gate, and the prototype that is pooled from it."""
        shots = self.pool(features, masks)
        return shots.mid * gated(shots.values)[..., None, None], shots.prototypes

    def query_multiplier(self, guides: Guides) -> Tensor:
        """What reaches the query's channels of the gates of n guides of J shots: (n, d)."""
        return self.config.gate.multiplier(guides)

    def attention_map(self, query: QueryMaps, guides: Guides, *, learn: bool = False) -> Tensor:
        """SAAM's map of n (query, guide) pairs: (n, 1, h, w); zero channels without SAAM."""
        if self.attention is None:
            return query.mid.new_zeros(len(guides), 0, *query.size)
        return self.attention.query_map(query.mid, guides["ungated"], learn=learn)

    def restored_supports(self, pooled: PooledShots, shots: int, *, learn: bool) -> list[Tensor]:
        """SAAM's segmentation (B, 2, h, w) of the first shots, of the second ones, ... ; none without SAAM.

        One after another, as in the released code, so that its batch-norm sees one shot at a time.
        """
        if self.attention is None:
            return []
        by_shot = (maps.unflatten(0, (-1, shots)).unbind(1) for maps in (pooled.mid, pooled.raw))
        return [self.attention.support_logits(*inputs, learn=learn) for inputs in zip(*by_shot, strict=True)]

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
            self.query.merge(maps, guides["vectors"], planes), query.size, deep=deep
        )
        return out

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        return self._decode(query, guides, prior, deep=False, learn=False).logits

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """L_ce with its deep supervision, L_KD and L_ce,s (Eq. 12), on the means over the K shots."""
        support, config, learn = episodes.support, self.config, self.training
        masks = support.masks.flatten(0, 1)
        shots = self.pool(support.features, masks)
        guides = self._guides(shots, support.features, masks, support.shots)
        guides = MeanVector().join(guides, support.shots)
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
            restored = self.restored_supports(shots, support.shots, learn=learn)
            pairs = zip(restored, support.masks.unbind(1), strict=True)
            terms["support_attention"] = torch.stack([cross_entropy_full_size(*p) for p in pairs]).mean()
        weights = {
            "query_deep": config.deep_weight,
            "distillation": config.distillation_weight,
            "support_attention": config.attention_weight,
        }
        weights = {name: weight for name, weight in weights.items() if name in terms}
        return LossTerms(terms=terms, weights=weights, watched=prototype_sizes(shots.prototypes))

    def distillation_loss(self, shots: PooledShots, query: QueryMaps, query_masks: Tensor) -> Tensor | None:
        """L_KD of B * K shots and B queries: the only use of the query mask beside the cross-entropies.

        A query that shows nothing of its class has no prototype and teaches nothing; if none does, L_KD is 0.
        """
        teacher, episodes = self.config.distillation, len(query_masks)
        if isinstance(teacher, NoDistillation):
            return None
        cells = teacher.query_cells(query_masks, query.size, self.config.small_objects).to(query.mid.dtype)
        shown = cells.flatten(1).any(dim=1)
        if not shown.any():
            return shots.raw.new_zeros(())
        students, gates = (
            values.float().unflatten(0, (episodes, -1))[shown]
            for values in (shots.prototypes, gated(shots.values))
        )
        return teacher.loss(students, gates, masked_average(query.mid, cells).float()[shown])
