"""Cross-entropy of class maps at full size, and its deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.resize import resize
from fewseg.types import IGNORE


def cross_entropy_full_size(logits: Tensor, masks: Tensor, *, align_corners: bool = True) -> Tensor:
    """Mean cross-entropy after the logits are brought to the mask's size.

    Source: SCL (Zhang et al. 2021), Eq. 7, 10 and 13; SRPNet (Ding et al. 2022), Eq. 7 and 10.

    Args:
        logits: (n, 1 + N, h, w), background first.
        masks: (n, H, W) uint8 in {0, 1 .. N, 255}; 255 is left out of the mean.
        align_corners: how the logits are resized.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    terms, counted = _pixel_terms(logits, masks, align_corners)
    return terms.sum() / counted.sum().clamp(min=1)


def cross_entropy_each(logits: Tensor, masks: Tensor, items: int, *, align_corners: bool = True) -> Tensor:
    """The same mean, one for each of ``items`` groups of equally many maps, in order.

    Args:
        logits: (items * S, 1 + N, h, w).
        masks: (items * S, H, W).
        items: number of groups.
        align_corners: how the logits are resized.

    Returns:
        (items,); 0 where every pixel of a group is ignored.
    """
    terms, counted = _pixel_terms(logits, masks, align_corners)
    sums = terms.flatten(1).sum(dim=1).view(items, -1).sum(dim=1)
    return sums / counted.flatten(1).sum(dim=1).view(items, -1).sum(dim=1).clamp(min=1)


def _pixel_terms(logits: Tensor, masks: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Each pixel's cross-entropy, 0 where it is ignored, and which pixels count: both (n, H, W).

    Two-class softmax cross-entropy depends on the difference of the two logits alone, and bilinear
    resizing is linear: resizing the difference (one map, not two) gives the same number at half the cost.
    """
    counted = masks != IGNORE
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    if logits.shape[1] == 2:
        difference = (logits[:, 1:] - logits[:, :1]).float()
        difference = resize(difference, size, align_corners=align_corners).squeeze(1)
        sign = 1.0 - 2.0 * (masks == 1).to(difference.dtype)
        return F.softplus(sign * difference) * counted, counted
    full = resize(logits.float(), size, align_corners=align_corners)
    return F.cross_entropy(full, masks.long(), ignore_index=IGNORE, reduction="none"), counted


def deep_supervision(inner: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Mean of the inner classifiers' full-size cross-entropies.

    Source: PFENet (Tian et al. 2020), Eq. 8.

    Args:
        inner: logits (n, 2, h_b, w_b), one a scale; at least one.
        masks: (n, H, W) uint8 in {0, 1, 255}.

    Returns:
        Scalar.
    """
    return torch.stack([cross_entropy_full_size(logits, masks) for logits in inner]).mean()
