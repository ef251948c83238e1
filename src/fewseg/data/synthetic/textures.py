"""Eleven surface patterns, each a function of the coordinates of the object.

A pattern maps (u, v), the object's own frame in which the object fills about [-1, 1] squared, to a
blend weight in [0, 1] between the object's two colours. The frame moves with the object, so a
pattern turns and scales with it. Which two colours is no business of a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fewseg.data.synthetic.stream import Stream

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
