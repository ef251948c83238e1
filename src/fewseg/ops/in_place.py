"""Sums that write where they may: fresh memory costs a large map more time than the addition."""

from __future__ import annotations

import torch
from torch import Tensor


def plus(own: Tensor, other: Tensor) -> Tensor:
    """``own + other``, written into ``own`` where no gradient is asked for.

    Args:
        own: a result that nobody else holds.
        other: broadcasts to its shape.
    """
    return own + other if torch.is_grad_enabled() else own.add_(other)
