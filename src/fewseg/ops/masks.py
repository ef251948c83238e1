"""Masks of {0, 1, 255}: from pixels to feature cells, and apart into regions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.resize import resize

ForegroundRule = float | Literal["truncated"]
"""Which cells are foreground: those with at least this share of it, or the released SCL(CANet)'s rule."""


def foreground_cells(masks: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Brings pixel masks to the feature grid.

    Ignored pixels (255) are not foreground. A thing so small that bilinear sampling leaves no cell with
    half of it falls back to the cells that it touches, so that an annotated object never vanishes.

    Args:
        masks: (n, H, W) in {0, 1, 255}.
        size: (h, w) of the feature grid.
        dtype: floating type of the result.

    Returns:
        (n, 1, h, w) share of foreground in [0, 1]; binary when H = 8 (h - 1) + 1 and so for W.
    """
    pixels = (masks == 1).unsqueeze(1).to(torch.float32)
    cells = resize(pixels, size)
    vanished = cells.amax(dim=(1, 2, 3)) < 0.5
    if bool(vanished.any()):
        touched = F.adaptive_max_pool2d(pixels[vanished], size)
        cells = cells.clone()
        cells[vanished] = touched
    return cells.to(dtype)


def covered_and_missed(
    cells: Tensor, predicted: Tensor, threshold: ForegroundRule = 0.5
) -> tuple[Tensor, Tensor]:
    """Parts a foreground mask into what a prediction covers and what it misses.

    Source: SCL (Zhang et al. 2021), the Iverson brackets of Eq. 5 and 6. The released code on PFENet counts a
    soft cell as foreground only where it is exactly 1 (``threshold=1.0``). That on CANet truncates
    prediction + mask to an integer (``threshold="truncated"``): 2 is covered and 1, where there is any
    foreground, is missed, so that a soft cell predicted foreground is missed and another soft cell is in
    neither part. All rules agree at sides 8k + 1, where no cell is soft.

    Args:
        cells: (n, 1, h, w) share of foreground in [0, 1].
        predicted: (n, h, w) predicted labels, 1 = foreground.
        threshold: least share that makes a cell foreground, in (0, 1], or "truncated".

    Returns:
        ``[M = 1][M^ = 1]`` and ``[M = 1][M^ != 1]``, each (n, 1, h, w) in {0, 1}, of the type of ``cells``.
    """
    hit = (predicted == 1).unsqueeze(1)
    foreground = cells >= (1.0 if threshold == "truncated" else threshold)
    missed = foreground & ~hit
    if threshold == "truncated":
        missed = missed | ((cells > 0) & ~foreground & hit)
    return (foreground & hit).to(cells.dtype), missed.to(cells.dtype)
