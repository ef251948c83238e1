"""Outlines as rings of points, the curves they are made of, and a smooth bend of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewseg.data.synthetic.stream import Stream

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """One shape: its filled rings and the holes in them, each (n, 2) points as x, y."""

    filled: tuple[Points, ...]
    holes: tuple[Points, ...] = ()


def polar(radius: Points, phase: float = 0.0) -> Points:
    """Returns the closed curve of the given radii at equal angles, the first one pointing up."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) + phase
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def circle(x: float, y: float, rx: float, ry: float | None = None, n: int = 48) -> Points:
    """Returns an ellipse about (x, y) with the radii rx and ry (rx by default)."""
    return polar(np.ones(n)) * [rx, rx if ry is None else ry] + [x, y]


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
    """Returns the outline under a smooth random displacement.

    Args:
        outline: the shape in the unit frame.
        s: the stream that the displacement is drawn from.
        strength: largest shift along either axis, in the unit of the frame.
    """
    phase, rate = s.array(2, 2) * 2 * np.pi, 1.0 + 1.6 * s.array(2, 2)

    def move(points: Points) -> Points:
        shift = np.sin(points @ rate.T + phase[0]) * np.cos(points[:, ::-1] * rate[1] + phase[1])
        return np.asarray(points + strength * shift)

    return Outline(tuple(map(move, outline.filled)), tuple(map(move, outline.holes)))
