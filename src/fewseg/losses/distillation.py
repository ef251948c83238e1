"""Distillation of one prototype by another."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_to_teacher(students: Tensor, teachers: Tensor) -> Tensor:
    """KL(d_t || d_s) with d_s the softmax of a prototype over its channels.

    Source: SD-AANet (Zhao et al. 2022), Eq. 4-5; the fraction of Eq. 5 is printed upside down, the
    divergence is sum d_t log(d_t / d_s).

    Args:
        students: (..., d) prototypes.
        teachers: (..., d) distributions over the channels.

    Returns:
        (...), at least 0.
    """
    own = students.float().log_softmax(dim=-1)
    taught = teachers.float()
    log_taught = taught.clamp(min=torch.finfo(taught.dtype).tiny).log()  # at 0 its gradient is finite too
    divergence: Tensor = (taught * (log_taught - own)).sum(dim=-1)
    return divergence


def tempered_kl(students: Tensor, teachers: Tensor, *, temperature: float, factor: float) -> Tensor:
    """KL between softened prototypes, averaged over every element instead of summed over channels.

    Source: the released code of SD-AANet: temperature 5, factor 0.9 * 25.

    Args:
        students: (..., d) prototypes.
        teachers: (..., d) prototypes.
        temperature: both are divided by it.
        factor: of the mean.

    Returns:
        (...): the mean over the d channels, times the factor.
    """
    softened = (teachers.float() / temperature).softmax(dim=-1)
    return kl_to_teacher(students / temperature, softened) * (factor / students.shape[-1])
