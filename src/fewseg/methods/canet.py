"""CANet: dense comparison of the query with support vectors, iterative refinement, attention over shots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import sets_of_queries
from fewseg.methods.fusion import AttendedFusion, MeanVector, ShotAttention, one_vs_rest
from fewseg.methods.layers import MidLevel
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.resize import resize
from fewseg.types import (
    EncodedEpisodes,
    Features,
    Guides,
    LossTerms,
    QueryMaps,
    SupportState,
    WaysState,
    check_at_least,
)


class GuidedConv(nn.Conv2d):
    """A 3x3 convolution of concat(map, expanded vectors), from ``channels * (1 + vectors)`` channels.

    Weight and result are those of the convolution over the concatenation. An expanded vector is constant
    over the cells but for the zeros beyond the border: its share is one matrix product an image for each of
    the nine taps, switched off where a tap lies outside, instead of a convolution.
    """

    def __init__(self, channels: int, out_channels: int, *, vectors: int, dilation: int = 1) -> None:
        super().__init__(channels * (1 + vectors), out_channels, 3, padding=dilation, dilation=dilation)
        self.channels = channels

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:  # type: ignore[override]
        """(n, out_channels, h, w) of maps (n or 1, d, h, w) under vectors (n, V, d)."""
        map_weight, vector_weight = self.weight[:, : self.channels], self.weight[:, self.channels :]
        size = maps.shape[-2:]
        padding, dilation = self.padding, self.dilation
        assert isinstance(padding, tuple)
        shared = F.conv2d(maps, map_weight, self.bias, padding=padding, dilation=dilation)
        taps = F.linear(vectors.flatten(1), vector_weight.permute(0, 2, 3, 1).flatten(0, 2))
        inside = F.unfold(maps.new_ones(1, 1, *size), 3, padding=padding, dilation=dilation)[0]
        constant = taps.unflatten(1, (-1, 9)) @ inside.to(taps.dtype)
        out: Tensor = shared + constant.unflatten(2, size)
        return out


class DenseComparison(nn.Module):
    """Compares every cell with the guide vectors: 3x3 convolution of dilation 2 to d, ReLU, Dropout2d.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.2, with one vector; SCL (Zhang et al. 2021), Eq. 2 and 11
    on CANet, with two. The dilation is that of the released SCL code.
    """

    def __init__(self, channels: int, *, vectors: int, dropout: float) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, channels, vectors=vectors, dilation=2)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Returns (n, d, h, w) of maps (n or 1, d, h, w) and vectors (n, V, d)."""
        out: Tensor = self.dropout(F.relu(self.conv(maps, vectors)))
        return out


class ShotWeights(nn.Module):
    """How much each of K shots contributes to a query: a branch parallel to the dense comparison.

    Two blocks: a 3x3 convolution to d channels with 3x3 max pooling, and a 3x3 convolution to one channel
    with global average pooling; then softmax over the shots. Where the paper is silent (activation, stride
    of the pooling) this takes a ReLU and a stride of 1, so that small maps serve too.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GuidedConv(channels, channels, vectors=1)
        self.weigh = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, maps: Tensor, vectors: Tensor, shots: int) -> Tensor:
        """Weights (n, K) of maps (n * K or 1, d, h, w) under vectors (n * K, 1, d)."""
        compared = F.max_pool2d(F.relu(self.conv(maps, vectors)), 3, stride=1, padding=1)
        strength: Tensor = self.weigh(compared).mean(dim=(1, 2, 3))
        return strength.view(-1, shots).softmax(dim=1)


def weighted_shots(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over shots: (n * K, d, h, w) and (n, K) to (n, d, h, w)."""
    shots = maps.unflatten(0, (weights.shape[0], weights.shape[1]))
    return torch.einsum("nkdhw,nk->ndhw", shots, weights.to(maps.dtype))


ASPP_RATES = (6, 12, 18)
"""Dilations of the 3x3 branches."""


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(concat(x, extra))))), 3x3 convolutions to d channels.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3; SCL (Zhang et al. 2021), Fig. 5. The ReLU in front of
    each convolution is that of the released SCL code.
    """

    def __init__(self, channels: int, *, extra: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + extra, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor, extra: Tensor | None = None) -> Tensor:
        """Returns (n, d, h, w) of maps (n, d, h, w) and, where there is one, the extra map (n, E, h, w)."""
        joined = maps if extra is None else torch.cat([maps, extra.to(maps.dtype)], dim=1)
        out: Tensor = maps + self.second(F.relu(self.first(F.relu(joined))))
        return out


class ASPP(nn.Module):
    """Global pooling, 1x1, and 3x3 at three dilations, each with ReLU and Dropout2d, side by side.

    Source: Chen et al. 2017 (DeepLab), in CANet (Zhang et al., CVPR 2019), Sec. 3.3; the dropout, and that
    there is no batch-norm, are those of the released SCL code.
    """

    def __init__(self, channels: int, rates: Sequence[int] = ASPP_RATES, *, dropout: float = 0.0) -> None:
        super().__init__()
        d = channels
        convs = [nn.Conv2d(d, d, 1), nn.Conv2d(d, d, 1)]
        convs += [nn.Conv2d(d, d, 3, padding=rate, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList(convs)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns (n, 5 d, h, w): global, 1x1, then the rates in order."""
        pooled, *convs = self.branches
        pooled_map = self.dropout(F.relu(pooled(maps.mean(dim=(2, 3), keepdim=True))))
        branches = [self.dropout(F.relu(conv(maps))) for conv in convs]
        return torch.cat([pooled_map.expand(-1, -1, *maps.shape[-2:]), *branches], dim=1)


class IterativeTrunk(nn.Module):
    """Everything of CANet behind the dense comparison.

    A residual block that also takes the previous answer, two further ones, ASPP, 1x1 convolution to d, ReLU,
    Dropout2d, 1x1 convolution to 2. All but the first block may be shared with a support path.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3.
    """

    def __init__(self, channels: int, *, dropout: float, aspp_dropout: float = 0.0, extra: int = 2) -> None:
        super().__init__()
        d = channels
        self.entry = ResidualBlock(d, extra=extra)
        self.blocks = nn.Sequential(ResidualBlock(d), ResidualBlock(d))
        self.aspp = ASPP(d, dropout=aspp_dropout)
        self.classifier = nn.Sequential(
            nn.Conv2d(5 * d, d, 1), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.Conv2d(d, 2, 1)
        )

    def forward(self, compared: Tensor, history: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of one iteration; history: the last one's probabilities (n or 1), or zeros."""
        size = (int(compared.shape[-2]), int(compared.shape[-1]))
        if history is None:
            history = compared.new_zeros(1, 2, *size)
        history = resize(history, size).expand(len(compared), -1, -1, -1)
        return self.after_entry(self.entry(compared, history))

    def after_entry(self, maps: Tensor) -> Tensor:
        """Logits (n, 2, h, w) of what a first residual block gave, (n, d, h, w)."""
        logits: Tensor = self.classifier(self.aspp(self.blocks(maps)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How often inference feeds its answer back.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3 and 4.1: four refinements after the first answer.

    Attributes:
        iterations: refinements after the first answer, from 0.
        stop_early: leave a pair alone once a refinement changes no cell of its mask. What is not refined any
            more keeps its last scores, so the mask is the same unless a later refinement would have moved it.
        image_scales: factors of the query's own size at which every iteration segments it. The scores of all
            shots and scales are added, and the softmax of the sum is fed back to all of them (the P_q(t-1) of
            the released SCL code: 0.7, 1 and 1.3). Without scales each (query, shot) pair is refined on its
            own, as the papers have it, so that episodes can share its score. Weights of cross-guided fusion
            are measured at the support images' own size in either case.

    Raises:
        ValueError: fewer than 0 iterations, a scale that is not above 0 or is given twice, or scales
            together with ``stop_early``.
    """

    iterations: int = 4
    stop_early: bool = False
    image_scales: tuple[float, ...] = field(default=(), metadata={"before": ()})

    def __post_init__(self) -> None:
        check_at_least(self, 0, "iterations")
        scales = self.image_scales
        if any(not scale > 0 for scale in scales) or len(set(scales)) != len(scales):
            raise ValueError(f"refinement.image_scales must be different numbers above 0, got {scales}")
        if scales and self.stop_early:
            raise ValueError(
                "refinement.stop_early is for pairs that are refined on their own: give it or image_scales"
            )

    def run(self, trunk: IterativeTrunk, compared: Tensor) -> Tensor:
        """Logits (n, 2, h, w) after the refinements, of n pairs (n, d, h, w), each on its own."""
        logits: Tensor = trunk(compared)
        moving = torch.arange(compared.shape[0], device=compared.device)
        for _ in range(self.iterations):
            before = logits[moving]
            after = trunk(compared[moving], before.softmax(dim=1))
            logits = after if len(moving) == len(logits) else logits.index_copy(0, moving, after)
            if self.stop_early:
                moving = moving[(after.argmax(dim=1) != before.argmax(dim=1)).flatten(1).any(dim=1)]
                if not len(moving):
                    break
        return logits


class PredictionHistory(nn.Module):
    """Foreground probabilities by training pair, handed back as the previous iteration's answer.

    The maps are kept in half precision in the computer's memory, and go into the state dict (``ids``,
    ``maps``) once there are any: a resumed training goes on with the same history. With several processes
    each keeps that of its own episodes, and the first one's is saved. Under fresh random views the map of
    a different view comes back, as in the papers; cached views have a history each. Resets are drawn from
    torch's generator, as dropout is, which the training loop seeds from (seed, process, step).

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3: the predicted map is cached for each sample and set to
    zero with probability p_r, 0.7 in the paper, 0.9 in the released SCL code.
    """

    varying_state = ("ids", "maps")  # tensors of a checkpoint whose sizes the config does not determine

    def __init__(self, reset: float) -> None:
        super().__init__()
        if not 0.0 <= reset <= 1.0:
            raise ValueError(f"history_reset is a probability in [0, 1], got {reset}")
        self.reset = reset
        self._maps: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def recall(self, pair_ids: Tensor | None, like: Tensor) -> Tensor:
        """The previous answers (n, 2, h, w) to training pairs, of the size, type and device of a map.

        Zeros where nothing is known or, in training, with probability ``reset``.
        """
        size = (int(like.shape[-2]), int(like.shape[-1]))
        history = like.new_zeros(like.shape[0], 2, *size)
        if pair_ids is None:
            return history
        recalled = torch.rand(len(pair_ids)) >= self.reset if self.training else torch.ones(len(pair_ids))
        for place, pair in enumerate(pair_ids.tolist()):
            if pair in self._maps and bool(recalled[place]):
                foreground = self._maps[pair].to(like.device, like.dtype)
                foreground = resize(foreground[None, None], size)[0, 0]
                history[place] = torch.stack([1 - foreground, foreground])
        return history

    def remember(self, pair_ids: Tensor | None, logits: Tensor) -> None:
        """Keeps the answers (n, 2, h, w) to training pairs; in eval mode nothing is kept."""
        if pair_ids is None or not self.training:
            return
        foreground = logits.detach().float().softmax(dim=1)[:, 1:]
        if self._maps:
            stored = next(iter(self._maps.values()))
            foreground = resize(foreground, (int(stored.shape[0]), int(stored.shape[1])))
        copies = (answer.clone() for answer in foreground[:, 0].half().cpu())  # a view would keep the batch
        self._maps.update(zip(pair_ids.tolist(), copies, strict=True))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._maps:
            destination[f"{prefix}ids"] = torch.tensor(list(self._maps))
            destination[f"{prefix}maps"] = torch.stack(list(self._maps.values()))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes the history of a state dict, or none; called by ``load_state_dict``."""
        names = tuple(f"{prefix}{name}" for name in self.varying_state)
        ids, maps = (state_dict.get(name) for name in names)
        self._maps = {}
        if ids is not None and maps is not None:
            # A clone each: a map that is replaced later must not keep all others in memory.
            pairs = zip(ids.tolist(), maps.half().cpu(), strict=True)
            self._maps = {pair: foreground.clone() for pair, foreground in pairs}
        remaining = {key: value for key, value in state_dict.items() if key not in names}
        super()._load_from_state_dict(
            remaining, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


@dataclass(frozen=True, kw_only=True)
class IterativeConfig(PairConfig):
    """What the configs of CANet and of SCL on it share; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk; no level above layer3 is read.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        refinement: how often inference feeds its answer back, and at which scales.
        history_reset: probability with which a training pair begins from zeros instead of from its last
            answer: 0.7 in the paper, 0.9 in the released SCL code.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d after the dense comparison and in the classifier.
        aspp_dropout: Dropout2d on each of the five branches of ASPP; 0.5 in the released SCL code.
        initialisation: initial weights of the head's convolutions: "torch", as torch draws them; "normal",
            from N(0, 0.01), 0.01 being the standard deviation (the released SCL code).
        cross_iou_align_corners: whether cross-guided fusion brings predictions of the supports to the masks'
            size with aligned corners, as everything else is resized here; False in the released SCL code.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3")
    refinement: Refinement = field(default_factory=Refinement)
    history_reset: float = 0.7
    mid_dropout: float = 0.5
    head_dropout: float = 0.5
    aspp_dropout: float = field(default=0.0, metadata={"before": 0.0})
    initialisation: Literal["torch", "normal"] = field(default="torch", metadata={"before": "torch"})
    cross_iou_align_corners: bool = field(default=True, metadata={"before": True})


class IterativeScorer(PairScorer):
    """What CANet and SCL on it share: one mid-level convolution, a comparison, and a trunk that iterates.

    G(I_q | I_k) includes the refinements: each pair is refined on its own, so that its score depends on
    nothing else and is shared between episodes. With ``refinement.image_scales`` the answer of all pairs is
    refined instead.
    """

    config: IterativeConfig

    def __init__(self, config: IterativeConfig, *, vectors: int) -> None:
        super().__init__(config)
        self.cross_iou_align_corners = config.cross_iou_align_corners
        d, width = config.channels, self.backbone.width(config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout, kernel=3)
        self.comparison = DenseComparison(d, vectors=vectors, dropout=config.head_dropout)
        self._add_branch(d)
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout, aspp_dropout=config.aspp_dropout)
        self.history = PredictionHistory(config.history_reset)
        if config.initialisation == "normal":
            for name, module in self.named_modules():
                if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
                    nn.init.normal_(module.weight, std=0.01)

    @abstractmethod
    def _add_branch(self, channels: int) -> None:
        """Adds the method's own part, whose initial values are drawn before those of the trunk."""

    @abstractmethod
    def compare(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Dense comparison (n, d, h, w) of n (query, guide) pairs."""

    @property
    def image_scales(self) -> tuple[float, ...]:  # type: ignore[override]
        """The scales of the refinement."""
        return self.config.refinement.image_scales

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features))

    def iterate(self, query: QueryMaps, guides: Guides, history: Tensor | None = None) -> Tensor:
        """One iteration of the query path: logits (n, 2, h, w) of n (query, guide) pairs.

        ``history`` (n, 2, h', w') has the probabilities of the previous iteration; None for zeros.
        """
        logits: Tensor = self.trunk(self.compare(query, guides), history)
        return logits

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs after the refinements."""
        del prior
        return self.config.refinement.run(self.trunk, self.compare(query, guides))

    def segment(self, query: Features, state: SupportState | WaysState) -> Tensor:
        """Segments queries; with ``refinement.image_scales`` the answer of all shots and scales is fed back.

        Args:
            query: n images; with scales from ``extract`` of this method.
            state: see ``PairScorer``.

        Returns:
            Logits (n, 1 + N, H, W), background first; with scales the sum over them.

        Raises:
            ValueError: the queries were not read at a scale of the refinement.
        """
        if not self.image_scales:
            return super().segment(query, state)
        if isinstance(state, SupportState):
            return self._fed_back(query, state)
        return one_vs_rest(torch.stack([self._fed_back(query, way) for way in state.ways], dim=1))

    def _fed_back(self, query: Features, state: SupportState) -> Tensor:
        """Scores (n, 2, H, W) of one way, added over the scales, after the refinements."""
        queries = [self.encode_query(query.at_scale(scale)) for scale in self.image_scales]
        guides = torch.arange(len(state.guides)).unflatten(0, state.weights.shape)
        answers = []
        for i, of_set in enumerate(sets_of_queries(state.weights, len(query)).tolist()):
            shots, weights = state.guides.select(guides[of_set]), state.weights[of_set].unsqueeze(0)
            compared = [self.compare(of_scale.select(slice(i, i + 1)), shots) for of_scale in queries]
            history = None
            for _ in range(self.config.refinement.iterations + 1):
                scores = [self.trunk(maps, history).float().unsqueeze(0) for maps in compared]
                fused = [self.fusion.fuse(of_scale, weights.to(of_scale.dtype)) for of_scale in scores]
                sized = [resize(logits, query.image_size, align_corners=False) for logits in fused]
                total = torch.stack(sized).sum(dim=0)
                history = total.softmax(dim=1)
            answers.append(total)
        return torch.cat(answers)


@dataclass(frozen=True, kw_only=True)
class CANetConfig(IterativeConfig):
    """CANet's parts and sizes; see ``IterativeConfig`` for the fields that are not listed.

    Attributes:
        fusion: how K shots become one answer. ``ShotAttention`` is the original paper's and adds the
            branch that learns the weights; the mean vector is the default because models are trained on
            1-shot episodes here, which teach that branch nothing.
    """

    fusion: AttendedFusion = field(default_factory=MeanVector)


@register_method("canet", CANetConfig)
class CANet(IterativeScorer):
    """CANet for any K; see the module's docstring for the source."""

    config: CANetConfig

    def __init__(self, config: CANetConfig) -> None:
        super().__init__(config, vectors=1)

    def _add_branch(self, channels: int) -> None:
        self.attention: ShotWeights | None = None
        if isinstance(self.config.fusion, ShotAttention):
            self.attention = ShotWeights(channels)
            self.fusions = (*PairScorer.fusions, ShotAttention())

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The support vector of each shot (masked average pooling)."""
        mid = self.mid.of(features)
        cells = self.cells(masks, mid)
        return Guides(maps={"vectors": masked_average(mid, cells).unsqueeze(1)})

    def compare(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Dense comparison (n, d, h, w) of n pairs, the J shots of a guide weighed by the attention."""
        shots = guides["vectors"].shape[1]
        maps = query.mid if len(query.mid) == 1 else query.mid.repeat_interleave(shots, dim=0)
        vectors = guides["vectors"].flatten(0, 1).unsqueeze(1)
        compared: Tensor = self.comparison(maps, vectors)
        if self.attention is None:
            return compared
        return weighted_shots(compared, self.attention(maps, vectors, shots))

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query, decoded once from its pair's history.

        K shots are joined as inference joins them: by the attention where there is one, else by the mean.
        """
        support = episodes.support
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        fusion = MeanVector() if self.attention is None else ShotAttention()
        compared = self.compare(self.encode_query(episodes.query), fusion.join(guides, support.shots))
        logits = self.trunk(compared, self.history.recall(episodes.pair_ids, compared))
        self.history.remember(episodes.pair_ids, logits)
        return LossTerms(terms={"query": cross_entropy_full_size(logits, episodes.query_masks)})
