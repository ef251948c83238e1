"""VGG Image Annotator's JSON: a project (VIA 2 and 3), or its annotations alone (VIA 1 and 2).

The class of a region is its attribute; an image without a region is taken as not annotated yet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.annotations.coco import fill_polygons
from fewseg.annotations.image_files import image_size
from fewseg.annotations.json_values import field, number, shown, typed
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import Canvas, Kind, Region, check_points, ellipse, rectangle, stroke
from fewseg.annotations.values import Items, Problem, warn_of_left_out
from fewseg.types import DataError

logger = logging.getLogger(__name__)

_PROJECT = "_via_img_metadata"
_VIA3 = ("attribute", "file", "metadata", "view")
_VIA3_KINDS = ("point", "rect", "circle", "ellipse", "line", "polyline", "polygon", "extreme rectangle")
_CHECKBOX, _OPTIONS = 2, (3, 4)  # types of attributes in VIA 3: 3 and 4 have the number of an option
_CLASS_NAMES = ("class", "label", "name", "type", "category", "object")  # of attributes, where there are more
_SHAPES = ("polygon", "rect", "circle", "ellipse", "polyline", "point")
_KINDS: Mapping[str, Kind] = {"rect": "box", "polyline": "scribble", "point": "scribble"}


def is_via(value: object) -> bool:
    """Whether a JSON value is VIA's project or annotations."""
    if isinstance(value, dict) and all(isinstance(value.get(key), dict) for key in _VIA3):
        return True
    entries = value.get(_PROJECT, value) if isinstance(value, dict) else None
    return isinstance(entries, dict) and (
        entries is not value
        or (
            bool(entries)
            and all(isinstance(e, dict) and {"filename", "regions"} <= set(e) for e in entries.values())
        )
    )


def iter_via(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> Items:
    """Yields the annotated images; rectangles are filled, polylines and points scribbles."""
    via3 = all(key in value for key in _VIA3)
    entries: Mapping[str, Any] = _via3_entries(value, path) if via3 else value.get(_PROJECT, value)
    attribute = _class_attribute(entries, path)
    if attribute is None:
        logger.warning("%s: no region has an attribute: all are of the class %r", path, options.class_name)
    left_out = []
    for key, entry in entries.items():
        where = f"{path}, image {shown(key)}"
        try:
            regions = _regions(entry, where)
            if not regions:
                left_out.append(key)
                continue
            image = finder.find(field(entry, "filename", str, where), where)
            canvas = Canvas(image_size(image, options.max_pixels))
            for k, region in enumerate(regions):
                place = f"{where}, region {k}"
                _draw(typed(region, dict, place), attribute, canvas, options, place)
            yield canvas.annotated(image)
        except DataError as error:
            yield Problem(where, error)
    warn_of_left_out(path, left_out, "no region")


def _via3_entries(value: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """A project of VIA 3 in the form of VIA 2."""
    entries: dict[str, Any] = {}
    for key, file in value["file"].items():
        name = field(typed(file, dict, f"{path}, file {key}"), "fname", str, f"{path}, file {key}")
        entries[key] = {"filename": name, "regions": []}
    for key, metadata in value["metadata"].items():
        where = f"{path}, metadata {key}"
        coordinates = field(typed(metadata, dict, where), "xy", list, where)
        if not coordinates:
            continue  # of a whole file
        view = field(value["view"], str(metadata.get("vid")), dict, f"{where}: 'view'")
        files = [str(id) for id in field(view, "fid_list", list, where)]
        if len(files) != 1 or files[0] not in entries or metadata.get("z"):
            raise DataError(f"{where} must be of one image, got several or a part of a video: export images")
        attributes = field(metadata, "av", dict, where)
        named = dict(_via3_named(value, n, text) for n, text in attributes.items())
        shape = _via3_shape(coordinates, where)
        entries[files[0]]["regions"].append({"shape_attributes": shape, "region_attributes": named})
    return entries


def _via3_named(value: Mapping[str, Any], number: str, text: object) -> tuple[str, object]:
    """An attribute's name, and its text or the texts of its chosen options."""
    found = value["attribute"].get(number)
    attribute = found if isinstance(found, dict) else {}
    kind, options = attribute.get("type"), attribute.get("options")
    name = str(attribute.get("aname", number))
    if not isinstance(options, dict) or kind not in (_CHECKBOX, *_OPTIONS):
        return name, text
    chosen = [k.strip() for k in str(text).split(",")] if kind == _CHECKBOX else [str(text)]
    return name, {str(options[k]).strip(): True for k in chosen if k in options}


def _via3_shape(coordinates: Sequence[Any], where: str) -> Mapping[str, object]:
    """A region's shape, whose number comes before its coordinates."""
    kind, *numbers = coordinates
    name = _VIA3_KINDS[kind - 1] if type(kind) is int and 1 <= kind <= len(_VIA3_KINDS) else None
    keys = {
        "point": ("cx", "cy"),
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }.get(name or "")
    if name is None or len(numbers) != (len(keys) if keys else len(numbers) // 2 * 2):
        raise DataError(
            f"{where}: the region must be the number of a shape, 1 .. {len(_VIA3_KINDS)}, and its "
            f"coordinates, got {shown(coordinates)}: draw it again"
        )
    if keys:
        return {"name": name, **dict(zip(keys, numbers, strict=True))}
    x, y = ([number(v, where) for v in numbers[k::2]] for k in (0, 1))
    if name == "extreme rectangle" and x:
        left, top = min(x), min(y)
        return {"name": "rect", "x": left, "y": top, "width": max(x) - left, "height": max(y) - top}
    return {"name": "polygon" if name == "polygon" else "polyline", _POINTS[0]: x, _POINTS[1]: y}


def _regions(entry: object, where: str) -> Sequence[Any]:
    """A list in VIA 2, an object in VIA 1."""
    regions = typed(entry, dict, where).get("regions")
    return (
        list(regions.values()) if isinstance(regions, dict) else typed(regions, list, f"{where}: 'regions'")
    )


def _attributes(region: object) -> Mapping[str, list[str]]:
    """Returns attribute -> its values: one text, or the options that are ticked; none that is empty."""
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    texts = {}
    for name, value in (attributes if isinstance(attributes, dict) else {}).items():
        values = [k for k, ticked in value.items() if ticked is True] if isinstance(value, dict) else [value]
        stripped = [v.strip() for v in values if isinstance(v, str) and v.strip()]
        if stripped:
            texts[name] = stripped
    return texts


def _class_attribute(entries: Mapping[str, Any], path: Path) -> str | None:
    """Returns the name of the attribute that is the class; None where no region has one."""
    names = set[str]()
    for entry in entries.values():
        regions = entry.get("regions") if isinstance(entry, dict) else None
        for region in (
            regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
        ):
            names |= set(_attributes(region))
    likely = [name for name in names if len(names) == 1 or name.casefold() in _CLASS_NAMES]
    if names and len(likely) != 1:
        raise DataError(
            f"{path}: regions must have one attribute, or one called {', '.join(_CLASS_NAMES)}, got "
            f"{sorted(names)[:8]}: rename the one that is the class"
        )
    return likely[0] if likely else None


def _draw(
    region: Mapping[str, Any], attribute: str | None, canvas: Canvas, options: ReadOptions, where: str
) -> None:
    labels = _attributes(region).get(attribute, []) if attribute else [options.class_name]
    if not labels:
        raise DataError(f"{where} must have a class, got no {attribute!r}: give it in VIA")
    shape = field(region, "shape_attributes", dict, where)
    kind = shape.get("name")
    drawn = _region(shape, kind, canvas.size, options, where)
    if not drawn.any():
        raise DataError(
            f"{where} covers no pixel of its image: give the image that was annotated, or remove it"
        )
    for label in labels:
        canvas.add(label, drawn, _KINDS.get(str(kind), "region"))


def _region(
    shape: Mapping[str, Any], kind: object, size: tuple[int, int], options: ReadOptions, where: str
) -> Region:
    def read(key: str) -> float:
        return number(shape.get(key), f"{where}: {key!r}")

    if kind in ("polygon", "polyline"):
        for key in _POINTS:
            check_points(len(field(shape, key, list, where)), f"{where}: a {kind}")
        x, y = ([number(v, f"{where}: {key}") for v in field(shape, key, list, where)] for key in _POINTS)
        if len(x) != len(y) or len(x) < (3 if kind == "polygon" else 1):
            raise DataError(
                f"{where}: a {kind} must have {3 if kind == 'polygon' else 1} points or more, got {len(x)} x "
                f"and {len(y)} y: draw it again"
            )
        points = list(zip(x, y, strict=True))
        if kind == "polygon":
            return fill_polygons([np.array(points).ravel()], size)
        return stroke(points, options.stroke, size)
    if kind == "rect":
        return rectangle(read("x"), read("y"), read("width"), read("height"), size)
    if kind == "circle":
        return ellipse(read("cx"), read("cy"), read("r"), read("r"), size)
    if kind == "ellipse":
        turn = math.degrees(read("theta")) if "theta" in shape else 0.0
        return ellipse(read("cx"), read("cy"), read("rx"), read("ry"), size, turn)
    if kind == "point":
        return stroke([(read("cx"), read("cy"))], options.stroke, size)
    raise DataError(f"{where} must be one of {', '.join(_SHAPES)}, got {shown(kind)}: draw it as one")


_POINTS = ("all_points_x", "all_points_y")
