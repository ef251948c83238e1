"""How an image of any size becomes square views of the network's size, and how answers come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.ops.geometry import Letterbox, letterbox, place, place_labels, restore

_EDGE = 1e-3  # a tile's weight at its rim, so that a pixel seen by rims only has an answer


@dataclass(frozen=True)
class Window:
    """A part of an image and where it lies in its view.

    Attributes:
        top, left: its corner in the image, pixels.
        box: its own letterbox; ``box.original`` is its (height, width).
    """

    top: int
    left: int
    box: Letterbox

    def cut(self, pixels: Tensor) -> Tensor:
        """Returns its part of (..., H, W)."""
        h, w = self.box.original
        return pixels[..., self.top : self.top + h, self.left : self.left + w]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole image in one view: aspect kept, resized to fit. Small things in large images get lost."""

    def windows(self, hw: tuple[int, int], size: int) -> tuple[Window, ...]:
        """One window for an image (H, W) and a network of ``size`` pixels."""
        return (Window(0, 0, letterbox(hw, size)),)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Overlapping square tiles, spread evenly; an image no larger than a tile is one view.

    Attributes:
        side: of a tile in image pixels; None for the network's size, so that nothing is resized.
        overlap: least share of a tile that its neighbour sees too, in [0, 0.9].

    Raises:
        ValueError: out of range.
    """

    side: int | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if (self.side is not None and self.side < 1) or not 0 <= self.overlap <= 0.9:
            raise ValueError(
                f"tiles of side {self.side} and overlap {self.overlap}: give a side of 1 pixel at least and "
                "an overlap in [0, 0.9]"
            )

    def windows(self, hw: tuple[int, int], size: int) -> tuple[Window, ...]:
        """The windows of an image (H, W) for a network of ``size`` pixels, row by row."""
        side = self.side or size
        rows, columns = (_starts(length, side, self.overlap) for length in hw)
        tile = (min(side, hw[0]), min(side, hw[1]))
        return tuple(Window(top, left, letterbox(tile, size)) for top in rows for left in columns)


Views = Whole | Tiles


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    step = max(1, int(side * (1 - overlap)))
    count = -(-(length - side) // step) + 1
    return [(length - side) * k // (count - 1) for k in range(count)]


def view_images(pixels: Tensor, windows: Sequence[Window]) -> Tensor:
    """Cuts the views of an image.

    Args:
        pixels: (3, H, W) uint8 RGB.
        windows: n windows of one letterbox size.

    Returns:
        (n, 3, S, S) float32 in [0, 1].
    """
    return torch.stack([place(window.cut(pixels).float() / 255, window.box) for window in windows])


def view_masks(mask: Tensor, windows: Sequence[Window]) -> Tensor:
    """Cuts the views of a mask; what is outside the image becomes 255.

    A thing so small that resizing skips it keeps the pixels that it lies in.

    Args:
        mask: (H, W) uint8 in {0, 1, 255}.
        windows: n windows of one letterbox size.

    Returns:
        (n, S, S) uint8 in {0, 1, 255}.
    """
    found = []
    for window in windows:
        part = window.cut(mask)
        view = place_labels(part, window.box)
        here = (part == 1).nonzero()
        if len(here) and not bool((view == 1).any()):
            (h, w), (height, width) = window.box.content, window.box.original
            view[here[:, 0] * h // height, here[:, 1] * w // width] = 1
        found.append(view)
    return torch.stack(found)


def join_views(maps: Tensor, windows: Sequence[Window], hw: tuple[int, int]) -> Tensor:
    """Brings the answers of an image's views together.

    One view gives its content at the network's resolution (bring it to the image with :func:`to_size`);
    several give the mean at the image's size, where a tile counts less towards its rim.

    Args:
        maps: (n, N, S, S), any real scores.
        windows: the n windows.
        hw: (H, W) of the image.

    Returns:
        (N, h, w) or (N, H, W).
    """
    if len(windows) == 1:
        h, w = windows[0].box.content
        return maps[0, :, :h, :w]
    total = maps.new_zeros(maps.shape[1], *hw)
    weight = maps.new_zeros(hw)
    for answer, window in zip(maps, windows, strict=True):
        h, w = window.box.original
        ramp = _ramp(h, maps).unsqueeze(1) * _ramp(w, maps)
        window.cut(total).add_(restore(answer.unsqueeze(0), window.box)[0] * ramp)
        window.cut(weight).add_(ramp)
    return total.div_(weight)


def _ramp(length: int, like: Tensor) -> Tensor:
    """Weights (length,) from the rim to the middle."""
    places = torch.arange(length, dtype=like.dtype, device=like.device)
    return (torch.minimum(places + 0.5, length - places - 0.5) * 2 / length).clamp(min=_EDGE)


def to_size(maps: Tensor, hw: tuple[int, int]) -> Tensor:
    """Brings (N, h, w) of :func:`join_views` to the image's size (N, H, W), bilinear."""
    if tuple(maps.shape[-2:]) == hw:
        return maps
    return torch.nn.functional.interpolate(maps.unsqueeze(0), size=hw, mode="bilinear", align_corners=False)[
        0
    ]
