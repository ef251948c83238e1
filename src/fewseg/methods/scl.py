"""SCL: self-guided support vectors, on PFENet and on CANet, and shots weighed by cross-guided fusion.

Source: SCL (Zhang et al. 2021), Sec. 4.2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from fewseg.methods.canet import IterativeConfig, IterativeScorer, ResidualBlock
from fewseg.methods.fusion import CrossGuided, CrossPath, PairFusion
from fewseg.methods.layers import (
    GuideMerge,
    PyramidOutput,
)
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision
from fewseg.methods.pair_scorer import PairScorer, cross_pairs
from fewseg.methods.pfenet import PyramidConfig, PyramidScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import ForegroundRule, covered_and_missed, masked_average
from fewseg.types import (
    EncodedEpisodes,
    EncodedShots,
    Features,
    Guides,
    LossTerms,
    QueryMaps,
    check_choices,
)

VectorName = Literal["initial", "primary", "auxiliary"]


@dataclass(frozen=True, kw_only=True)
class SelfGuided:
    """Which vectors guide the query, and which losses train the support path."""

    # any of "initial" (v_s), "primary" (v_pri), "auxiliary" (v_aux): the rows of Table 5. One vector alone is
    # used twice, as the first pass does with v_s, so that the input stays 3d wide.
    vectors: tuple[VectorName, ...] = ("primary", "auxiliary")
    # any of "first" (L_s1) and "second" (L_s2): the rows of Table 6.
    losses: tuple[Literal["first", "second"], ...] = ("first", "second")
    # "paper": the second support pass takes its own levels in the top-down step; "released": it takes the
    # first pass's (the authors' code on PFENet).
    second_pass: Literal["paper", "released"] = "paper"
    # least share of foreground that makes a cell foreground in Eq. 5-6, or "truncated" (the authors' code on
    # CANet, see ``covered_and_missed``).
    threshold: ForegroundRule = 0.5

    def __post_init__(self) -> None:
        repeated = len(set(self.vectors)) != len(self.vectors)
        if not self.vectors or repeated or not set(self.vectors) <= set(get_args(VectorName)):
            raise ValueError(
                f"vectors must be one or more of 'initial', 'primary', 'auxiliary' without repeats, "
                f"got {self.vectors!r}"
            )
        if not set(self.losses) <= {"first", "second"}:
            raise ValueError(f"losses must be any of 'first' and 'second', got {self.losses!r}")
        check_choices(self)

    @property
    def width(self) -> int:
        """V: vectors concatenated to the feature; at least 2."""
        return max(2, len(self.vectors))

    def first(self, initial: Tensor) -> Tensor:
        """The first pass's guide (n, V, d): v_s (n, d) repeated (Eq. 2)."""
        return initial.unsqueeze(1).expand(-1, self.width, -1)

    def second(self, mid: Tensor, cells: Tensor, initial: Tensor, first_logits: Tensor) -> Tensor:
        """The guide (n, V, d) for the query and for the second pass (Eq. 4-6).

        The prediction's argmax carries no gradient; the pooled features do. The vector of an empty region is
        zero.
        """
        primary, auxiliary = primary_and_auxiliary(mid, cells, first_logits, self.threshold)
        named = {"initial": initial, "primary": primary, "auxiliary": auxiliary}
        chosen = [named[name] for name in self.vectors]
        if len(chosen) == 1:
            chosen = chosen * self.width
        return torch.stack(chosen, dim=1)


def primary_and_auxiliary(
    mid: Tensor, cells: Tensor, first_logits: Tensor, threshold: ForegroundRule = 0.5
) -> tuple[Tensor, Tensor]:
    """v_pri and v_aux: pooled over the foreground that the first prediction covers, and over the rest.

    Source: SCL (Zhang et al. 2021), Eq. 4 (argmax), 5 and 6.
    """
    predicted = first_logits.argmax(dim=1)
    covered, missed = covered_and_missed(cells, predicted, threshold)
    return masked_average(mid, covered), masked_average(mid, missed)


@dataclass(frozen=True, kw_only=True)
class SupportPass:
    """The support path's first pass on n shots: feature, cells, v_s, and the decoder's output."""

    mid: Tensor
    cells: Tensor
    initial: Tensor
    first: PyramidOutput

    def select(self, index: Tensor) -> SupportPass:
        """Returns the shots at ``index``."""
        first = PyramidOutput(
            logits=self.first.logits[index],
            inner=tuple(maps[index] for maps in self.first.inner),
            levels=tuple(maps[index] for maps in self.first.levels),
        )
        return SupportPass(
            mid=self.mid[index], cells=self.cells[index], initial=self.initial[index], first=first
        )


class SupportPathScorer(PairScorer):
    """A pair scorer with SCL's self-guided module on a support path of its own."""

    self_guided: SelfGuided

    @abstractmethod
    def support_map(self, features: Features) -> Tensor:
        """The support's mid-level feature, (n, d, h, w)."""

    @abstractmethod
    def _decode_support(
        self, mid: Tensor, vectors: Tensor, *, deep: bool, previous: Sequence[Tensor] | None = None
    ) -> PyramidOutput:
        """Segments shots (n, d, h, w) under guide vectors (n, V, d); see ``PyramidTrunk.forward``."""

    def first_pass(self, features: Features, masks: Tensor, *, deep: bool = False) -> SupportPass:
        """Segments n shots under their own v_s (Eq. 1-3)."""
        mid = self.support_map(features)
        cells = self.cells(masks, mid)
        initial = masked_average(mid, cells)
        first = self._decode_support(mid, self.self_guided.first(initial), deep=deep)
        return SupportPass(mid=mid, cells=cells, initial=initial, first=first)

    def second_vectors(self, support: SupportPass) -> Tensor:
        """The guide vectors (n, V, d) that the first pass yields (Eq. 4-6)."""
        logits = support.first.logits
        return self.self_guided.second(support.mid, support.cells, support.initial, logits)

    def second_pass(self, support: SupportPass, vectors: Tensor, *, deep: bool = False) -> PyramidOutput:
        """Segments n shots under the given guide vectors (n, V, d) through the support path (Eq. 8-9)."""
        released = self.self_guided.second_pass == "released"
        previous = support.first.levels if released else None
        return self._decode_support(support.mid, vectors, deep=deep, previous=previous)

    def cross_logits(self, support: EncodedShots, guides: Guides, path: CrossPath = "query") -> Tensor:
        """See ``PairScorer``; "support" is the released form: the second pass, without prior or history."""
        if path == "query":
            return super().cross_logits(support, guides, path)
        of_guide, of_target = cross_pairs(support, guides)
        targets = self.first_pass(support.features, support.masks.flatten(0, 1)).select(of_target)
        return self.second_pass(targets, guides["vectors"][of_guide]).logits


@dataclass(frozen=True, kw_only=True)
class SCLPFENetConfig(PyramidConfig):
    """SCL's and PFENet's parts and sizes; see ``PyramidConfig`` for the fields that are not listed.

    Attributes:
        prior: the query's prior map or none; the support path has none.
        self_guided: vectors, losses and form of the second pass.
        deep_weight: weight of the inner classifiers' mean cross-entropy, in all three passes.
    """

    self_guided: SelfGuided = field(default_factory=SelfGuided)
    fusion: PairFusion = field(default_factory=CrossGuided)


@register_method("scl-pfenet", SCLPFENetConfig)
class SCLPFENet(SupportPathScorer, PyramidScorer):
    """SCL on PFENet for any K; see the module's docstring for the sources.

    Trained as a 1-shot model: with K shots in a training episode every (shot, query) pair is an example.
    """

    config: SCLPFENetConfig

    def __init__(self, config: SCLPFENetConfig, *, extra_channels: int = 0) -> None:
        super().__init__(config, vectors=config.self_guided.width, extra_channels=extra_channels)
        self.self_guided = config.self_guided

    def _add_branch(self) -> None:
        config = self.config
        self.merge_support = GuideMerge(
            config.channels,
            vectors=config.self_guided.width,
            prior_channels=0,
            scales=config.scales,
            rounding=config.rounding,
        )

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

    def _guides(self, support: SupportPass, features: Features, masks: Tensor, shots: int = 1) -> Guides:
        keys, valid = self.prior_keys(features, masks, shots)
        return Guides(maps={"vectors": self.second_vectors(support)}, keys=keys, valid=valid)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's guide vectors and prior keys; depends on the support alone."""
        return self._guides(self.first_pass(features, masks), features, masks)

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """L_s1 + L_s2 + L_q, each with its deep supervision (Eq. 14)."""
        shots = episodes.support.shots
        features, masks = episodes.support.features, episodes.support.masks.flatten(0, 1)
        support = self.first_pass(features, masks, deep=True)
        guides = self._guides(support, features, masks, shots)
        maps = self.encode_query(episodes.query)
        of_query = torch.arange(len(episodes.query)).repeat_interleave(shots)
        answer = self.decode(maps.select(of_query) if shots > 1 else maps, guides, deep=True)
        answers = {"query": (answer, episodes.query_masks[of_query])}
        if "first" in self.config.self_guided.losses:
            answers["support_first"] = (support.first, masks)
        if "second" in self.config.self_guided.losses:
            answers["support_second"] = (self.second_pass(support, guides["vectors"], deep=True), masks)
        terms, weights = {}, {}
        for name, (out, truth) in answers.items():
            terms[name] = cross_entropy_full_size(out.logits, truth)
            terms[f"{name}_deep"] = deep_supervision(out.inner, truth)
            weights[f"{name}_deep"] = self.config.deep_weight
        added = self.added_losses(support, masks)
        return LossTerms(terms={**terms, **added.terms}, weights={**weights, **added.weights})

    def added_losses(self, support: SupportPass, masks: Tensor) -> LossTerms:
        """Losses of the support path of a method that extends this one, masks (B * K, H, W); none here."""
        del support, masks
        return LossTerms(terms={})


@dataclass(frozen=True, kw_only=True)
class SCLCANetConfig(IterativeConfig):
    """SCL's and CANet's parts and sizes; see ``IterativeConfig`` for the fields that are not listed.

    Attributes:
        self_guided: vectors and losses; CANet's support path has one scale and hence one form of second pass.
        fusion: how K shots become one answer; there is no attention.

    Raises:
        ValueError: ``self_guided`` asks for the second pass of the released code on PFENet.
    """

    self_guided: SelfGuided = field(default_factory=SelfGuided)
    fusion: PairFusion = field(default_factory=CrossGuided)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.self_guided.second_pass != "paper":
            raise ValueError(
                f"self_guided.second_pass is {self.self_guided.second_pass!r}: only PFENet's support path "
                "has levels that a second pass could take; on CANet give 'paper'"
            )


@register_method("scl-canet", SCLCANetConfig)
class SCLCANet(SupportPathScorer, IterativeScorer):
    """SCL on CANet for any K; see the module's docstring for the sources.

    Query and support share the mid-level feature, the dense comparison and everything behind the first
    residual block. Trained as a 1-shot model: with K shots in a training episode every (shot, query) pair is
    an example, and the pair's history is the mean of the K scores.
    """

    config: SCLCANetConfig

    def __init__(self, config: SCLCANetConfig) -> None:
        super().__init__(config, vectors=config.self_guided.width)
        self.self_guided = config.self_guided

    def _add_branch(self, channels: int) -> None:
        self.support_entry = ResidualBlock(channels)

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

    def _guides(self, support: SupportPass) -> Guides:
        return Guides(maps={"vectors": self.second_vectors(support)})

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Each shot's guide vectors; depends on the support alone."""
        return self._guides(self.first_pass(features, masks))

    def compare(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Dense comparison (n, d, h, w) of n (query, guide) pairs (Eq. 11)."""
        compared: Tensor = self.comparison(query.mid, guides["vectors"])
        return compared

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
        """The losses under a history (B * K, 2, h', w'), and the query's logits (B * K, 2, h, w)."""
        features, masks = episodes.support.features, episodes.support.masks.flatten(0, 1)
        support = self.first_pass(features, masks)
        guides = self._guides(support)
        of_query = torch.arange(len(episodes.query)).repeat_interleave(episodes.support.shots)
        logits = self.iterate(self.encode_query(episodes.query).select(of_query), guides, history)
        terms = {"query": cross_entropy_full_size(logits, episodes.query_masks[of_query])}
        if "first" in self.config.self_guided.losses:
            terms["support_first"] = cross_entropy_full_size(support.first.logits, masks)
        if "second" in self.config.self_guided.losses:
            second = self.second_pass(support, guides["vectors"]).logits
            terms["support_second"] = cross_entropy_full_size(second, masks)
        return LossTerms(terms=terms), logits
