"""One picture and its label map, drawn from one stream of random numbers.

A scene is a cluttered ground, a subject of the wanted class, and one or two more objects, most of them
of other classes. Colours are drawn without a look at the class, so that only outline and pattern tell
classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.synthetic.outlines import Outline, Points, bent, box, polar
from fewseg.data.synthetic.paint import Canvas, Paint, Placement, colour, mix, paint_shape
from fewseg.data.synthetic.shapes import FAMILIES
from fewseg.data.synthetic.stream import Stream
from fewseg.data.synthetic.textures import PATTERNS, Plane
from fewseg.types import IGNORE

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


def _linear_map(s: Stream, radius: float, turn: float) -> Points:
    """Returns a (2, 2) map of the unit frame: mirror, stretch, shear, turn up to ``turn`` radians, scale."""
    stretch = np.exp(s.uniform(-0.16, 0.16))
    mirror = -1.0 if s.chance(0.5) else 1.0
    shape = np.array([[mirror * stretch, s.uniform(-0.18, 0.18)], [0.0, 1 / stretch]])
    angle = s.uniform(-turn, turn)
    c, n = np.cos(angle), np.sin(angle)
    return np.asarray(radius * np.array([[c, -n], [n, c]]) @ shape)


def _smooth_noise(s: Stream, size: int, cells: int) -> Plane:
    """Returns a smooth (size, size) field in [0, 1] from a coarse grid of random values."""
    coarse = Image.fromarray(s.array(cells, cells).astype(np.float32))
    fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray(np.clip(fine, 0, 1))


def _ground(s: Stream, size: int) -> Canvas:
    """Returns a soft ground in two colours."""
    first, second = (colour(s, (0.0, 0.6), (0.2, 1.0)) for _ in range(2))
    coarse, fine = _smooth_noise(s, size, 3 + s.below(3)), _smooth_noise(s, size, 10 + s.below(12))
    return mix(first, second, np.float32(0.7) * coarse + np.float32(0.3) * fine)


def _add_clutter(canvas: Canvas, s: Stream) -> None:
    """Paints one to four faint patterned blobs and up to four strokes, none of which is any class."""
    size = canvas.shape[-1]
    for _ in range(1 + s.below(4)):
        place = _placement(s, size, s.uniform(0.08, 0.2) * size, turn=np.pi)
        knots = s.array(7)
        bumps = np.interp(np.linspace(0, 7, 42, endpoint=False), np.arange(8), np.append(knots, knots[0]))
        paint = Paint(pattern=_any_pattern(s), opacity=s.uniform(0.2, 0.6), relief=False)
        paint_shape(canvas, Outline((polar(0.75 + 0.4 * bumps),)), paint, place, s)
    for _ in range(s.below(5)):
        place = _placement(s, size, s.uniform(0.1, 0.4) * size, turn=np.pi)
        width = s.uniform(0.02, 0.06)
        paint = Paint(pattern="plain", opacity=s.uniform(0.4, 0.9), relief=False)
        paint_shape(canvas, Outline((box(-1, -width, 1, width),)), paint, place, s)


def _any_pattern(s: Stream) -> str:
    return tuple(PATTERNS)[s.below(len(PATTERNS))]


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


def render(
    s: Stream, size: int, subject: int, pool: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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
    canvas = _ground(s, size)
    _add_clutter(canvas, s)
    labels = np.zeros((size, size), dtype=np.uint8)
    taken: list[Placement] = []
    for k in range(2 + s.below(2)):
        class_id = subject if k == 0 or s.chance(0.2) else pool[s.below(len(pool))]
        name = names[class_id - 1]
        radius = size * (s.uniform(0.27, 0.4) if k == 0 else s.uniform(0.19, 0.32))
        place = _placement(s, size, radius, turn=0.5, taken=taken)
        outline = bent(FAMILIES[name](s), s, strength=0.06)
        pattern = CLASS_PATTERNS[name] if s.chance(TYPICAL_PATTERN) else _any_pattern(s)
        (rows, columns), covered = paint_shape(canvas, outline, Paint(pattern=pattern), place, s)
        labels[rows, columns][covered > 0.02] = IGNORE
        labels[rows, columns][covered > 0.98] = class_id
        taken.append(place)
    canvas *= 1 + np.float32(0.25) * (_smooth_noise(s, size, 2) - np.float32(0.5))
    grain = np.float32(s.uniform(0.02, 0.12))
    canvas += grain * (s.array(3, size, size).astype(np.float32) - np.float32(0.5))
    return np.asarray(np.clip(canvas, 0, 1) * 255 + 0.5, dtype=np.uint8), labels
