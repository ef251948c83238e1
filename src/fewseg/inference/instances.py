"""Single objects in a label map: connected pieces of a class's mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewseg.annotations.shapes import Region
from fewseg.annotations.values import Instance, Mask
from fewseg.inference.options import Split

Numbers = NDArray[np.int32]
"""(H, W): the number of the object that a pixel belongs to, or 0."""

_EIGHT = np.ones((3, 3), dtype=np.bool_)  # pixels that touch at a corner are connected
_NECK, _LEAST = 0.75, 1.5  # see _parted
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (down, right) to half of the eight neighbours


def numbered(labels: Mask, classes: int, split: Split, min_area: int) -> tuple[Numbers, Sequence[int]]:
    """Numbers the objects of a label map (H, W) from 1 on, by class and then by first pixel.

    Args:
        labels: 0 background, j = 1 .. ``classes``.
        classes: number of classes.
        split: "components" for connected pieces; "watershed" also cuts pieces at their necks.
        min_area: least pixels of an object; smaller ones are left out.

    Returns:
        The numbers (H, W), and the class j of each number.
    """
    numbers: Numbers = np.zeros(labels.shape, dtype=np.int32)
    of_class: list[int] = []
    for j in range(1, classes + 1):
        mask = labels == j
        pieces = _parted(mask) if split == "watershed" else ndimage.label(mask, _EIGHT)[0]
        large = np.bincount(pieces.ravel()) >= max(1, min_area)
        large[0] = False
        new = np.where(large, np.cumsum(large) + len(of_class), 0).astype(np.int32)
        numbers += new[pieces]
        of_class += [j] * int(large.sum())
    return numbers, of_class


def instances_of(
    numbers: Numbers,
    of_class: Sequence[int],
    classes: Sequence[str],
    sums: NDArray[np.float64] | None = None,
) -> tuple[Instance, ...]:
    """The objects of :func:`numbered`.

    Args:
        numbers: (H, W).
        of_class: the class of each number.
        classes: the names of the classes.
        sums: the summed probabilities of the pixels of each number, 0 included, whose mean is an object's
            score; None for objects drawn by a person, whose score is 1.
    """
    instances = []
    for k, (j, slices) in enumerate(zip(of_class, ndimage.find_objects(numbers), strict=True), 1):
        piece = (numbers[slices] == k).astype(np.uint8)
        box = (slices[1].start, slices[0].start, piece.shape[1], piece.shape[0])
        score = 1.0 if sums is None else round(float(sums[k] / piece.sum()), 6)
        instances.append(Instance(class_name=classes[j - 1], box=box, piece=piece, score=score))
    return tuple(instances)


def _parted(mask: Region) -> Numbers:
    """Watershed of the distance to the background: a piece for each wide place, parted at the necks.

    Two places are parted where the neck between them is 0.75 of the narrower one's width or less, and 3
    pixels less at least. Source: Meyer 1994 (topographic distance); necks as in Najman and Schmitt 1996
    (dynamics).
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(mask)
    inside = np.flatnonzero(mask)
    order = inside[np.argsort(distance.ravel()[inside], kind="stable")]
    rank: Numbers = np.zeros(mask.shape, dtype=np.int32)  # of equal distances the later pixel is higher
    rank.ravel()[order] = np.arange(1, len(order) + 1)
    # each pixel leads to its highest neighbour, and so to the top above it
    top = ndimage.maximum_filter(rank, size=3, mode="constant").ravel()[order] - 1
    while not np.array_equal(following := top[top], top):
        top = following
    tops, basin = np.unique(top, return_inverse=True)
    basins: Numbers = np.full(mask.shape, -1, dtype=np.int32)
    basins.ravel()[order] = basin
    joined = _joined(distance.ravel()[order[tops]], *_saddles(distance, basins))
    pieces: Numbers = np.zeros(mask.shape, dtype=np.int32)
    _, first, inverse = np.unique(joined[basins.ravel()[inside]], return_index=True, return_inverse=True)
    pieces.ravel()[inside] = np.argsort(np.argsort(first))[inverse] + 1
    return pieces


def _saddles(distance: NDArray[np.float64], basins: Numbers) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Heights (n,), descending, at which two basins first meet, and the two basins (n, 2)."""
    heights, pairs = [], []
    h, w = basins.shape
    for down, right in _SHIFTS:
        from_slices = (slice(0, h - down), slice(max(0, -right), w - max(0, right)))
        to_slices = (slice(down, h), slice(max(0, right), w + min(0, right)))
        first, second = basins[from_slices], basins[to_slices]
        meet = (first != second) & (first >= 0) & (second >= 0)
        heights.append(np.minimum(distance[from_slices], distance[to_slices])[meet])
        pairs.append(np.sort(np.stack([first[meet], second[meet]], axis=1), axis=1))
    height, pair = np.concatenate(heights), np.concatenate(pairs)
    falling = np.argsort(-height, kind="stable")
    _, highest = np.unique(pair[falling], axis=0, return_index=True)
    chosen = falling[np.sort(highest)]
    return height[chosen], pair[chosen]


def _joined(
    peaks: NDArray[np.float64], heights: NDArray[np.float64], pairs: NDArray[np.int32]
) -> NDArray[np.intp]:
    """The basin that each basin is merged into; basins without a neck between them become one."""
    owner = list(range(len(peaks)))

    def root(k: int) -> int:
        while owner[k] != k:
            owner[k] = k = owner[owner[k]]
        return k

    for height, (first, second) in zip(heights.tolist(), pairs.tolist(), strict=True):
        low, high = sorted((root(first), root(second)), key=lambda k: float(peaks[k]))
        if low != high and height > min(_NECK * peaks[low], peaks[low] - _LEAST):
            owner[low] = high
    return np.array([root(k) for k in range(len(owner))], dtype=np.intp)
