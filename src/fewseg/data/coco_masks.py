"""The label map of an image, drawn from its annotated regions."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from fewseg.data.coco_regions import Floats, Region, outside
from fewseg.types import IGNORE

RENDERING = 1
"""Part of the key of drawn maps: a change of these rules is a change of this number."""

Plane = npt.NDArray[np.uint8]


def draw_labels(regions: Sequence[Region], size: tuple[int, int]) -> Plane:
    """Draws the regions of one image.

    Crowd regions come first, as 255: their pixels count neither for their class nor against it. Things come
    over them, the larger below the smaller (by pixels drawn; of two alike the one with the lower annotation
    id is on top), so that where things overlap a pixel belongs to the smallest of them, and where a thing
    overlaps a crowd it belongs to the thing.

    Args:
        regions: of one image.
        size: (H, W) of the image, pixels.

    Returns:
        (H, W): 0 background, 1 .. 80, 255 ignore.
    """
    labels = np.zeros(size, dtype=np.uint8)
    things = []
    for region in regions:
        inside = draw_region(region, size)
        if region.crowd:
            labels[inside] = IGNORE
        else:
            things.append((-int(np.count_nonzero(inside)), -region.id, region.class_id, inside))
    for _, _, class_id, inside in sorted(things, key=lambda thing: thing[:2]):
        labels[inside] = class_id
    return labels


def draw_region(region: Region, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draws one region, (H, W); where its polygons overlap they are united, as COCO's own code does."""
    if region.runs is not None:
        values = np.arange(len(region.runs)) % 2 == 1
        return np.repeat(values, region.runs).reshape(size, order="F")
    inside = np.zeros(size, dtype=bool)
    within = [p for p in region.polygons if max(outside(p, size)) == 0]
    if within:
        inside |= _decoded(within, size)
    for polygon in region.polygons:
        if max(outside(polygon, size)) > 0:
            inside |= _clipped(polygon, size)
    return inside


def _decoded(polygons: Sequence[Floats], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    codes = coco_mask.frPyObjects([p.tolist() for p in polygons], *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(codes)), dtype=bool)


def _clipped(polygon: Floats, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draws on a larger canvas and cuts the image out: pycocotools bends what lies outside onto the edge."""
    left, top, right, below = (ceil(v) for v in outside(polygon, size))
    moved = polygon + np.tile((left, top), len(polygon) // 2)
    height, width = size
    canvas = _decoded([moved], (top + height + below, left + width + right))
    return canvas[top : top + height, left : left + width]
