"""Fusions: how K shots become one answer.

Some join the guides before the decoder, some weigh the shots' scores after it, one moves prototypes. All have
the interface of ``Fusion``; a method lists those that it can use.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fewseg.types import IGNORE, Guides, check_above, check_at_least, check_choices

CrossPath = Literal["query", "support"]

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prototypes (B, P, C) -> the loss L_sup (B,) and the IoU rho (B,) on the supports."""

Begin = Callable[[], tuple[Tensor, Judge]]
"""Gives what iteration starts from, p_0 (B, P, C), and what scores prototypes on the supports."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Prototype sets (B, T, P, C) of B support sets and their weights (B, T) rho_n.

    ``diverged`` (B,) is whether a step left the loss on the supports above that of the start.
    """

    sets: Tensor
    weights: Tensor
    diverged: Tensor


class Fusion:
    """The interface of fusions; each is a frozen dataclass whose fields are its settings.

    Attributes:
        kind: its name, on the command line too.
    """

    kind: str

    def weights(
        self,
        episodes: int,
        shots: int,
        *,
        device: torch.device | None = None,
        cross_iou: Tensor | None = None,
    ) -> Tensor:
        """Weights of the scores of B support sets, by default 1 / K; a single shot weighs 1.

        Args:
            episodes: B.
            shots: K.
            device: of the result.
            cross_iou: (B, K, K), [b, k, i] the IoU of shot k's prediction of support image i; for
                ``CrossGuided`` and K > 1 alone.

        Returns:
            (B, K); (B, 1) where the guides are joined.
        """
        del cross_iou
        return torch.full((episodes, shots), 1.0 / shots, device=device)

    def fuse(self, scores: Tensor, weights: Tensor) -> Tensor:
        """Joins the scores (n, S, 2, h, w) of S guides into one (n, 2, h, w): their sum by weights (n, S).

        Source: SCL (Zhang et al. 2021), Eq. 17 before its softmax.
        """
        return (scores * weights[..., None, None, None]).sum(dim=1)

    def collect(self, pooled: Tensor, movable: Tensor, begin: Begin) -> Collected:
        """Prototype sets of B support sets: by default the pooled prototypes (B, P, C) alone.

        Args:
            pooled: (B, P, C).
            movable: (B, P), prototypes that exist; the others stay.
            begin: for those that iterate.
        """
        del begin
        diverged = torch.zeros_like(movable[:, 0])
        weights = pooled.new_ones(pooled.shape[0], 1)
        return Collected(sets=pooled.unsqueeze(1), weights=weights, diverged=diverged)


class JoinedGuides(Fusion, ABC):
    """Fusions that make one guide of K before the decoder; K shots then cost one score."""

    @abstractmethod
    def join(self, guides: Guides, shots: int) -> Guides:
        """Joins B * K guides of one shot each, the shot running fastest, into B guides."""

    def weights(
        self,
        episodes: int,
        shots: int,
        *,
        device: torch.device | None = None,
        cross_iou: Tensor | None = None,
    ) -> Tensor:
        """(B, 1): the joined guide has one score."""
        return super().weights(episodes, 1, device=device)


@dataclass(frozen=True, kw_only=True)
class MeanVector(JoinedGuides):
    """Mean of the K support vectors and of the K prior maps, then one decoding.

    Source: the K-shot default of PFENet (Tian et al. 2020) and of SCL's baselines (Table 4, "Baseline").
    """

    kind: Literal["mean"] = "mean"

    def join(self, guides: Guides, shots: int) -> Guides:
        """The mean of every map; the K shots' keys stand side by side."""
        return guides.joined(
            shots, {k: v.unflatten(0, (-1, shots)).mean(dim=1) for k, v in guides.maps.items()}
        )


@dataclass(frozen=True, kw_only=True)
class ScoreAverage(Fusion):
    """Mean of the K shots' scores.

    Source: SCL (Zhang et al. 2021), Table 4, "Avg.".
    """

    kind: Literal["average"] = "average"


@dataclass(frozen=True, kw_only=True)
class Vote(Fusion):
    """Every shot votes for the cells that it finds; those with enough of the most votes are foreground.

    One shot keeps its scores. Where no shot finds anything, nothing is found.

    Source: HSNet (Min et al. 2021), Sec. 4.4: the sum of the K predicted masks is divided by its largest
    value in the query, and compared with tau = 0.5.

    Attributes:
        threshold: tau, in (0, 1).

    Raises:
        ValueError: the threshold is out of range.
    """

    kind: Literal["vote"] = "vote"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold of a vote must be in (0, 1), got {self.threshold}")

    def fuse(self, scores: Tensor, weights: Tensor) -> Tensor:
        """The share of the most votes less the threshold, as the foreground's score beside one of 0."""
        if scores.shape[1] == 1:
            return super().fuse(scores, weights)
        votes = (scores[:, :, 1] > scores[:, :, 0]).to(scores.dtype).sum(dim=1)
        margin = votes / votes.amax(dim=(1, 2), keepdim=True).clamp(min=1) - self.threshold
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


@dataclass(frozen=True, kw_only=True)
class AllVectors(JoinedGuides):
    """The K shots' vectors side by side: each shot gives several, and the query is compared with all.

    Source: the K-shot forms of ASGNet (Li et al. 2021), PMMs (Yang et al. 2020) and PPNet (Liu et al. 2020).
    """

    kind: Literal["all"] = "all"

    def join(self, guides: Guides, shots: int) -> Guides:
        """Puts the K shots' vectors side by side: (B, K * V, d), those of one shot next to each other."""
        maps = {k: v.unflatten(0, (-1, shots)).flatten(1, 2) for k, v in guides.maps.items()}
        return guides.joined(shots, maps)


@dataclass(frozen=True, kw_only=True)
class ShotAttention(AllVectors):
    """Weighs the K shots after the comparison with the query, by a learned branch of the decoder.

    Train with K > 1: with one shot its weight is 1 whatever the branch gives, and nothing is learned.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.4.
    """

    kind: Literal["attention"] = "attention"  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class CrossGuided(Fusion):
    """Scores weighted by how well each shot segments all the shots of the support set.

    Source: SCL (Zhang et al. 2021), Eq. 15-17. Needs no training.

    Attributes:
        iou: "foreground" (the paper) or "mean" of foreground and background (released code on PFENet).
        path: which path segments the supports: "query", the 1-shot model G as Eq. 15 has it, or "support",
            SCL's second support pass, without prior map (released code).
        divisor: what the weighted sum is divided by: None for K (Eq. 17), a number for a fixed one (the
            released code's literal 5).
    """

    kind: Literal["cross-guided"] = "cross-guided"
    iou: Literal["foreground", "mean"] = "foreground"
    path: CrossPath = "query"
    divisor: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)

    def iou_of(self, labels: Tensor, masks: Tensor) -> Tensor:
        """The IoU (n,) of predicted labels (n, H, W) with masks (n, H, W), of the regions of ``iou``."""
        return region_iou(labels, masks, self.iou)

    def weights(
        self,
        episodes: int,
        shots: int,
        *,
        device: torch.device | None = None,
        cross_iou: Tensor | None = None,
    ) -> Tensor:
        """(B, K): U_k / K with U_k the mean IoU over the support images (Eq. 16-17).

        A support set in which no shot finds anything (all U_k = 0) gets equal weights, because Eq. 17 would
        make every score zero.
        """
        if shots == 1:
            return super().weights(episodes, shots, device=device)
        assert cross_iou is not None
        reliability = cross_iou.mean(dim=2)
        lost = (reliability.amax(dim=1, keepdim=True) <= 0).expand_as(reliability)
        reliability = torch.where(lost, torch.ones_like(reliability), reliability)
        return reliability / (shots if self.divisor is None else self.divisor)


def region_iou(
    predicted: Tensor, masks: Tensor, regions: Literal["foreground", "mean"] = "foreground"
) -> Tensor:
    """IoU (n,) of predicted labels (n, H, W) with masks (n, H, W); 1 where a region is empty in both.

    Source: SCL (Zhang et al. 2021), the IoU of Eq. 16. The paper's is the foreground's; the released code
    on PFENet takes the mean of foreground's and background's.
    """
    counted = masks != IGNORE
    foreground = (predicted == 1) & counted
    true = (masks == 1) & counted
    scores = [_iou(foreground, true)]
    if regions == "mean":
        scores.append(_iou(~foreground & counted, ~true & counted))
    return torch.stack(scores).mean(dim=0)


def _iou(predicted: Tensor, true: Tensor) -> Tensor:
    intersection = (predicted & true).sum(dim=(1, 2))
    union = (predicted | true).sum(dim=(1, 2))
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(intersection / 1.0))


_ROUNDING = 1e-5  # a loss that is larger by less is not larger


@dataclass(frozen=True, kw_only=True)
class IterativeInference(Fusion):
    """Gradient steps of the prototypes on the support loss; the sets' query maps are summed by rho_n.

    Only prototypes are differentiated: no pass through the backbone. It needs no training and depends on
    the support set alone. Where no set restores anything (all rho_n = 0) all weigh the same, because Eq. 13
    would find nothing anywhere.

    The guard is ours, the paper has none: a support set whose loss a step leaves above that of its start (the
    rate is too large) keeps the best set found so far, by the loss, for all remaining steps. A warning is
    given with and without it.

    Source: SRPNet (Ding et al. 2022), Eq. 12 and 13. The paper gives N = 5 and no rate. The steps start
    from the unit prototypes of Eq. 5, so that the rate does not depend on the scale of the features.

    Attributes:
        steps: N, sets collected (n = 1 .. N; the start is not among them). 0 is plain inference.
        rate: eta of Eq. 12, above 0; chosen on base classes, see docs/studies/prototypes.md.
        guard: whether a support set that diverges goes no further; False is Eq. 12 as printed.

    Raises:
        ValueError: fewer than 0 steps, or a rate that is not above 0.
    """

    kind: Literal["iterative"] = "iterative"
    steps: int = 5
    rate: float = 0.003
    guard: bool = field(default=True, metadata={"before": True})

    def __post_init__(self) -> None:
        check_at_least(self, 0, "steps")
        check_above(self, 0, "rate")

    def collect(self, pooled: Tensor, movable: Tensor, begin: Begin) -> Collected:
        """The prototype sets p_1 .. p_N; the judge of ``begin`` must be differentiable in its argument."""
        if self.steps == 0:
            return super().collect(pooled, movable, begin)
        with torch.inference_mode(False):
            return self._iterate(*begin(), movable)

    def _iterate(self, start: Tensor, judge: Judge, movable: Tensor) -> Collected:
        current = start
        gradient, first, rho = _judged(current, judge)
        diverged = torch.zeros_like(first, dtype=torch.bool)
        best, best_loss, best_rho = current, first, rho
        sets, weights = [], []
        for n in range(1, self.steps + 1):
            current = current - self.rate * gradient * movable.unsqueeze(2)
            if n < self.steps:
                gradient, loss, rho = _judged(current, judge)
            else:  # nothing moves after the last
                loss, rho = (values.detach() for values in judge(current))
            diverged = (
                diverged
                | ~(loss <= first * (1 + _ROUNDING))
                | ~torch.isfinite(gradient).flatten(1).all(dim=1)
            )
            if self.guard:
                current = torch.where(diverged.view(-1, 1, 1), best, current)
                gradient = torch.where(diverged.view(-1, 1, 1), torch.zeros_like(gradient), gradient)
                loss, rho = torch.where(diverged, best_loss, loss), torch.where(diverged, best_rho, rho)
            better = loss < best_loss
            best = torch.where(better.view(-1, 1, 1), current, best)
            best_loss, best_rho = torch.where(better, loss, best_loss), torch.where(better, rho, best_rho)
            sets.append(current)
            weights.append(rho)
        if bool(diverged.any()):
            warnings.warn(
                f"iterative inference: rate {self.rate:g} is too large for some support sets"
                f"{'; they keep their best prototypes' if self.guard else ''}: lower the rate",
                RuntimeWarning,
                stacklevel=3,
            )
        rho_n = torch.stack(weights, dim=1)
        lost = rho_n.amax(dim=1, keepdim=True) <= 0
        rho_n = torch.where(lost, torch.ones_like(rho_n), rho_n)
        return Collected(sets=torch.stack(sets, dim=1), weights=rho_n, diverged=diverged)


@dataclass(frozen=True, kw_only=True)
class JointFit(Fusion):
    """The K shots are one training set: the head is fitted to the cells of all of them."""

    kind: Literal["fit"] = "fit"


def _judged(prototypes: Tensor, judge: Judge) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the loss (Eq. 12), the loss and rho, all without a graph."""
    with torch.enable_grad():
        moving = prototypes.detach().requires_grad_(True)
        loss, rho = judge(moving)
        (gradient,) = torch.autograd.grad(loss.sum(), moving)
    return gradient, loss.detach(), rho.detach()


PairFusion = MeanVector | ScoreAverage | CrossGuided
"""Of methods that score (query, guide) pairs."""

PrototypeFusion = MeanVector | IterativeInference
"""Of methods that compare with prototypes."""

AttendedFusion = PairFusion | ShotAttention
"""Of methods that score pairs and can weigh the shots of one guide."""

AllFusion = AllVectors | ScoreAverage | CrossGuided
"""Of methods that score pairs and get several vectors of a shot."""

VotedFusion = Vote | ScoreAverage | CrossGuided
"""Of methods that compare the query with every cell of each shot."""

FUSIONS: dict[str, type[Fusion]] = {
    fusion.kind: fusion
    for fusion in (
        MeanVector,
        ScoreAverage,
        CrossGuided,
        ShotAttention,
        IterativeInference,
        JointFit,
        Vote,
        AllVectors,
    )
}
"""Every fusion by its name."""


def one_vs_rest(scores: Tensor) -> Tensor:
    """Joins two-class logits (n, N, 2, h, w) for N ways: (n, 1 + N, h, w), background first.

    A way's logit is its foreground's less its background's, and the background's is 0: the odds of each way
    against the background stay those of its own two-class answer.
    """
    margins = scores[:, :, 1] - scores[:, :, 0]
    return torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1)
