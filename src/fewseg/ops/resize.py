"""The one way in which maps change size inside a network, and its adjoint."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Resizes (n, C, h, w) maps to ``size`` bilinearly; ``maps`` itself when the size is right already.

    Aligned corners are the convention of the PFENet family: with image sides 8k + 1 and maps of side k + 1
    the corners of the cells fall on pixels, so that a resized binary mask stays binary. Released PANet:
    False.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def pixels_to_cells(pixels: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """The adjoint of ``resize``: gives the weights (n, H, W) of pixels to their cells, (n, 1, h, w).

    ``sum(resize(maps) * pixels) == sum(maps * pixels_to_cells(pixels))``, without a map at image size. The
    sum of the weights stays the number of pixels, however small the object is.
    """
    height, width = (
        _interpolation(cells, int(side), align_corners).to(pixels.device)
        for cells, side in zip(size, pixels.shape[-2:], strict=True)
    )
    return (height @ pixels.float() @ width.T).unsqueeze(1)


def resize_by_products(maps: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """``resize`` of maps of few channels as two matrix products, whose backward pass is cheap on a CPU."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    height, width = (
        _interpolation(int(cells), side, align_corners).to(maps.device)
        for cells, side in zip(maps.shape[-2:], size, strict=True)
    )
    with torch.autocast(maps.device.type, enabled=False):
        return height.T @ maps @ width


@lru_cache(maxsize=64)
def _interpolation(cells: int, pixels: int, align_corners: bool) -> Tensor:
    """(cells, pixels): the share of each cell in each pixel."""
    with torch.inference_mode(False):  # what is kept must serve gradients too, whoever asked first
        unit = torch.eye(cells).unsqueeze(0)
        if cells == pixels:
            return unit[0]
        return F.interpolate(unit, size=pixels, mode="linear", align_corners=align_corners)[0]
