"""The rendered set: twenty classes of objects, each with its outlines and pattern, on cluttered grounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.data.folds import ClassSplit, even_split
from fewseg.data.source import known
from fewseg.types import IGNORE


class Stream:
    """Random numbers from PCG64's raw stream alone, which stays the same under every version of numpy."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def below(self, n: int) -> int:
        """Returns an integer in 0 .. n - 1."""
        return int(n * self._generator.random())

    def chance(self, probability: float) -> bool:
        """Returns true with the given probability."""
        return bool(self._generator.random() < probability)

    def array(self, *shape: int) -> NDArray[np.float64]:
        """Returns uniform numbers in [0, 1) of the given shape."""
        return self._generator.random(shape)


Points = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """One shape: its filled rings and the holes in them, each (n, 2) points as x, y."""

    filled: tuple[Points, ...]
    holes: tuple[Points, ...] = ()


def polar(radius: Points) -> Points:
    """Returns the closed curve of the given radii at equal angles, the first one pointing up."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def circle(x: float, y: float, rx: float, ry: float | None = None) -> Points:
    """Returns an ellipse about (x, y) with the radii rx and ry (rx by default)."""
    return polar(np.ones(48)) * [rx, rx if ry is None else ry] + [x, y]


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Returns an upright rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def mirrored(profile: list[tuple[float, float]], smooth: bool = True) -> Points:
    """Returns the closed outline whose half width at height y is given by (y, width) pairs, top down."""
    y, width = np.array(profile, dtype=np.float64).T
    if smooth:
        step = np.linspace(0, len(y) - 1, 60)
        cell = np.minimum(step.astype(int), len(y) - 2)
        t = step - cell
        t = t * t * (3 - 2 * t)
        width = width[cell] * (1 - t) + width[cell + 1] * t
        y = np.interp(step, np.arange(len(y)), y)
    right = np.stack([width, y], axis=1)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def bent(outline: Outline, s: Stream, strength: float) -> Outline:
    """Returns the outline under a smooth random displacement."""
    phase, rate = s.array(2, 2) * 2 * np.pi, 1.0 + 1.6 * s.array(2, 2)

    def move(points: Points) -> Points:
        shift = np.sin(points @ rate.T + phase[0]) * np.cos(points[:, ::-1] * rate[1] + phase[1])
        return np.asarray(points + strength * shift)

    return Outline(tuple(map(move, outline.filled)), tuple(map(move, outline.holes)))


Plane = NDArray[np.float32]
Pattern = Callable[[Plane, Plane, Stream], Plane]


def _edge(level: NDArray[np.floating], sharpness: float) -> Plane:
    """Returns a soft step of a signed level: 0 well below zero, 1 well above it."""
    return np.asarray(np.clip(0.5 + sharpness * level, 0, 1), dtype=np.float32)


def _turned(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * u + s * v, c * v - s * u


def _waves(x: NDArray[np.floating]) -> Plane:
    return np.asarray(np.sin(np.float32(2 * np.pi) * x), dtype=np.float32)


def plain(u: Plane, v: Plane, s: Stream) -> Plane:
    """A slow change from one colour to the other."""
    a, _ = _turned(u, v, s.uniform(0, 2 * np.pi))
    return _edge(a, 0.4)


def stripes(u: Plane, v: Plane, s: Stream) -> Plane:
    """Parallel straight bands."""
    a, _ = _turned(u, v, s.uniform(-0.5, 0.5))
    return _edge(_waves(a * s.uniform(1.6, 2.6) + s.uniform(0, 1)), 2.0)


def chevrons(u: Plane, v: Plane, s: Stream) -> Plane:
    """Bands folded along the middle line."""
    slope = s.uniform(0.7, 1.3)
    return _edge(_waves((v + slope * np.abs(u)) * s.uniform(1.6, 2.5) + s.uniform(0, 1)), 2.0)


def waves(u: Plane, v: Plane, s: Stream) -> Plane:
    """Bands that swing from side to side."""
    a, b = _turned(u, v, s.uniform(-0.4, 0.4))
    swing = s.uniform(0.1, 0.16) * _waves(a * s.uniform(1.3, 1.9) + s.uniform(0, 1))
    return _edge(_waves((b + swing) * s.uniform(1.8, 2.6) + s.uniform(0, 1)), 2.0)


def rings(u: Plane, v: Plane, s: Stream) -> Plane:
    """Circles about one centre."""
    r = np.hypot(u - s.uniform(-0.25, 0.25), v - s.uniform(-0.25, 0.25))
    return _edge(_waves(r * s.uniform(2.0, 3.0) + s.uniform(0, 1)), 2.0)


def spokes(u: Plane, v: Plane, s: Stream) -> Plane:
    """Sectors about one centre."""
    angle = np.arctan2(v - s.uniform(-0.15, 0.15), u - s.uniform(-0.15, 0.15)) / np.float32(2 * np.pi)
    return _edge(_waves(angle * (6 + s.below(5)) + s.uniform(0, 1)), 2.0)


def dots(u: Plane, v: Plane, s: Stream) -> Plane:
    """Discs on a square lattice."""
    a, b = _turned(u, v, s.uniform(-0.5, 0.5))
    rate = s.uniform(1.6, 2.4)
    a, b = a * rate + s.uniform(0, 1), b * rate + s.uniform(0, 1)
    distance = np.hypot(a - np.round(a), b - np.round(b))
    return _edge(s.uniform(0.26, 0.36) - distance, 6.0)


def checks(u: Plane, v: Plane, s: Stream) -> Plane:
    """A chessboard."""
    a, b = _turned(u, v, s.uniform(-0.4, 0.4))
    rate = s.uniform(1.2, 1.8)
    return _edge(_waves(a * rate + s.uniform(0, 1)) * _waves(b * rate + s.uniform(0, 1)), 4.0)


def grid(u: Plane, v: Plane, s: Stream) -> Plane:
    """Thin lines that cross."""
    a, b = _turned(u, v, s.uniform(-0.4, 0.4))
    rate, width = s.uniform(1.6, 2.4), s.uniform(0.09, 0.14)
    a, b = a * rate + s.uniform(0, 1), b * rate + s.uniform(0, 1)
    return _edge(width - np.minimum(np.abs(a - np.round(a)), np.abs(b - np.round(b))), 8.0)


def bricks(u: Plane, v: Plane, s: Stream) -> Plane:
    """Courses of bricks, every other one shifted by half a brick."""
    rate, joint = s.uniform(1.8, 2.6), s.uniform(0.08, 0.13)
    b = v * rate + s.uniform(0, 1)
    course = np.floor(b)
    a = u * rate * 0.6 + s.uniform(0, 1) + 0.5 * np.mod(course, 2)
    across, along = np.abs(b - np.round(b)), np.abs(a - np.round(a))
    return _edge(np.minimum(across, along / 0.6) - joint, 8.0).astype(np.float32)


def speckle(u: Plane, v: Plane, s: Stream) -> Plane:
    """Irregular patches."""
    total = np.zeros_like(u)
    for _ in range(5):
        a, _ = _turned(u, v, s.uniform(0, 2 * np.pi))
        total += _waves(a * s.uniform(1.5, 3.2) + s.uniform(0, 1))
    return _edge(total, 0.8)


PATTERNS: Mapping[str, Pattern] = {
    f.__name__: f
    for f in (plain, stripes, chevrons, waves, rings, spokes, dots, checks, grid, bricks, speckle)
}


Family = Callable[[Stream], Outline]


def arrow(s: Stream) -> Outline:
    """A shaft and a triangular head."""
    neck, shaft = s.uniform(-0.2, 0.15), s.uniform(0.26, 0.4)
    barb = s.uniform(0.0, 0.2)
    half = [(-1.0, 0.0), (neck + barb, s.uniform(0.72, 0.92)), (neck, shaft), (1.0, shaft)]
    return Outline((mirrored(half, smooth=False),))


def bell(s: Stream) -> Outline:
    """A dome that flares to a lip, with a clapper below."""
    waist, lip = s.uniform(0.42, 0.6), s.uniform(0.8, 0.98)
    profile = [(-0.85, 0.08), (-0.7, 0.35), (-0.3, waist), (0.2, waist + 0.08), (0.6, lip), (0.72, lip)]
    knob = circle(0, -0.88, s.uniform(0.1, 0.17))
    return Outline((mirrored(profile), knob, circle(0, 0.76, s.uniform(0.16, 0.26))))


def bottle(s: Stream) -> Outline:
    """A wide body, shoulders, a narrow neck and a cap."""
    body, neck = s.uniform(0.36, 0.55), s.uniform(0.12, 0.2)
    shoulder = s.uniform(-0.35, 0.05)
    cap = neck + s.uniform(0.02, 0.08)
    top = [(-1, cap), (-0.86, cap), (-0.85, neck)]
    profile = [*top, (shoulder - 0.25, neck), (shoulder + 0.1, body), (1, body)]
    return Outline((mirrored(profile, smooth=s.chance(0.5)),))


def butterfly(s: Stream) -> Outline:
    """Two large upper wings, two smaller lower ones and a thin body."""
    upper, lower = s.uniform(0.46, 0.58), s.uniform(0.32, 0.44)
    tilt = s.uniform(0.75, 1.15)
    rings = [circle(0, 0.05, 0.11, 0.7)]
    for side in (-1, 1):
        rings.append(circle(side * 0.5, -0.38, upper * 0.92, upper * tilt))
        rings.append(circle(side * 0.42, 0.46, lower, lower * s.uniform(0.95, 1.25)))
    return Outline(tuple(rings))


def comb(s: Stream) -> Outline:
    """A back with a row of teeth."""
    teeth, back = 3 + s.below(3), s.uniform(-0.3, 0.0)
    fill, height = s.uniform(0.48, 0.6), s.uniform(0.6, 0.75)
    pitch = 2 / (teeth - 1 + fill)
    lefts = [-1 + i * pitch for i in range(teeth)]
    rings = [box(left, back - 0.05, left + fill * pitch, height) for left in lefts]
    return Outline((box(-1, -height, 1, back), *rings))


def crescent(s: Stream) -> Outline:
    """A moon: a disc less a disc that is shifted sideways."""
    shift, bite = s.uniform(0.32, 0.5), s.uniform(0.7, 0.85)
    start = np.arccos(np.clip((1 + shift**2 - bite**2) / (2 * shift), -1, 1))
    outer = np.linspace(start, 2 * np.pi - start, 60)
    tip = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    half = np.arctan2(tip[0, 1], tip[0, 0] - shift)
    inner = np.linspace(2 * np.pi - half, half, 60)
    return Outline(
        (np.concatenate([tip, np.stack([shift + bite * np.cos(inner), bite * np.sin(inner)], axis=1)]),)
    )


def cross(s: Stream) -> Outline:
    """Two bars at a right angle."""
    arm, other = s.uniform(0.22, 0.36), s.uniform(0.22, 0.36)
    middle = s.uniform(-0.25, 0.05)
    return Outline((box(-arm, -1, arm, 1), box(-0.95, middle - other, 0.95, middle + other)))


def droplet(s: Stream) -> Outline:
    """A pointed top that swells into a round bottom."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    width = np.sin(t) * np.sin(t / 2) ** s.uniform(1.1, 2.2) * s.uniform(0.75, 0.95)
    return Outline((np.stack([width, -np.cos(t)], axis=1),))


def fish(s: Stream) -> Outline:
    """An oval body, a forked tail and a fin on the back."""
    height, tail = s.uniform(0.42, 0.58), s.uniform(0.42, 0.62)
    fork = np.array([(0.3, 0), (1, -tail), (s.uniform(0.7, 0.85), 0), (1, tail)])
    back = s.uniform(-0.2, 0.1)
    fin = [(back - 0.3, -0.6 * height), (back + 0.25, -height - 0.28), (back + 0.4, -0.4 * height)]
    return Outline((circle(-0.25, 0, 0.75, height), fork, np.array(fin)))


def flower(s: Stream) -> Outline:
    """Round petals about a centre."""
    petals, reach = 5 + s.below(4), s.uniform(0.54, 0.7)
    petal = max(reach * np.sin(np.pi / petals), 0.27) * s.uniform(0.88, 1.08)
    angles = [2 * np.pi * k / petals for k in range(petals)]
    rings = [circle(reach * np.sin(a), -reach * np.cos(a), petal) for a in angles]
    return Outline((circle(0, 0, reach * 0.95), *rings))


def gear(s: Stream) -> Outline:
    """A toothed wheel with a hole for the axle."""
    teeth, depth = 7 + s.below(5), s.uniform(0.18, 0.28)
    wave = np.cos(np.linspace(0, 2 * np.pi * teeth, 40 * teeth, endpoint=False))
    radius = 1 - depth + depth * np.clip(0.5 + wave * s.uniform(1.5, 4), 0, 1)
    return Outline((polar(radius),), (circle(0, 0, s.uniform(0.22, 0.38)),))


def heart(s: Stream) -> Outline:
    """Two lobes above a point."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return Outline((np.stack([np.sin(t) ** 3 * s.uniform(0.85, 1.1), y * s.uniform(0.85, 1.1)], axis=1),))


def hourglass(s: Stream) -> Outline:
    """Two bulbs joined at a waist, between two plates."""
    wide, waist = s.uniform(0.5, 0.68), s.uniform(0.08, 0.18)
    plate = wide + s.uniform(0.06, 0.16)
    profile = [(-0.9, wide), (-0.55, wide * 0.95), (0, waist), (0.55, wide * 0.95), (0.9, wide)]
    bars = (box(-plate, -1, plate, -0.8), box(-plate, 0.8, plate, 1))
    return Outline((mirrored(profile, smooth=s.chance(0.6)), *bars))


def house(s: Stream) -> Outline:
    """Walls, a gabled roof, a chimney and a door."""
    wall, eaves = s.uniform(0.6, 0.75), s.uniform(-0.25, 0.0)
    roof = np.array([(-wall - 0.18, eaves), (0, -1), (wall + 0.18, eaves)])
    side, door = s.uniform(0.3, 0.45), s.uniform(0.14, 0.22)
    shift = s.uniform(-0.3, 0.3)
    chimney = box(side, -0.85, side + 0.2, eaves)
    return Outline(
        (box(-wall, eaves - 0.02, wall, 0.9), roof, chimney), (box(shift - door, 0.3, shift + door, 0.92),)
    )


def key(s: Stream) -> Outline:
    """A round bow with a hole, a shaft and a bit of two or three teeth."""
    bow, shaft = s.uniform(0.42, 0.54), s.uniform(0.15, 0.22)
    rights = [1 - 0.26 * k for k in range(2 + s.below(2))]
    teeth = [box(right - 0.16, 0, right, s.uniform(0.42, 0.6)) for right in rights]
    rings = (circle(-0.58, 0, bow), box(-0.4, -shaft, 1, shaft), *teeth)
    return Outline(rings, (circle(-0.6, 0, bow * s.uniform(0.38, 0.52)),))


def leaf(s: Stream) -> Outline:
    """A blade with a wavy edge, pointed at both ends, on a stalk."""
    y = np.linspace(-1, 0.7, 50)
    t = (y + 1) / 1.7
    width = np.sin(np.pi * t ** s.uniform(0.75, 1.2)) * s.uniform(0.5, 0.68)
    width *= 1 + s.uniform(0.0, 0.14) * np.cos(2 * np.pi * t * (4 + s.below(4)))
    blade = mirrored(list(zip(y, width, strict=True)), smooth=False)
    return Outline((blade, box(-0.07, 0.5, 0.07, 1)))


def mushroom(s: Stream) -> Outline:
    """A domed cap on a stem."""
    rim, stem = s.uniform(-0.1, 0.15), s.uniform(0.2, 0.34)
    angle = np.linspace(np.pi, 2 * np.pi, 40)
    dome = np.stack([0.95 * np.cos(angle), rim + (rim + s.uniform(0.75, 0.95)) * np.sin(angle)], axis=1)
    foot = stem * s.uniform(1.0, 1.5)
    return Outline((dome, np.array([(-stem, rim - 0.05), (stem, rim - 0.05), (foot, 0.95), (-foot, 0.95)])))


def ring(s: Stream) -> Outline:
    """A band around a large opening."""
    squash, hole = s.uniform(0.75, 1.0), s.uniform(0.5, 0.64)
    return Outline((circle(0, 0, 1, squash),), (circle(0, 0, hole, hole * squash),))


def star(s: Stream) -> Outline:
    """Five to seven straight points."""
    points, inner = 5 + s.below(3), s.uniform(0.42, 0.58)
    return Outline((polar(np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)),))


def tree(s: Stream) -> Outline:
    """A conifer: two or three stacked triangles on a trunk."""
    tiers, width = 2 + s.below(2), s.uniform(0.75, 0.95)
    rings = [box(-0.13, 0.5, 0.13, 1)]
    for k in range(tiers):
        top, foot = -1 + 1.25 * k / (tiers + 0.5), -1 + 1.7 * (k + 1) / tiers
        half = width * (k + 1.6) / (tiers + 0.6)
        rings.append(np.array([(0, top), (half, foot), (-half, foot)]))
    return Outline(tuple(rings))


FAMILIES: Mapping[str, Family] = {
    f.__name__: f
    for f in (
        *(arrow, bell, bottle, butterfly, comb),
        *(crescent, cross, droplet, fish, flower),
        *(gear, heart, hourglass, house, key),
        *(leaf, mushroom, ring, star, tree),
    )
}


SUPERSAMPLING = 3
CONTRAST = 0.3
"""Least difference in luminance between the two colours of a pattern."""

Colour = NDArray[np.float32]
Rgb = NDArray[np.float32]
"""(3, size, size) RGB, about [0, 1]."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a shape lies: centre and radius in pixels, and its (2, 2) linear map from frame to pixels."""

    centre: Points
    radius: float
    matrix: Points


def colour(s: Stream, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Returns an RGB colour in [0, 1] of a uniform hue."""
    hue = s.uniform(0, 6)
    wheel = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    chroma = s.uniform(*saturation)
    return np.asarray(s.uniform(*value) * (1 - chroma * (1 - wheel)), dtype=np.float32)


def mix(first: Colour, second: Colour, share: Plane) -> Rgb:
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
    canvas: Rgb,
    outline: Outline,
    pattern: str,
    place: Placement,
    s: Stream,
    clutter_opacity: float | None = None,
) -> tuple[tuple[slice, slice], Plane]:
    """Paints a shape; returns the rows and columns it lies in and the coverage there, in [0, 1]."""
    box = _bounds(outline, place, canvas.shape[-1])
    alpha, (u, v) = _coverage(outline, place, box), _frame(place, box)
    first, second = _colour_pair(s)
    blend = PATTERNS[pattern](u, v, s)
    light = s.uniform(0, 2 * np.pi)
    shade = 1 + np.float32(0.18 * np.cos(light)) * u + np.float32(0.18 * np.sin(light)) * v
    window = (slice(box[1], box[3]), slice(box[0], box[2]))
    under = canvas[:, *window]
    if clutter_opacity is None:
        rim = alpha - _filtered(alpha, ImageFilter.MinFilter(3))
        shade *= 1 - np.float32(s.uniform(0, 0.7)) * rim
        shadow = np.roll(_filtered(alpha, ImageFilter.BoxBlur(2)), (2, 2), (0, 1))
        under *= 1 - np.float32(s.uniform(0.0, 0.4)) * shadow
    lit = mix(first, second, blend) * shade
    under += (np.float32(1.0 if clutter_opacity is None else clutter_opacity) * alpha) * (lit - under)
    return window, alpha


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


def _ground(s: Stream, size: int) -> Rgb:
    """Returns a soft ground in two colours."""
    first, second = (colour(s, (0.0, 0.6), (0.2, 1.0)) for _ in range(2))
    coarse, fine = _smooth_noise(s, size, 3 + s.below(3)), _smooth_noise(s, size, 10 + s.below(12))
    return mix(first, second, np.float32(0.7) * coarse + np.float32(0.3) * fine)


def _add_clutter(canvas: Rgb, s: Stream) -> None:
    """Paints one to four faint patterned blobs and up to four strokes, none of which is any class."""
    size = canvas.shape[-1]
    for _ in range(1 + s.below(4)):
        place = _placement(s, size, s.uniform(0.08, 0.2) * size, turn=np.pi)
        knots = s.array(7)
        bumps = np.interp(np.linspace(0, 7, 42, endpoint=False), np.arange(8), np.append(knots, knots[0]))
        pattern, opacity = _any_pattern(s), s.uniform(0.2, 0.6)
        paint_shape(canvas, Outline((polar(0.75 + 0.4 * bumps),)), pattern, place, s, opacity)
    for _ in range(s.below(5)):
        place = _placement(s, size, s.uniform(0.1, 0.4) * size, turn=np.pi)
        width = s.uniform(0.02, 0.06)
        opacity = s.uniform(0.4, 0.9)
        paint_shape(canvas, Outline((box(-1, -width, 1, width),)), "plain", place, s, opacity)


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
    """Draws one scene."""
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
        (rows, columns), covered = paint_shape(canvas, outline, pattern, place, s)
        labels[rows, columns][covered > 0.02] = IGNORE
        labels[rows, columns][covered > 0.98] = class_id
        taken.append(place)
    canvas *= 1 + np.float32(0.25) * (_smooth_noise(s, size, 2) - np.float32(0.5))
    grain = np.float32(s.uniform(0.02, 0.12))
    canvas += grain * (s.array(3, size, size).astype(np.float32) - np.float32(0.5))
    return np.asarray(np.clip(canvas, 0, 1) * 255 + 0.5, dtype=np.uint8), labels


_VERSION = 1  # part of every key: a change of what is drawn is a change of this number

SYNTHETIC_CLASSES: Mapping[int, str] = {i + 1: name for i, name in enumerate(FAMILIES)}
"""Class id 1 .. 20 -> name, in alphabetical order within each fold's five."""


def synthetic_5i(fold: int) -> ClassSplit:
    """Returns the split of a fold: fold i tests classes 5i+1 .. 5i+5, as in PASCAL-5i.

    Raises:
        ValueError: the fold is not 0, 1, 2 or 3.
    """
    return even_split(SYNTHETIC_CLASSES, folds=4, fold=fold, name="synthetic-5i")


class SyntheticSource:
    """A few-shot set that is drawn, not stored.

    Image i is a function of (split, seed, i) alone, and so is the scene when only the size changes. Its
    largest object is of class i modulo the number of classes, so every class is the subject of the same
    number of images (one more or less); the other objects are of any class of the set. Rendered images
    stay in memory.

    Args:
        images: how many.
        size: height and width, pixels.
        seed: a different seed gives a different set.
        classes: ids of the classes that are drawn; None draws all twenty. A training set of base classes
            only has never shown a novel class, not even as background, which is stricter than PASCAL-5i.
        split: "train" and "val" of one seed share no image.

    Raises:
        ValueError: no image, a size below 32, no class, or a class outside 1 .. 20.
    """

    def __init__(
        self,
        images: int,
        size: int,
        seed: int = 0,
        classes: Iterable[int] | None = None,
        split: Literal["train", "val"] = "train",
    ) -> None:
        pool = tuple(sorted(set(SYNTHETIC_CLASSES if classes is None else classes)))
        unknown = [c for c in pool if c not in SYNTHETIC_CLASSES]
        if images < 1 or size < 32 or not pool or unknown or split not in ("train", "val"):
            raise ValueError(
                f"a synthetic set needs one image or more, a size of 32 pixels or more, classes of 1..20 and "
                f"the split 'train' or 'val'; got {images} images, size {size}, classes {pool}, {split!r}"
            )
        self.name = f"synthetic-{split}"
        self.class_names: Mapping[int, str] = dict(SYNTHETIC_CLASSES)
        self.ids = tuple(f"{split}-{i:05d}" for i in range(images))
        self.size = size
        self.classes = pool
        self._key = ("synthetic", _VERSION, split, seed)
        self._position = {id: i for i, id in enumerate(self.ids)}
        self._rendered: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns (H, W) in pixels, the same for every image."""
        known(self, self._position, id)
        return self.size, self.size

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB."""
        return self._pair(id)[0]

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, class ids, and 255 on the pixels that an outline crosses."""
        return self._pair(id)[1]

    def digest(self) -> str:
        """Returns a SHA-256 of everything that the pictures depend on."""
        facts = (self._key, len(self.ids), self.size, self.classes, PIL.__version__)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _pair(self, id: str) -> tuple[Tensor, Tensor]:
        if id not in self._rendered:
            i = known(self, self._position, id)
            stream = Stream(Draws(*self._key, i).integer())
            picture, labels = render(stream, self.size, self.classes[i % len(self.classes)], self.classes)
            self._rendered[id] = (torch.from_numpy(picture), torch.from_numpy(labels))
        return self._rendered[id]
