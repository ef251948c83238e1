"""The outlines of a mask as polygons."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from fewseg.inference.formats.values import Mask

Path = list[tuple[float, float]]


def outlines(mask: Mask, tolerance: float = 0.75) -> Iterator[Path]:
    """Traces the pixels that are 1, one polygon for each piece (neighbours share an edge).

    Corners lie on the grid between pixels, in continuous coordinates (see :mod:`shapes`). A hole is part of
    its piece's polygon, joined with the outline by an edge that is walked there and back: one path, filled by
    the even-odd rule.

    Args:
        mask: (H, W) uint8.
        tolerance: pixels by which a polygon may leave the outline, to have fewer corners (0.75 turns the
            stairs of a slope into a line); 0 keeps the outline, so that :func:`shapes.polygon` gives the mask
            back to the pixel.

    Yields:
        (x, y) of the corners.
    """
    pieces, _ = ndimage.label(mask == 1)
    for number, box in enumerate(ndimage.find_objects(pieces), 1):
        top, left = box[0].start, box[1].start
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


def _loops(piece: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Iterator[Path]:
    """Walks the edges between inside and outside, inside on the right hand; yields the corners of each loop.

    Where two pixels touch at a corner only, the walk turns right, and so stays with its pixel.
    """
    padded = np.pad(piece, 1)
    steps: dict[
        tuple[int, int], list[tuple[int, int]]
    ] = {}  # corner -> directions (dx, dy) of the edges that leave it

    def put(ys: np.ndarray, xs: np.ndarray, step: tuple[int, int]) -> None:
        for corner in zip(xs.tolist(), ys.tolist(), strict=True):
            steps.setdefault(corner, []).append(step)

    above, left = padded[:-1, 1:-1], padded[1:-1, :-1]
    below, right = padded[1:, 1:-1], padded[1:-1, 1:]
    ys, xs = np.nonzero(below & ~above)
    put(ys, xs, (1, 0))
    ys, xs = np.nonzero(above & ~below)
    put(ys, xs + 1, (-1, 0))
    ys, xs = np.nonzero(left & ~right)
    put(ys, xs, (0, 1))
    ys, xs = np.nonzero(right & ~left)
    put(ys + 1, xs, (0, -1))
    while steps:
        start = corner = next(iter(steps))
        step = steps[corner][0]
        loop: Path = []
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


def _area(loop: Path) -> float:
    x, y = np.array(loop).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _simplified(loop: Path, tolerance: float) -> Path:
    """Leaves out corners that are within the tolerance of the line of their neighbours.

    Source: Douglas and Peucker 1973.
    """
    points = np.array(loop)
    if tolerance <= 0 or len(points) < 4:
        return loop
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([points, points[:1]])
    kept = np.zeros(len(closed), dtype=np.bool_)
    kept[[0, far]] = True
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
            kept[middle] = True
            waiting += [(first, middle), (middle, last)]
    found = [(float(x), float(y)) for x, y in points[kept[:-1]]]
    return found if len(found) >= 3 else loop
