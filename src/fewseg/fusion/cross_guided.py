"""SCL's cross-guided module: shots that segment the other shots well weigh more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.types import IGNORE

CrossPath = Literal["query", "support"]


def region_iou(
    predicted: Tensor, masks: Tensor, regions: Literal["foreground", "mean"] = "foreground"
) -> Tensor:
    """IoU of predicted and true masks, image by image.

    Source: SCL (Zhang et al. 2021), the IoU of Eq. 16. The paper's is the foreground's; the released code
    on PFENet takes the mean of foreground's and background's.

    Args:
        predicted: (n, H, W) labels, 1 = foreground.
        masks: (n, H, W) uint8 in {0, 1, 255}; ignored pixels do not count.
        regions: which IoU.

    Returns:
        (n,) in [0, 1]; 1 where a region is empty in both.
    """
    counted = masks != IGNORE
    said = (predicted == 1) & counted
    true = (masks == 1) & counted
    scores = [_iou(said, true)]
    if regions == "mean":
        scores.append(_iou(~said & counted, ~true & counted))
    return torch.stack(scores).mean(dim=0)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    intersection = (a & b).sum(dim=(1, 2))
    union = (a | b).sum(dim=(1, 2))
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(intersection / 1.0))


@dataclass(frozen=True, kw_only=True)
class CrossGuided:
    """Scores weighted by how well each shot segments all the shots of the support set.

    Source: SCL (Zhang et al. 2021), Eq. 15-17. Needs no training.

    Attributes:
        iou: "foreground" (the paper) or "mean" of foreground and background (released code on PFENet).
        path: which path segments the supports: "query", the 1-shot model G as Eq. 15 has it, or "support",
            SCL's second support pass, without prior map (released code).
        divisor: what the weighted sum is divided by: None for K (Eq. 17), a number for a fixed one (the
            released code's literal 5).
    """

    kind: Literal["cross-guided"] = "cross-guided"
    iou: Literal["foreground", "mean"] = "foreground"
    path: CrossPath = "query"
    divisor: int | None = None

    def weights(self, cross_iou: Tensor) -> Tensor:
        """Weights of the shots' scores: U_k / K with U_k the mean IoU over the support images (Eq. 16-17).

        Args:
            cross_iou: (B, K, K), [b, k, i] the IoU of shot k's prediction of support image i.

        Returns:
            (B, K). A support set in which no shot finds anything (all U_k = 0) falls back to equal weights,
            because Eq. 17 would make every score zero.
        """
        reliability = cross_iou.mean(dim=2)
        shots = reliability.shape[1]
        lost = (reliability.amax(dim=1, keepdim=True) <= 0).expand_as(reliability)
        reliability = torch.where(lost, torch.ones_like(reliability), reliability)
        return reliability / (shots if self.divisor is None else self.divisor)
