"""One picture and its label map, drawn from one stream of random numbers.

A scene is a cluttered background, a subject of the wanted class, and one to three more objects,
a fair part of them of other classes. Colours are drawn without a look at the class, so that only
outline and pattern tell classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fewseg.data.synthetic.shapes import FAMILIES, Outline, Points, Stream, bent
from fewseg.data.synthetic.textures import PATTERNS, Plane
from fewseg.types import IGNORE

SUPERSAMPLING = 3
TYPICAL_PATTERN = 0.9
"""Share of a class's objects that wear the pattern of the class; the others wear any pattern."""

CLASS_PATTERNS: Mapping[str, str] = {
    **{"arrow": "chevrons", "bell": "stripes", "bottle": "grid", "butterfly": "dots", "comb": "checks"},
    **{"crescent": "speckle", "cross": "bricks", "droplet": "rings", "fish": "waves", "flower": "spokes"},
    **{"gear": "rings", "heart": "dots", "hourglass": "waves", "house": "bricks", "key": "stripes"},
    **{"leaf": "chevrons", "mushroom": "speckle", "ring": "checks", "star": "spokes", "tree": "grid"},
}
"""Each pattern belongs to two classes of different folds: it never names a class by itself, and the
patterns of a fold's unseen classes are all worn by some base class."""

Colour = NDArray[np.float32]
Canvas = NDArray[np.float32]
Labels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""
Window = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an object lies: centre and radius in pixels, and its linear map from frame to pixels."""

    centre: Points
    radius: float
    matrix: Points


def _colour(s: Stream, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Returns an RGB colour in [0, 1] of a uniform hue."""
    hue = s.uniform(0, 6)
    wheel = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    chroma = s.uniform(*saturation)
    return np.asarray(s.uniform(*value) * (1 - chroma * (1 - wheel)), dtype=np.float32)


def _luminance(colour: Colour) -> float:
    return float(colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def _colour_pair(s: Stream, contrast: float) -> tuple[Colour, Colour]:
    """Returns two colours whose luminances differ by at least ``contrast``, in either order."""
    while True:
        first, second = (_colour(s, (0.15, 1.0), (0.15, 1.0)) for _ in range(2))
        if abs(_luminance(first) - _luminance(second)) >= contrast:
            return first, second


def _linear_map(s: Stream, radius: float, turn: float) -> Points:
    """Returns a (2, 2) map of the unit frame: mirror, stretch, shear, turn up to ``turn`` radians, scale."""
    stretch = np.exp(s.uniform(-0.16, 0.16))
    mirror = -1.0 if s.chance(0.5) else 1.0
    shape = np.array([[mirror * stretch, s.uniform(-0.18, 0.18)], [0.0, 1 / stretch]])
    angle = s.uniform(-turn, turn)
    c, n = np.cos(angle), np.sin(angle)
    return np.asarray(radius * np.array([[c, -n], [n, c]]) @ shape)


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


def _box(place: Placement, size: int, reach: float = 1.45) -> Box:
    """Returns the part of the picture that a placed shape can touch; its centre lies in the picture."""
    low = np.maximum(np.floor(place.centre - reach * place.radius), 0).astype(int)
    high = np.minimum(np.ceil(place.centre + reach * place.radius), size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


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


def _paint(
    canvas: Canvas, outline: Outline, paint: Paint, place: Placement, s: Stream
) -> tuple[Window, Plane]:
    """Paints a shape onto the canvas; returns the window it lies in and the coverage there, in [0, 1]."""
    box = _box(place, canvas.shape[-1])
    alpha, (u, v) = _coverage(outline, place, box), _frame(place, box)
    first, second = _colour_pair(s, 0.3)
    blend = PATTERNS[paint.pattern](u, v, s)
    light = s.uniform(0, 2 * np.pi)
    shade = 1 + np.float32(0.18 * np.cos(light)) * u + np.float32(0.18 * np.sin(light)) * v
    window = (slice(None), slice(box[1], box[3]), slice(box[0], box[2]))
    under = canvas[window]
    if paint.relief:
        rim = alpha - _filtered(alpha, ImageFilter.MinFilter(3))
        shade *= 1 - np.float32(s.uniform(0, 0.7)) * rim
        shadow = np.roll(_filtered(alpha, ImageFilter.BoxBlur(2)), (2, 2), (0, 1))
        under *= 1 - np.float32(s.uniform(0.0, 0.4)) * shadow
    colour = first[:, None, None] + (second - first)[:, None, None] * blend
    under += (np.float32(paint.opacity) * alpha) * (colour * shade - under)
    return window, alpha


def _filtered(alpha: Plane, kernel: ImageFilter.Filter) -> Plane:
    image = Image.fromarray(np.asarray(alpha * 255 + 0.5, dtype=np.uint8))
    return np.asarray(image.filter(kernel), dtype=np.float32) / np.float32(255)


def _smooth_noise(s: Stream, size: int, cells: int) -> Plane:
    """Returns a smooth (size, size) field in [0, 1] from a coarse grid of random values."""
    coarse = Image.fromarray(s.array(cells, cells).astype(np.float32))
    fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray(np.clip(fine, 0, 1))


def _background(s: Stream, size: int) -> Canvas:
    """Returns a soft two-colour ground with textured blobs and strokes on it."""
    first, second = (_colour(s, (0.0, 0.6), (0.2, 1.0)) for _ in range(2))
    coarse, fine = _smooth_noise(s, size, 3 + s.below(3)), _smooth_noise(s, size, 10 + s.below(12))
    blend = np.float32(0.7) * coarse + np.float32(0.3) * fine
    canvas = first[:, None, None] + (second - first)[:, None, None] * blend
    for _ in range(1 + s.below(4)):
        place = _placement(s, size, s.uniform(0.08, 0.2) * size, turn=np.pi)
        radius = 0.75 + 0.4 * np.interp(
            np.linspace(0, 7, 42, endpoint=False), np.arange(8), _closed(s.array(7))
        )
        angle = np.linspace(0, 2 * np.pi, 42, endpoint=False)
        blob = Outline((np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1),))
        pattern = tuple(PATTERNS)[s.below(len(PATTERNS))]
        _paint(canvas, blob, Paint(pattern=pattern, opacity=s.uniform(0.2, 0.6), relief=False), place, s)
    for _ in range(s.below(5)):
        place = _placement(s, size, s.uniform(0.1, 0.4) * size, turn=np.pi)
        width = s.uniform(0.02, 0.06)
        stroke = Outline((np.array([(-1, -width), (1, -width), (1, width), (-1, width)]),))
        _paint(canvas, stroke, Paint(pattern="plain", opacity=s.uniform(0.4, 0.9), relief=False), place, s)
    return np.asarray(canvas, dtype=np.float32)


def _closed(values: Points) -> Points:
    return np.append(values, values[:1])


def _placement(
    s: Stream, size: int, radius: float, turn: float, taken: Sequence[Placement] = ()
) -> Placement:
    """Returns a place for an object, the freest of eight tries beside those already ``taken``."""
    matrix = _linear_map(s, radius, turn)
    best, room = np.zeros(2), -np.inf
    margin = 0.7 * radius
    for _ in range(8 if taken else 1):
        centre = margin + (size - 2 * margin) * s.array(2)
        gaps = [np.hypot(*(centre - p.centre)) - 0.85 * (radius + p.radius) for p in taken]
        free = float(min(gaps, default=0.0))
        if free > room:
            best, room = centre, free
        if room >= 0:
            break
    return Placement(centre=best, radius=radius, matrix=matrix)


def render(s: Stream, size: int, subject: int, pool: Sequence[int]) -> tuple[NDArray[np.uint8], Labels]:
    """Draws one scene.

    Args:
        s: the stream that everything in the scene is drawn from.
        size: height and width in pixels.
        subject: class id (1 .. 20, in the order of ``FAMILIES``) of the largest object.
        pool: class ids that the other objects are drawn from.

    Returns:
        The picture, (3, size, size) uint8 RGB, and its class ids, (size, size) uint8, with 0 for the
        background and 255 on the pixels that an outline crosses.
    """
    names = tuple(FAMILIES)
    canvas = _background(s, size)
    labels = np.zeros((size, size), dtype=np.uint8)
    taken: list[Placement] = []
    for k in range(2 + s.below(2)):
        class_id = subject if k == 0 or s.chance(0.2) else pool[s.below(len(pool))]
        name = names[class_id - 1]
        radius = size * (s.uniform(0.22, 0.34) if k == 0 else s.uniform(0.14, 0.28))
        place = _placement(s, size, radius, turn=0.5, taken=taken)
        outline = bent(FAMILIES[name](s), s, strength=0.06)
        patterns = tuple(PATTERNS)
        pattern = CLASS_PATTERNS[name] if s.chance(TYPICAL_PATTERN) else patterns[s.below(len(patterns))]
        (_, rows, columns), covered = _paint(canvas, outline, Paint(pattern=pattern), place, s)
        labels[rows, columns][covered > 0.02] = IGNORE
        labels[rows, columns][covered > 0.98] = class_id
        taken.append(place)
    canvas *= 1 + np.float32(0.25) * (_smooth_noise(s, size, 2) - np.float32(0.5))
    grain = np.float32(s.uniform(0.02, 0.12))
    canvas += grain * (s.array(3, size, size).astype(np.float32) - np.float32(0.5))
    return np.asarray(np.clip(canvas, 0, 1) * 255 + 0.5, dtype=np.uint8), labels
