"""Letterboxing and its inverse: one copy, for training data and for inference.

All resizing uses pixel centres at half-integers (``align_corners=False``), so that ``restore`` undoes
``place``: pixel x of the original lies at (x + 1/2) w / W - 1/2 of the content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fewseg.types import IGNORE

IMAGENET_MEAN: tuple[float, float, float] = (0.485, 0.456, 0.406)
"""RGB in [0, 1]: the colour of padding, zero after a backbone's normalisation."""


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in its square view: top-left, its longer side filling the square."""

    original: tuple[int, int]  # (H, W) of the image, pixels
    size: int  # side of the square, pixels
    content: tuple[int, int]  # (h, w) of the resized image within the square, pixels


def scaled(hw: tuple[int, int], factor: float) -> tuple[int, int]:
    """Returns a size multiplied by a factor, rounded half up, one pixel at least."""
    return max(1, int(hw[0] * factor + 0.5)), max(1, int(hw[1] * factor + 0.5))


def letterbox(original_hw: tuple[int, int], size: int) -> Letterbox:
    """The box that keeps the aspect of ``original_hw`` in a square of ``size`` pixels."""
    if size < 1 or min(original_hw) < 1:
        raise ValueError(f"sizes are 1 pixel at least; got an image of {original_hw} and a square of {size}")
    height, width = int(original_hw[0]), int(original_hw[1])
    longer = max(height, width)
    # In integers: the same on every machine where a side falls on a half.
    h, w = (max(1, (2 * side * size + longer) // (2 * longer)) for side in (height, width))
    return Letterbox(original=(height, width), size=size, content=(h, w))


def stretched(original_hw: tuple[int, int], size: int) -> Letterbox:
    """The box in which an image fills the square of ``size`` pixels, its aspect lost."""
    return replace(letterbox(original_hw, size), content=(size, size))


def resize_images(images: Tensor, hw: tuple[int, int]) -> Tensor:
    """Resizes float images (n, C, H, W) or (C, H, W) to ``hw``: bilinear, antialiased."""
    batch = images if images.ndim == 4 else images[None]
    if tuple(batch.shape[-2:]) != tuple(hw):
        batch = functional.interpolate(batch, size=hw, mode="bilinear", align_corners=False, antialias=True)
    return batch if images.ndim == 4 else batch[0]


def resize_labels(labels: Tensor, hw: tuple[int, int]) -> Tensor:
    """Resizes labels (..., H, W) of any type to ``hw``: the nearest pixel centre."""
    if tuple(labels.shape[-2:]) == tuple(hw):
        return labels
    flat = labels.reshape(1, -1, *labels.shape[-2:])
    if flat.dtype != torch.uint8 and not flat.is_floating_point():  # torch interpolates no wide integers
        return resize_labels(labels.double(), hw).to(labels.dtype)
    return functional.interpolate(flat, size=hw, mode="nearest-exact").reshape(*labels.shape[:-2], *hw)


def pad_images(images: Tensor, size: int, colour: Sequence[float] = IMAGENET_MEAN) -> Tensor:
    """Pads (..., C, h, w) on the right and below to (..., C, size, size) with a colour of C values."""
    h, w = images.shape[-2:]
    fill = torch.as_tensor(colour, dtype=images.dtype, device=images.device)[:, None, None]
    canvas = fill.expand(*images.shape[:-2], size, size).clone()
    canvas[..., :h, :w] = images
    return canvas


def pad_labels(labels: Tensor, size: int, value: int = IGNORE) -> Tensor:
    """Pads (..., h, w) on the right and below to (..., size, size) with ``value``."""
    h, w = labels.shape[-2:]
    return functional.pad(labels, (0, size - w, 0, size - h), value=value)


def place(images: Tensor, box: Letterbox, colour: Sequence[float] = IMAGENET_MEAN) -> Tensor:
    """Puts float images (n, C, H, W) or (C, H, W) into their square: (..., C, size, size)."""
    return pad_images(resize_images(images, box.content), box.size, colour)


def place_labels(labels: Tensor, box: Letterbox) -> Tensor:
    """Puts labels (..., H, W) into their square: (..., size, size), padded with 255."""
    return pad_labels(resize_labels(labels, box.content), box.size)


def restore(logits: Tensor, box: Letterbox) -> Tensor:
    """Brings scores of the view (n, C, size, size), or of its content, to the original: (n, C, H, W)."""
    if tuple(logits.shape[-2:]) not in ((box.size, box.size), box.content):
        raise ValueError(
            f"scores of {tuple(logits.shape[-2:])} do not belong to a letterbox of {box.size} pixels: "
            "resize them to the view's size first"
        )
    h, w = box.content
    inside = logits[..., :h, :w]
    if box.content == box.original:
        return inside
    return functional.interpolate(inside, size=box.original, mode="bilinear", align_corners=False)
