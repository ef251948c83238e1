"""Pictures on which a mask is marked, and what is wrong with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Bools = NDArray[np.bool_]

WRONG = (230, 97, 1)
"""Orange: marked, but not the object."""
MISSED = (60, 130, 255)
"""Blue: the object, but not marked."""


def spotlight(picture: Picture, mask: Picture) -> Picture:
    """Returns the picture in colour where ``mask`` (H, W) is 1, pale grey elsewhere, with an outline."""
    marked = mask == 1
    return _outlined(np.where(marked[..., None], picture, _pale(picture)), marked)


def judged(picture: Picture, predicted: Bools, truth: Picture) -> Picture:
    """Returns the picture in colour where the mark is right, orange where wrong, blue where missed."""
    shown = np.where(predicted[..., None], picture, _pale(picture))
    for where, colour in ((predicted & (truth == 0), WRONG), (~predicted & (truth == 1), MISSED)):
        tint = 0.3 * picture.mean(axis=2, keepdims=True) + 0.7 * np.array(colour)
        shown = np.where(where[..., None], tint.astype(np.uint8), shown)
    return _outlined(shown, predicted)


def picture_of(image: Tensor) -> Picture:
    """Returns (3, H, W) uint8 as a picture."""
    return np.asarray(image.permute(1, 2, 0).numpy())


def _pale(picture: Picture) -> Picture:
    grey = 0.3 * picture.mean(axis=2, keepdims=True) + 165
    return np.broadcast_to(grey.astype(np.uint8), picture.shape)


def _outlined(picture: Picture, marked: Bools) -> Picture:
    """Darkens the unmarked pixels that touch a marked one."""
    return np.where((binary_dilation(marked) & ~marked)[..., None], np.uint8(30), picture)
