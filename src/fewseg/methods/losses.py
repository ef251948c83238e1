"""Losses: cross-entropy at full size, deep supervision, distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.resize import resize_by_products
from fewseg.types import IGNORE


def kl_to_teacher(students: Tensor, teachers: Tensor) -> Tensor:
    """KL(d_t || d_s) of distributions (..., d) to the softmax of prototypes (..., d) over their channels.

    Source: SD-AANet (Zhao et al. 2022), Eq. 4-5; the fraction of Eq. 5 is printed upside down, the
    divergence is sum d_t log(d_t / d_s).
    """
    log_students = students.float().log_softmax(dim=-1)
    taught = teachers.float()
    log_taught = taught.clamp(min=torch.finfo(taught.dtype).tiny).log()  # at 0 its gradient is finite too
    divergence: Tensor = (taught * (log_taught - log_students)).sum(dim=-1)
    return divergence


def tempered_kl(students: Tensor, teachers: Tensor, *, temperature: float, factor: float) -> Tensor:
    """KL between softened prototypes (..., d), averaged over every element instead of summed over channels.

    Source: the released code of SD-AANet: temperature 5, factor 0.9 * 25.
    """
    softened = (teachers.float() / temperature).softmax(dim=-1)
    return kl_to_teacher(students / temperature, softened) * (factor / students.shape[-1])


def cross_entropy_full_size(logits: Tensor, masks: Tensor, *, align_corners: bool = True) -> Tensor:
    """Mean cross-entropy of logits (n, 1 + N, h, w) at the size of masks (n, H, W); 0 if all is ignored.

    Softmax cross-entropy depends on the differences of the logits alone, and bilinear resizing is linear:
    resizing the differences to the background (one map of two classes, not two) gives the same number.

    Source: SCL (Zhang et al. 2021), Eq. 7, 10 and 13; SRPNet (Ding et al. 2022), Eq. 7 and 10.
    """
    terms, counted = _full_size_terms(logits, masks, align_corners)
    return terms.sum() / counted.sum().clamp(min=1)


def cross_entropy_each(logits: Tensor, masks: Tensor, *, align_corners: bool = True) -> Tensor:
    """The same mean, one for each of the n maps: (n,); 0 where every pixel is ignored."""
    terms, counted = _full_size_terms(logits, masks, align_corners)
    return _means(terms, counted)


def margins_to_background(logits: Tensor) -> Tensor:
    """Each way's logit less the background's, float32: (n, 1 + N, h, w) to (n, N, h, w)."""
    return (logits[:, 1:] - logits[:, :1]).float()


def cross_entropy_of_sets(margins: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy (B,) of sets, from margins (B * S, N, H, W) at the size of masks (B, S, H, W)."""
    terms, counted = _pixel_terms(margins, masks.flatten(0, 1))
    shape = masks.shape[:2]
    return _means(terms.unflatten(0, shape), counted.unflatten(0, shape))


def _means(terms: Tensor, counted: Tensor) -> Tensor:
    return terms.flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp(min=1)


def _full_size_terms(logits: Tensor, masks: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    margins = resize_by_products(margins_to_background(logits), size, align_corners=align_corners)
    return _pixel_terms(margins, masks)


def _pixel_terms(margins: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's cross-entropy, 0 where it is ignored, and which pixels count: both (n, H, W)."""
    counted = masks != IGNORE
    if margins.shape[1] == 1:
        ours, weights = (masks == 1).to(margins.dtype), counted.to(margins.dtype)
        terms = F.binary_cross_entropy_with_logits(margins.squeeze(1), ours, weights, reduction="none")
        return terms, counted
    logits = torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1)
    return F.cross_entropy(logits, masks.long(), ignore_index=IGNORE, reduction="none"), counted


def deep_supervision(inner: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Mean of the inner classifiers' full-size cross-entropies.

    Source: PFENet (Tian et al. 2020), Eq. 8.
    """
    return torch.stack([cross_entropy_full_size(logits, masks) for logits in inner]).mean()
