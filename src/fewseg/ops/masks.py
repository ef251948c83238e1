"""Masks of {0, 1, 255}: from pixels to feature cells, pooling, label maps from margins, IoU of regions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.resize import resize
from fewseg.types import IGNORE

ForegroundRule = float | Literal["truncated"]
"""Which cells are foreground: those with at least this share of it, or the released SCL(CANet)'s rule."""


SmallObjects = Literal["touched", "sampled"]
"""Which cells an object has of which no cell has half: those it touches, or what bilinear sampling leaves."""


def foreground_cells(
    masks: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    small_objects: SmallObjects = "touched",
) -> Tensor:
    """The share of foreground (n, 1, h, w) of each feature cell, of masks (n, H, W) in {0, 1, 255}.

    Ignored pixels are not foreground. Where bilinear sampling leaves no cell with half of an object,
    "touched" takes the cells that it touches, so that it never vanishes; "sampled" keeps what sampling left,
    which may be no foreground at all. Binary at sides 8k + 1.
    """
    pixels = (masks == 1).unsqueeze(1).to(torch.float32)
    cells = resize(pixels, size)
    vanished = cells.amax(dim=(1, 2, 3)) < 0.5
    if small_objects == "touched" and bool(vanished.any()):
        touched = F.adaptive_max_pool2d(pixels[vanished], size)
        cells = cells.clone()
        cells[vanished] = touched
    return cells.to(dtype)


def covered_and_missed(
    cells: Tensor, predicted: Tensor, threshold: ForegroundRule = 0.5
) -> tuple[Tensor, Tensor]:
    """What a prediction (n, h, w) covers of the foreground cells (n, 1, h, w), and what it misses.

    Source: SCL (Zhang et al. 2021), the Iverson brackets of Eq. 5 and 6. The released code on PFENet counts a
    soft cell as foreground only where it is exactly 1 (``threshold=1.0``). That on CANet truncates
    prediction + mask to an integer (``threshold="truncated"``): 2 is covered and 1, where there is any
    foreground, is missed, so that a soft cell predicted foreground is missed and any other soft cell is in
    neither part. All rules agree at sides 8k + 1, where no cell is soft.
    """
    hit = (predicted == 1).unsqueeze(1)
    foreground = cells >= (1.0 if threshold == "truncated" else threshold)
    missed = foreground & ~hit
    if threshold == "truncated":
        missed = missed | ((cells > 0) & ~foreground & hit)
    return (foreground & hit).to(cells.dtype), missed.to(cells.dtype)


def labels_of_margins(margins: Tensor) -> Tensor:
    """Labels (n, H, W) in 0 .. N of margins over the background (n, N, H, W); 0 where none is above 0.

    Of equal ways the first. Much faster than an argmax over a short axis.
    """
    best, labels = margins[:, 0], (margins[:, 0] > 0).to(torch.uint8)
    for j in range(1, margins.shape[1]):
        above = (margins[:, j] > best) & (margins[:, j] > 0)
        labels = labels.masked_fill(above, j + 1)
        best = torch.maximum(best, margins[:, j])
    return labels


def mean_region_iou(labels: Tensor, masks: Tensor, ways: int) -> Tensor:
    """IoU (B,) of each way, summed over the S images of a set, and its mean over the ways.

    A way that is nowhere in labels and masks (B, S, H, W) counts 1; ignored pixels do not count.

    Source: SRPNet (Ding et al. 2022), rho of Eq. 13.
    """
    counted = masks != IGNORE
    scores = []
    for j in range(1, ways + 1):
        predicted, true = (labels == j) & counted, masks == j
        inter = (predicted & true).flatten(1).sum(dim=1)
        union = (predicted | true).flatten(1).sum(dim=1)
        scores.append(torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(inter / 1.0)))
    return torch.stack(scores).mean(dim=0)


AREA_EPS = 5e-4
"""Added to a mask's area, in cells, so that an empty mask pools to zeros (the PFENet family's constant)."""


def masked_average(features: Tensor, cells: Tensor, eps: float = AREA_EPS) -> Tensor:
    """Masked global average pooling: the mean (n, C) over the cells (n, 1, h, w), weights in [0, 1].

    Source: SCL (Zhang et al. 2021), Eq. 1; also PFENet, CANet, SD-AANet Eq. 2. The released PFENet family
    adds 5e-4 to the area (the default here), PANet 1e-5. An empty mask gives zeros.
    """
    total = (features * cells).sum(dim=(2, 3))
    area = cells.sum(dim=(2, 3))
    return total / (area + eps)


def masked_averages(features: Tensor, cells: Tensor, eps: float = AREA_EPS) -> Tensor:
    """``masked_average`` over R regions (n, R, h, w) at once, as one matrix product an item: (n, R, C)."""
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)  # a view of a channels-last map
    totals = torch.bmm(cells.flatten(2).to(rows.dtype), rows)
    return totals / (cells.flatten(2).sum(dim=2, keepdim=True) + eps)
