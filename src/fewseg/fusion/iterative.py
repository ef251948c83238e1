"""Iterative query inference: several sets of prototypes, each better fitted to the supports, that vote."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_ROUNDING = 1e-5  # a loss that is larger by less is not larger

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prototypes (B, P, C) -> the loss L_sup (B,) and the IoU rho (B,) on the supports."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Prototype sets of B support sets.

    Attributes:
        sets: (B, T, P, C).
        weights: (B, T) rho_n; equal where no set finds anything on the supports.
        diverged: (B,), whether a step left the loss on the supports above that of the start.
    """

    sets: Tensor
    weights: Tensor
    diverged: Tensor


@dataclass(frozen=True, kw_only=True)
class IterativeInference:
    """Gradient steps of the prototypes on the support loss; the sets' query maps are summed by rho_n.

    Only prototypes are differentiated: no pass through the backbone. It needs no training and depends on
    the support set alone. A support set whose loss a step leaves above that of its start (a rate that is too
    large) keeps the best set found so far, by the loss, for all remaining steps, and a warning is given.

    Source: SRPNet (Ding et al. 2022), Eq. 12 and 13. The paper gives N = 5 and no rate. The steps start
    from the unit prototypes of Eq. 5, so that the rate does not hang on the scale of the features.

    Attributes:
        steps: N, sets collected (n = 1 .. N; the start is not among them). 0 is plain inference.
        rate: eta of Eq. 12, chosen on base classes, see docs/results.md.
    """

    kind: Literal["iterative"] = "iterative"
    steps: int = 5
    rate: float = 0.003

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.rate > 0:
            raise ValueError(
                f"iterative inference needs steps >= 0 and a rate > 0, got {self.steps} and {self.rate}"
            )

    def collect(self, start: Tensor, movable: Tensor, judge: Judge) -> Collected:
        """Collects the prototype sets p_1 .. p_N.

        Args:
            start: p_0, (B, P, C).
            movable: (B, P), prototypes that exist; the others stay.
            judge: scores a set on the supports; differentiable in its argument.
        """
        episodes = start.shape[0]
        diverged = torch.zeros(episodes, dtype=torch.bool, device=start.device)
        if self.steps == 0:
            return Collected(sets=start.unsqueeze(1), weights=start.new_ones(episodes, 1), diverged=diverged)
        current = start
        gradient, first, rho = _judged(current, judge)
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
                f"iterative inference: rate {self.rate:g} is too large for some support sets; they keep "
                "their best prototypes: lower the rate",
                RuntimeWarning,
                stacklevel=2,
            )
        rho_n = torch.stack(weights, dim=1)
        lost = rho_n.amax(dim=1, keepdim=True) <= 0
        rho_n = torch.where(lost, torch.ones_like(rho_n), rho_n)
        return Collected(sets=torch.stack(sets, dim=1), weights=rho_n, diverged=diverged)


def _judged(prototypes: Tensor, judge: Judge) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the loss (Eq. 12), the loss and rho, all without a graph."""
    with torch.enable_grad():
        moving = prototypes.detach().requires_grad_(True)
        loss, rho = judge(moving)
        (gradient,) = torch.autograd.grad(loss.sum(), moving)
    return gradient, loss.detach(), rho.detach()
