"""Gradients: scaled against vanishing, averaged over processes, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric

from fewseg.engine.train_config import TrainConfig
from fewseg.types import LossTerms


class TrainingDivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite."""


def average_gradients(fabric: Fabric, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Puts the mean over all processes in the place of every gradient, by one reduction.

    Args:
        fabric: launched; nothing happens with one process.
        parameters: the same ones, in the same order, in every process; one that took no part in the loss
            counts as zero.
    """
    if fabric.world_size == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    mean = fabric.all_reduce(flat, reduce_op="mean")
    assert isinstance(mean, torch.Tensor)
    for p, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)


def loss_scaler(config: TrainConfig, fabric: Fabric) -> torch.amp.GradScaler:
    """Scales the loss in fp16, where small gradients vanish; does nothing otherwise."""
    enabled = config.precision == "16-mixed" and fabric.device.type == "cuda"
    return torch.amp.GradScaler(fabric.device.type, enabled=enabled)


def check_finite(
    loss: torch.Tensor,
    norm: torch.Tensor,
    scaler: torch.amp.GradScaler,
    terms: LossTerms,
    step: int,
    saved: Path,
) -> None:
    """Stops at a loss or gradient that is not finite; an overflow that the scaler answers is none."""
    finite = math.isfinite(float(loss))
    if finite and (math.isfinite(float(norm)) or (scaler.is_enabled() and scaler.get_scale() > 1.0)):
        return
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.terms.items())
    kept = f"{saved} keeps the last good state" if saved.exists() else "nothing was saved yet"
    raise TrainingDivergedError(
        f"step {step}: the loss or its gradient is not finite (gradient norm {float(norm):.4g}; {values}). "
        f"{kept}: lower the learning rate, set clip, or train in 32-true"
    )
