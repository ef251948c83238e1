"""Shapes as masks.

Coordinates are continuous: (0, 0) is the image's top left corner, and pixel (x, y)
belongs to a shape when its centre (x + 1/2, y + 1/2) does. No shape costs more memory than a few masks,
wherever its points lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewseg.annotations.values import AnnotatedImage, Mask, OnlyIgnoredError
from fewseg.types import IGNORE, DataError

Points = Sequence[tuple[float, float]]
Region = NDArray[np.bool_]
"""(H, W) bool."""

MOST_POINTS = 10**6  # of a shape
_MOST_ROWS = 10**9  # that the edges of a polygon may cross
_MOST_PIXELS = 2**29  # that the parts of a line may lie in


def check_points(count: int, what: str) -> None:
    """Raises a DataError if a shape has too many points."""
    if count > MOST_POINTS:
        raise DataError(f"{what} must have up to {MOST_POINTS} points, got {count}: give it as a mask")


def polygon(points: Points, size: tuple[int, int]) -> Region:
    """Fills a closed polygon by the even-odd rule; a DataError where its edges would take minutes."""
    check_points(len(points), "a polygon")
    height, width = size
    crossed = 0
    flips = np.zeros((height, width + 1), dtype=np.bool_)
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        # Upper end first, so that both directions of an edge cross the rows at the very same places.
        (x0, y0), (x1, y1) = sorted((start, end), key=lambda p: (p[1], p[0]))
        first = math.ceil(min(max(y0 - 0.5, 0), height))
        last = math.ceil(min(max(y1 - 0.5, 0), height))
        if first >= last:
            continue
        crossed += last - first
        if crossed > _MOST_ROWS:
            raise DataError(
                f"the edges of a polygon must cross up to {_MOST_ROWS} rows of pixels, got {len(points)} "
                "points that cross more: give it as a mask"
            )
        rows = np.arange(first, last)
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        columns = np.ceil(np.clip(x - 0.5, 0, width)).astype(np.intp)
        flips[rows, columns] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


def rectangle(
    x: float, y: float, width: float, height: float, size: tuple[int, int], degrees: float = 0.0
) -> Region:
    """Fills a rectangle, turned clockwise (as seen on the screen) about its top left corner (x, y)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    return polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners], size)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, size: tuple[int, int], degrees: float = 0.0
) -> Region:
    """Fills an ellipse around (x, y), turned clockwise about its centre; all in pixels and degrees."""
    if radius_x <= 0 or radius_y <= 0:
        return np.zeros(size, dtype=np.bool_)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dy = (np.arange(size[0]) + 0.5 - y)[:, None]
    dx = (np.arange(size[1]) + 0.5 - x)[None, :]
    with np.errstate(over="ignore", invalid="ignore"):  # of radii near 0, or of a centre far away
        along, across = (dx * cos + dy * sin) / radius_x, (dy * cos - dx * sin) / radius_y
        inside: Region = along**2 + across**2 <= 1
    return inside


def stroke(points: Points, diameter: float, size: tuple[int, int]) -> Region:
    """Draws a line with round ends: pixels within half a diameter of it, and those that hold a point."""
    return _lines(points, chain(islice(points, 1, None), points[-1:]), diameter, size)


def dots(points: Points, diameter: float, size: tuple[int, int]) -> Region:
    """Draws points that no line joins, as :func:`stroke` does one."""
    return _lines(points, points, diameter, size)


def _lines(
    starts: Points, ends: Iterable[tuple[float, float]], diameter: float, size: tuple[int, int]
) -> Region:
    """Draws lines with round ends, box by box of their pixels; a DataError where that would take minutes."""
    check_points(len(starts), "a line")
    height, width = size
    drawn = np.zeros(size, dtype=np.bool_)
    radius, looked_at = diameter / 2, 0
    for (x0, y0), (x1, y1) in zip(starts, ends, strict=True):
        ex, ey = x1 - x0, y1 - y0
        length = ex * ex + ey * ey
        for top, bottom, left, right in _boxes((x0, y0), (x1, y1), radius, size):
            looked_at += (bottom - top) * (right - left)
            if looked_at > _MOST_PIXELS:
                raise DataError(
                    f"the parts of a line must lie in up to {_MOST_PIXELS} pixels, got {len(starts)} points "
                    f"and a width of {diameter:g} that need more: give a smaller width, or a mask"
                )
            dy = (np.arange(top, bottom) + 0.5 - y0)[:, None]
            dx = (np.arange(left, right) + 0.5 - x0)[None, :]
            along = np.clip((dx * ex + dy * ey) / length, 0, 1) if length > 0 else np.zeros((1, 1))
            near = (dx - along * ex) ** 2 + (dy - along * ey) ** 2 <= radius * radius
            drawn[top:bottom, left:right] |= near
        if 0 <= x0 < width and 0 <= y0 < height:
            drawn[int(y0), int(x0)] = True
    return drawn


def _boxes(
    start: tuple[float, float], end: tuple[float, float], radius: float, size: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """Yields boxes (top, bottom, left, right) that hold all pixels near a line, along its longer side."""
    down = abs(end[1] - start[1]) >= abs(end[0] - start[0])
    # (along, across) the longer side
    (a0, c0), (a1, c1) = sorted((p[::-1] if down else p) for p in (start, end))
    sides = size if down else size[::-1]
    first, last = _span(a0 - radius, a1 + radius, sides[0])
    step = max(_STEP, math.ceil(2 * radius)) if max(map(abs, (a0, c0, a1, c1))) < _EXACT else max(sides)
    slope = (c1 - c0) / (a1 - a0) if a1 > a0 else 0.0
    for low in range(first, last, step):
        high = min(low + step, last)
        if step < last - first:  # a pixel's nearest point lies within the radius along and across
            ends = [c0 + (min(max(a, a0), a1) - a0) * slope for a in (low - radius, high + radius)]
            near = _span(min(ends) - radius - 1, max(ends) + radius + 1, sides[1])
        else:
            near = _span(min(c0, c1) - radius, max(c0, c1) + radius, sides[1])
        yield (low, high, *near) if down else (*near, low, high)


_STEP = 32  # pixels along a line: of fewer, arithmetic costs less than the calls
_EXACT = 1e6  # coordinates below are exact to much less than a pixel


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """Returns the range of pixels that a range of coordinates touches, within the image."""
    return math.floor(min(max(low, 0), side)), math.ceil(min(max(high, 0), side))


BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__"})
"""Labels of shapes that are none of the classes."""
IGNORE_NAMES = frozenset({"ignore", "__ignore__"})
"""Labels of shapes to leave out."""

Kind = Literal["region", "scribble", "box"]


class Canvas:
    """Collects the shapes of one image.

    - a region (polygon, mask, rectangle) is foreground inside; shapes of one class are joined;
    - a box is a region, and counted, since what it holds is more than the thing;
    - a class that has regions and boxes only is background elsewhere;
    - a class that has a scribble is unknown (255) elsewhere, but background where another class or a shape
      labelled ``background`` or ``_background_`` is; where a class is, the class counts;
    - a shape labelled ``ignore`` or ``__ignore__`` is 255 for all classes, where they are not foreground.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._regions: dict[str, Region] = {}
        self._scribbled: set[str] = set()
        self._boxes = 0
        self._background = np.zeros(size, dtype=np.bool_)
        self._ignored = np.zeros(size, dtype=np.bool_)

    def add(self, label: str, region: Region, kind: Kind = "region") -> None:
        """Adds a shape."""
        if label in BACKGROUND_NAMES:
            self._background |= region
        elif label in IGNORE_NAMES:
            self._ignored |= region
        else:
            known = self._regions.get(label)
            self._regions[label] = region if known is None else known | region
            self._boxes += kind == "box"
            if kind == "scribble":
                self._scribbled.add(label)

    def masks(self) -> Mapping[str, Mask]:
        """Returns class -> (H, W) uint8 in {0, 1, 255}; classes without a foreground pixel too."""
        masks: dict[str, Mask] = {}
        for label, region in self._regions.items():
            mask = np.zeros(self.size, dtype=np.uint8)
            if label in self._scribbled:
                mask[:] = IGNORE
                mask[self._background] = 0
                for other, other_region in self._regions.items():
                    if other != label:
                        mask[other_region] = 0
            mask[self._ignored] = IGNORE
            mask[region] = 1
            masks[label] = mask
        return masks

    def annotated(self, image: Path, listed: Iterable[str] = ()) -> AnnotatedImage:
        """Returns the image with its masks; an OnlyIgnoredError where pixels are ignored and no class is."""
        if self._ignored.any() and not any(region.any() for region in self._regions.values()):
            raise OnlyIgnoredError("ignored regions and no class")
        # Neighbours share a line of pixels at most, which erosion removes.
        over = self._background.any() and any(
            ndimage.binary_erosion(region & self._background).any() for region in self._regions.values()
        )
        assumed = {
            "boxes without an outline, filled whole": self._boxes,
            "images with a background shape over a class, where the class counts": int(over),
        }
        names = (name for name in dict.fromkeys(listed) if name not in (*BACKGROUND_NAMES, *IGNORE_NAMES))
        return AnnotatedImage(
            image=image, size=self.size, masks=self.masks(), assumed=assumed, listed=tuple(names)
        )


Loop = list[tuple[float, float]]


def outlines(
    mask: Mask, tolerance: float = 0.75, *, corner: tuple[int, int] = (0, 0), single: bool = False
) -> Iterator[Loop]:
    """Yields a polygon of each connected piece of 1, for the even-odd rule, with its holes joined to it.

    ``corner`` is the (x, y) of the mask in its image; with ``single`` all of 1 is one piece.
    """
    pieces = (mask == 1).astype(np.int32) if single else ndimage.label(mask == 1)[0]
    for number, box in enumerate(ndimage.find_objects(pieces), 1):
        top, left = box[0].start + corner[1], box[1].start + corner[0]
        loops = [_simplified(loop, tolerance) for loop in _loops(pieces[box] == number)]
        loops = [loop for loop in loops if len(loop) >= 3]
        if not loops:
            continue
        outer = max(loops, key=lambda loop: abs(_area(loop)))
        path = list(outer)
        for loop in loops:
            if loop is not outer:
                path += [outer[0], *loop, loop[0]]
        yield [(x + left, y + top) for x, y in path]


def _loops(piece: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Iterator[Loop]:
    """Walks the edges, inside on the right; where two pixels touch at a corner it stays with its pixel."""
    padded = np.pad(piece, 1)
    # corner -> directions (dx, dy) of the edges that leave it
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def put(edges: np.ndarray, shift: tuple[int, int], step: tuple[int, int]) -> None:
        for y, x in np.argwhere(edges).tolist():
            steps.setdefault((x + shift[0], y + shift[1]), []).append(step)

    above, left = padded[:-1, 1:-1], padded[1:-1, :-1]
    below, right = padded[1:, 1:-1], padded[1:-1, 1:]
    put(below & ~above, (0, 0), (1, 0))
    put(above & ~below, (1, 0), (-1, 0))
    put(left & ~right, (0, 0), (0, 1))
    put(right & ~left, (0, 1), (0, -1))
    while steps:
        start = corner = next(iter(steps))
        step = steps[corner][0]
        loop: Loop = []
        while True:
            leaving = steps[corner]
            turn = (-step[1], step[0])  # to the right, y pointing down
            following = turn if turn in leaving else leaving[0]
            if following != step or not loop:
                loop.append((float(corner[0]), float(corner[1])))
            leaving.remove(following)
            if not leaving:
                del steps[corner]
            step = following
            corner = (corner[0] + step[0], corner[1] + step[1])
            if corner == start and (corner not in steps or (-step[1], step[0]) not in steps[corner]):
                break
        yield loop


def _area(loop: Loop) -> float:
    x, y = np.array(loop).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _simplified(loop: Loop, tolerance: float) -> Loop:
    """Leaves out corners within the tolerance. Source: Douglas and Peucker 1973."""
    points = np.array(loop)
    if tolerance <= 0 or len(points) < 4:
        return loop
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=np.bool_)
    keep[[0, far]] = True
    waiting = [(0, far), (far, len(points))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        base, span = closed[first], closed[last] - closed[first]
        offset = closed[first + 1 : last] - base
        length = float(np.hypot(*span))
        if length > 0:
            distance = np.abs(offset[:, 0] * span[1] - offset[:, 1] * span[0]) / length
        else:
            distance = np.hypot(offset[:, 0], offset[:, 1])
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    simplified = [(float(x), float(y)) for x, y in points[keep[:-1]]]
    return simplified if len(simplified) >= 3 else loop
