"""Cross-entropy of two-class maps at full size, and its deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.resize import resize
from fewseg.types import IGNORE


def cross_entropy_full_size(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean two-class cross-entropy after the logits are brought to the mask's size.

    Two-class softmax cross-entropy depends on the difference of the two logits alone, and bilinear
    resizing is linear: resizing the difference (one map, not two) gives the same number at half the cost.

    Source: SCL (Zhang et al. 2021), Eq. 7, 10 and 13.

    Args:
        logits: (n, 2, h, w), background first.
        masks: (n, H, W) uint8 in {0, 1, 255}; 255 is left out of the mean.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    difference = (logits[:, 1:] - logits[:, :1]).float()
    difference = resize(difference, (int(masks.shape[-2]), int(masks.shape[-1]))).squeeze(1)
    counted = masks != IGNORE
    sign = 1.0 - 2.0 * (masks == 1).to(difference.dtype)
    terms = F.softplus(sign * difference) * counted
    return terms.sum() / counted.sum().clamp(min=1)


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
