"""Label maps, and their IoU with masks, set by set."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.types import IGNORE


def labels_of_margins(margins: Tensor) -> Tensor:
    """The way with the largest margin over the background; 0, background, where none is above 0.

    Args:
        margins: (n, N, H, W), each way's logit less the background's.

    Returns:
        (n, H, W) uint8 in 0 .. N; of equal ways the first. Much faster than an argmax over a short axis.
    """
    best, labels = margins[:, 0], (margins[:, 0] > 0).to(torch.uint8)
    for j in range(1, margins.shape[1]):
        above = (margins[:, j] > best) & (margins[:, j] > 0)
        labels = labels.masked_fill(above, j + 1)
        best = torch.maximum(best, margins[:, j])
    return labels


def mean_region_iou(labels: Tensor, masks: Tensor, ways: int) -> Tensor:
    """IoU of each way, summed over the images of a set, and its mean over the ways.

    Source: SRPNet (Ding et al. 2022), rho of Eq. 13.

    Args:
        labels: (B, S, H, W) predicted, 0 .. N.
        masks: (B, S, H, W) in {0, 1 .. N, 255}; ignored pixels do not count.
        ways: N.

    Returns:
        (B,) in [0, 1]; a way that is nowhere, neither predicted nor true, counts 1.
    """
    counted = masks != IGNORE
    found = []
    for j in range(1, ways + 1):
        said, true = (labels == j) & counted, masks == j
        inter = (said & true).flatten(1).sum(dim=1)
        union = (said | true).flatten(1).sum(dim=1)
        found.append(torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(inter / 1.0)))
    return torch.stack(found).mean(dim=0)
