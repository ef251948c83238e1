"""Several ways from a method of two classes."""

from __future__ import annotations

import torch
from torch import Tensor


def one_vs_rest(scores: Tensor) -> Tensor:
    """Joins the two-class answers for N ways: the way with the largest margin, background where none wins.

    A way's logit is its foreground's less its background's, and the background's is 0: the odds of each way
    against the background stay those of its own two-class answer.

    Args:
        scores: (n, N, 2, h, w) logits, background first.

    Returns:
        (n, 1 + N, h, w) logits, background first.
    """
    margins = scores[:, :, 1] - scores[:, :, 0]
    return torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1)
