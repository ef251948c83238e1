"""Optimisers with their learning-rate schedule, as parts of a training config."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class SGD:
    """SGD with a polynomial schedule: lr (1 - step / steps)^power.

    Source: PFENet (Tian et al. 2020), Sec. 4.1, and SCL (Zhang et al. 2021), Sec. 5.1: lr 2.5e-3,
    momentum 0.9, weight decay 1e-4, power 0.9.
    """

    lr: float = 2.5e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 <= step < steps."""
        return float(self.lr * (1.0 - step / steps) ** self.power)


@dataclass(frozen=True, kw_only=True)
class StepSGD:
    """SGD whose rate falls by a factor every so many steps: lr factor^floor(step / every).

    Source: PANet (Wang et al. 2019), Sec. 4.1, and SRPNet (Ding et al. 2022), Sec. 4.2: lr 1e-3, momentum
    0.9, weight decay 5e-4, x 0.1 every 10 000 of 30 000 steps.
    """

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    every: int = 10_000
    factor: float = 0.1

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step; ``steps`` does not matter."""
        del steps
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with a warm-up and a polynomial schedule; for short runs."""

    lr: float = 5e-4
    weight_decay: float = 1e-2
    power: float = 1.0
    warmup: int = 50

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 <= step < steps."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return float(self.lr * warm * (1.0 - step / steps) ** self.power)


Optimiser = SGD | StepSGD | AdamW
