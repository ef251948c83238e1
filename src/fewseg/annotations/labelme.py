"""LabelMe's JSON: one file an image."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewseg.annotations.image_files import check_annotated_size, image_size
from fewseg.annotations.json_values import field, points_of, shown, size_field, typed
from fewseg.annotations.mask_files import png_bytes
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import (
    Canvas,
    Kind,
    Points,
    Region,
    dots,
    ellipse,
    outlines,
    polygon,
    rectangle,
    stroke,
)
from fewseg.annotations.values import Instance, Items, Prediction, Problem, box_of
from fewseg.annotations.writer import FilesWriter, json_text
from fewseg.ops.files import atomic_write_text
from fewseg.types import DataError

SHAPE_TYPES = ("polygon", "rectangle", "circle", "mask", "line", "linestrip", "point", "points")
_KINDS: Mapping[str, Kind] = {
    "rectangle": "box",
    "line": "scribble",
    "linestrip": "scribble",
    "point": "scribble",
    "points": "scribble",
}


def is_labelme(value: object) -> bool:
    """Whether a JSON value is a LabelMe file."""
    return isinstance(value, dict) and "shapes" in value


def iter_labelme(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> Items:
    """Yields the one image of a file; rectangles are filled, lines and points scribbles."""
    try:
        image = finder.find(field(value, "imagePath", str, str(path)), str(path))
        size = image_size(image, options.max_pixels)
        if value.get("imageHeight") is not None and value.get("imageWidth") is not None:
            check_annotated_size(str(path), size, size_field(value, "imageHeight", "imageWidth", str(path)))
        canvas = Canvas(size)
        for k, shape in enumerate(field(value, "shapes", list, str(path))):
            where = f"{path}, shape {k}"
            kind = typed(shape, dict, where).get("shape_type") or "polygon"
            region = _region(shape, kind, size, options, where)
            label = field(shape, "label", str, where)
            if not label:
                raise DataError(f"{where} must have a label, got an empty one: name it in LabelMe")
            canvas.add(label, region, _KINDS.get(kind, "region"))
        yield canvas.annotated(image)
    except DataError as error:
        yield Problem(str(path), error)


def _region(
    shape: Mapping[str, Any], kind: str, size: tuple[int, int], options: ReadOptions, where: str
) -> Region:
    points = points_of(field(shape, "points", list, where), where)
    if kind not in SHAPE_TYPES:
        raise DataError(f"{where} must be one of {', '.join(SHAPE_TYPES)}, got {shown(kind)}: draw it as one")
    least = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "line": 2}.get(kind, 1)
    exact = kind in ("rectangle", "circle", "mask", "line")
    if len(points) < least or (exact and len(points) != least):
        raise DataError(
            f"{where}: a {kind} must have {least}{'' if exact else ' or more'} points, got {len(points)}: "
            "draw it again"
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
    return (dots if kind == "points" else stroke)(points, options.stroke, size)


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
                    f"{where}: the mask is {width} x {height} pixels and its corners make it "
                    f"{right - left + 1} x {bottom - top + 1}; both must be alike: save it again in LabelMe"
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


_UNKNOWN = "__ignore__"


class LabelMeWriter(FilesWriter):
    """Writes ``<image>.json`` with exact ``mask`` shapes; 255 is ``__ignore__``."""

    folder, ending = "labelme", ".json"

    def _write(self, prediction: Prediction) -> None:
        path = self.path(prediction.name)
        image = prediction.name
        if self.options.images is not None:
            image = Path(os.path.relpath(self.options.images / prediction.name, path.parent)).as_posix()
        drawn = [(thing, f"score {thing.score:.4f}") for thing in prediction.things()]
        unknown = prediction.unknown
        if unknown.any():
            x, y, w, h = box = box_of(unknown)
            piece = unknown[y : y + h, x : x + w]
            drawn.append((Instance(class_name=_UNKNOWN, box=box, piece=piece, score=0.0), ""))
        single = prediction.instances is not None
        shapes = [
            {"label": thing.class_name, **shape, "group_id": None, "description": text, "flags": {}}
            for thing, text in drawn
            for shape in self._drawn(thing, single)
        ]
        height, width = prediction.size
        value = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
            "fewseg": {"scores": dict(zip(prediction.classes, map(float, prediction.scores), strict=True))},
        }
        atomic_write_text(path, json_text(value))

    def _drawn(self, thing: Instance, single: bool) -> Iterator[dict[str, object]]:
        x, y, width, height = thing.box
        piece = png_bytes(thing.piece)
        corners = [[x, y], [x + width - 1, y + height - 1]]
        yield {"shape_type": "mask", "points": corners, "mask": base64.b64encode(piece).decode("ascii")}


class LabelMePolygonWriter(LabelMeWriter):
    """Writes ``polygon`` shapes, which people can edit."""

    def _drawn(self, thing: Instance, single: bool) -> Iterator[dict[str, object]]:
        for path in outlines(thing.piece, corner=thing.box[:2], single=single):
            yield {"shape_type": "polygon", "points": [list(point) for point in path], "mask": None}
