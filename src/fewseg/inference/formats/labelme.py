"""LabelMe's JSON: one file an image."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewseg.data.errors import DataError
from fewseg.data.image_files import check_annotated_size, image_size
from fewseg.inference.formats.canvas import Canvas
from fewseg.inference.formats.image_names import ImageFinder
from fewseg.inference.formats.json_fields import field, points_of, shown, size_field, typed
from fewseg.inference.formats.shapes import Points, Region, ellipse, polygon, rectangle, stroke
from fewseg.inference.formats.values import AnnotatedImage, ReadOptions

SHAPE_TYPES = ("polygon", "rectangle", "circle", "mask", "line", "linestrip", "point", "points")
_STROKES = ("line", "linestrip", "point", "points")


def is_labelme(value: object) -> bool:
    """Tells whether a JSON value is a LabelMe file."""
    return isinstance(value, dict) and "shapes" in value


def read_labelme(
    value: Mapping[str, Any], path: Path, finder: ImageFinder, options: ReadOptions
) -> AnnotatedImage:
    """Reads one LabelMe file. No shapes: a negative.

    Polygons are filled by the even-odd rule, circles have their centre and a point of their rim; rectangles
    are weak masks, lines and points scribbles; shapes of type ``mask`` are taken pixel by pixel. Coordinates
    are continuous (see :mod:`shapes`), as LabelMe draws them.

    Args:
        value: the file's JSON.
        path: the file.
        finder: finds its image.
        options: scribble width, pixel limit.

    Returns:
        The image and its masks.

    Raises:
        DataError: the image is missing, unreadable or of another size, or a shape is broken or of another
            type.
    """
    image = finder.find(field(value, "imagePath", str, str(path)), str(path))
    size = image_size(image, options.max_pixels)
    if value.get("imageHeight") is not None and value.get("imageWidth") is not None:
        check_annotated_size(str(path), size, size_field(value, "imageHeight", "imageWidth", str(path)))
    canvas = Canvas(size)
    for k, shape in enumerate(field(value, "shapes", list, str(path))):
        where = f"{path}, shape {k}"
        kind = typed(shape, dict, where).get("shape_type") or "polygon"
        region = _region(shape, kind, size, options, where)
        canvas.add(_label(shape, where), region, weak=kind == "rectangle", scribble=kind in _STROKES)
    return AnnotatedImage(image=image, size=size, masks=canvas.masks(), weak=canvas.weak())


def _label(shape: Mapping[str, Any], where: str) -> str:
    label = field(shape, "label", str, where)
    if not label:
        raise DataError(f"{where} has an empty label; accepted is the name of a class: name it in LabelMe")
    return label


def _region(
    shape: Mapping[str, Any], kind: str, size: tuple[int, int], options: ReadOptions, where: str
) -> Region:
    points = points_of(field(shape, "points", list, where), where)
    if kind not in SHAPE_TYPES:
        raise DataError(
            f"{where} is a {shown(kind)}; accepted are {', '.join(SHAPE_TYPES)}: draw it as one of them"
        )
    least = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "line": 2}.get(kind, 1)
    exact = kind in ("rectangle", "circle", "mask", "line")
    if len(points) < least or (exact and len(points) != least):
        raise DataError(
            f"{where} is a {kind} of {len(points)} points; accepted are "
            f"{least}{'' if exact else ' or more'}: draw it again"
        )
    if kind == "polygon":
        return polygon(points, size)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return rectangle(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0), size)
    if kind == "circle":
        (x0, y0), (x1, y1) = points
        radius = math.hypot(x1 - x0, y1 - y0)
        return ellipse(x0, y0, radius, radius, size)
    if kind == "mask":
        return _embedded(shape, points, size, where)
    if kind == "points":
        drawn = np.zeros(size, dtype=np.bool_)
        for point in points:
            drawn |= stroke([point], options.stroke, size)
        return drawn
    return stroke(points, options.stroke, size)


def _embedded(shape: Mapping[str, Any], points: Points, size: tuple[int, int], where: str) -> Region:
    """Puts a shape's own picture, whose first and last pixel are the two points, into the image."""
    left, top = math.floor(points[0][0]), math.floor(points[0][1])
    right, bottom = math.floor(points[1][0]), math.floor(points[1][1])
    if not (0 <= left <= right < size[1] and 0 <= top <= bottom < size[0]):
        raise DataError(
            f"{where}: the mask's corners {list(points)} do not lie in the image of {size[1]} x {size[0]} "
            "pixels"
        )
    try:
        raw = base64.b64decode(field(shape, "mask", str, where), validate=True)
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as file:
            width, height = file.size
            if (height, width) != (bottom - top + 1, right - left + 1):
                raise DataError(
                    f"{where}: the mask is {width} x {height} pixels and its corners say {right - left + 1} "
                    f"x {bottom - top + 1}; both must be alike: save it again in LabelMe"
                )
            pixels = np.array(file.convert("L") if file.mode not in ("1", "L", "P", "I;16", "I") else file)
    except (DataError, MemoryError):
        raise
    except binascii.Error as error:
        raise DataError(f"{where}: the mask is no base64 text ({error}): save it again in LabelMe") from error
    except Exception as error:  # Pillow raises whatever a broken file leads to
        raise DataError(
            f"{where}: the mask is no readable PNG ({error}): save it again in LabelMe"
        ) from error
    region = np.zeros(size, dtype=np.bool_)
    region[top : bottom + 1, left : right + 1] = pixels != 0
    return region
