"""Shapes as masks.

Coordinates are continuous: (0, 0) is the image's top left corner, and pixel (x, y)
belongs to a shape when its centre (x + 1/2, y + 1/2) does. No shape costs more memory than a few masks,
wherever its points lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
Region = NDArray[np.bool_]
"""(H, W) bool."""


def polygon(points: Points, size: tuple[int, int]) -> Region:
    """Fills a closed polygon by the even-odd rule.

    Args:
        points: (x, y) of its corners; the last is joined with the first. An edge walked there and back counts
            not at all, so that one path may hold an outline and its holes.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.
    """
    height, width = size
    flips = np.zeros((height, width + 1), dtype=np.bool_)
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        # Upper end first, so that both directions of an edge cross the rows at the very same places.
        (x0, y0), (x1, y1) = sorted((start, end), key=lambda p: (p[1], p[0]))
        first = math.ceil(min(max(y0 - 0.5, 0), height))
        last = math.ceil(min(max(y1 - 0.5, 0), height))
        if first >= last:
            continue
        rows = np.arange(first, last)
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        columns = np.ceil(np.clip(x - 0.5, 0, width)).astype(np.intp)
        flips[rows, columns] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


def rectangle(
    x: float, y: float, width: float, height: float, size: tuple[int, int], degrees: float = 0.0
) -> Region:
    """Fills a rectangle, turned clockwise (as seen on the screen) about its top left corner (x, y).

    Args:
        x: left, pixels.
        y: top, pixels.
        width: pixels.
        height: pixels.
        size: (H, W) of the image.
        degrees: of the turn.

    Returns:
        (H, W) bool.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    return polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners], size)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, size: tuple[int, int], degrees: float = 0.0
) -> Region:
    """Fills an ellipse around (x, y), turned clockwise about its centre; all in pixels and degrees.

    Returns:
        (H, W) bool; nothing where a radius is 0.
    """
    if radius_x <= 0 or radius_y <= 0:
        return np.zeros(size, dtype=np.bool_)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dy = (np.arange(size[0]) + 0.5 - y)[:, None]
    dx = (np.arange(size[1]) + 0.5 - x)[None, :]
    inside: Region = ((dx * cos + dy * sin) / radius_x) ** 2 + ((dy * cos - dx * sin) / radius_y) ** 2 <= 1
    return inside


def stroke(points: Points, diameter: float, size: tuple[int, int]) -> Region:
    """Draws a line through points with round ends: pixels whose centre is within half a diameter of it.

    The pixel that holds a point is always drawn, so that a fine pen leaves a trace.

    Args:
        points: (x, y); one point makes a disc.
        diameter: of the pen, pixels.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.
    """
    height, width = size
    drawn = np.zeros(size, dtype=np.bool_)
    radius = diameter / 2
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[-1]], strict=True):
        top, bottom = _span(min(y0, y1) - radius, max(y0, y1) + radius, height)
        left, right = _span(min(x0, x1) - radius, max(x0, x1) + radius, width)
        dy = (np.arange(top, bottom) + 0.5 - y0)[:, None]
        dx = (np.arange(left, right) + 0.5 - x0)[None, :]
        ex, ey = x1 - x0, y1 - y0
        length = ex * ex + ey * ey
        along = np.clip((dx * ex + dy * ey) / length, 0, 1) if length > 0 else np.zeros((1, 1))
        drawn[top:bottom, left:right] |= (dx - along * ex) ** 2 + (dy - along * ey) ** 2 <= radius * radius
        if 0 <= x0 < width and 0 <= y0 < height:
            drawn[int(y0), int(x0)] = True
    return drawn


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """Returns the range of pixels that a range of coordinates touches, within the image."""
    return math.floor(min(max(low, 0), side)), math.ceil(min(max(high, 0), side))
