"""Shapes as pixels: anti-aliased coverage, a pattern in two colours, light, rim and shadow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fewseg.data.synthetic.outlines import Outline, Points
from fewseg.data.synthetic.stream import Stream
from fewseg.data.synthetic.textures import PATTERNS, Plane

SUPERSAMPLING = 3
CONTRAST = 0.3
"""Least difference in luminance between the two colours of a pattern."""

Colour = NDArray[np.float32]
Canvas = NDArray[np.float32]
"""(3, size, size) RGB, about [0, 1]."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""
Window = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a shape lies: centre and radius in pixels, and its (2, 2) linear map from frame to pixels."""

    centre: Points
    radius: float
    matrix: Points


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How a shape is painted: which pattern, how opaque, and whether it stands out from the ground.

    Attributes:
        pattern: name of the pattern.
        opacity: in [0, 1].
        relief: darken the rim and cast a shadow (objects) or lie flat on the ground (clutter).
    """

    pattern: str
    opacity: float = 1.0
    relief: bool = True


def colour(s: Stream, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Returns an RGB colour in [0, 1] of a uniform hue."""
    hue = s.uniform(0, 6)
    wheel = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    chroma = s.uniform(*saturation)
    return np.asarray(s.uniform(*value) * (1 - chroma * (1 - wheel)), dtype=np.float32)


def mix(first: Colour, second: Colour, share: Plane) -> Canvas:
    """Returns the picture (3, h, w) that goes from the first colour to the second with ``share`` (h, w)."""
    return np.asarray(first[:, None, None] + (second - first)[:, None, None] * share, dtype=np.float32)


def _luminance(colour: Colour) -> float:
    return float(colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def _colour_pair(s: Stream) -> tuple[Colour, Colour]:
    """Returns two colours whose luminances differ by at least ``CONTRAST``, in either order."""
    while True:
        first, second = (colour(s, (0.15, 1.0), (0.15, 1.0)) for _ in range(2))
        if abs(_luminance(first) - _luminance(second)) >= CONTRAST:
            return first, second


def _bounds(outline: Outline, place: Placement, size: int) -> Box:
    """Returns the part of the picture that a placed shape can touch: one pixel at least."""
    points = np.concatenate(outline.filled) @ place.matrix.T + place.centre
    low = np.clip(np.floor(points.min(axis=0) - 1), 0, size - 1).astype(int)
    high = np.maximum(np.clip(np.ceil(points.max(axis=0) + 4), 0, size).astype(int), low + 1)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _coverage(outline: Outline, place: Placement, box: Box) -> Plane:
    """Returns the share of each pixel of ``box`` (left, top, right, bottom) that the shape covers."""
    left, top, right, bottom = box
    image = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    pen = ImageDraw.Draw(image)
    for rings, value in ((outline.filled, 255), (outline.holes, 0)):
        for points in rings:
            pixels = (points @ place.matrix.T + place.centre - (left, top)) * SUPERSAMPLING - 0.5
            pen.polygon([(x, y) for x, y in pixels.tolist()], fill=value)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)


def _frame(place: Placement, box: Box) -> tuple[Plane, Plane]:
    """Returns the object's own coordinates (u, v) of the pixel centres of ``box``."""
    left, top, right, bottom = box
    inverse = np.linalg.inv(place.matrix).astype(np.float32)
    x = np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - place.centre[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - place.centre[1])
    return inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y


def _filtered(alpha: Plane, kernel: ImageFilter.Filter) -> Plane:
    image = Image.fromarray(np.asarray(alpha * 255 + 0.5, dtype=np.uint8))
    return np.asarray(image.filter(kernel), dtype=np.float32) / np.float32(255)


def paint_shape(
    canvas: Canvas, outline: Outline, paint: Paint, place: Placement, s: Stream
) -> tuple[Window, Plane]:
    """Paints a shape onto the canvas; returns the window it lies in and the coverage there, in [0, 1]."""
    box = _bounds(outline, place, canvas.shape[-1])
    alpha, (u, v) = _coverage(outline, place, box), _frame(place, box)
    first, second = _colour_pair(s)
    blend = PATTERNS[paint.pattern](u, v, s)
    light = s.uniform(0, 2 * np.pi)
    shade = 1 + np.float32(0.18 * np.cos(light)) * u + np.float32(0.18 * np.sin(light)) * v
    window = (slice(box[1], box[3]), slice(box[0], box[2]))
    under = canvas[:, *window]
    if paint.relief:
        rim = alpha - _filtered(alpha, ImageFilter.MinFilter(3))
        shade *= 1 - np.float32(s.uniform(0, 0.7)) * rim
        shadow = np.roll(_filtered(alpha, ImageFilter.BoxBlur(2)), (2, 2), (0, 1))
        under *= 1 - np.float32(s.uniform(0.0, 0.4)) * shadow
    lit = mix(first, second, blend) * shade
    under += (np.float32(paint.opacity) * alpha) * (lit - under)
    return window, alpha
