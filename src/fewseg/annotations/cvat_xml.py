"""CVAT's XML (version 1.1): one file for a list of images, or for a video, such as ``annotations.xml``.

An image without a shape and without a tag is taken as not annotated yet; one with a tag alone is a negative.
A frame of a video is the image ``frame_000012``, as CVAT names it, from 0 on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from fewseg.annotations.coco import fill_polygons
from fewseg.annotations.image_files import check_annotated_size, image_size
from fewseg.annotations.json_values import number, read_annotations, shown
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions, image_files
from fewseg.annotations.shapes import (
    Canvas,
    Kind,
    Points,
    Region,
    check_points,
    dots,
    ellipse,
    rectangle,
    stroke,
)
from fewseg.annotations.values import Items, Problem, warn_of_left_out
from fewseg.types import DataError

_FILE = "annotations.xml"
_SHAPES = ("polygon", "box", "ellipse", "mask", "polyline", "points")
_KINDS: Mapping[str, Kind] = {"box": "box", "polyline": "scribble", "points": "scribble"}
_FOLLOW = "export as 'CVAT for images 1.1' or 'CVAT for video 1.1'"


def is_cvat_folder(root: Path) -> bool:
    """Whether a folder has CVAT's XML."""
    return (root / _FILE).is_file()


def iter_cvat_folder(root: Path, options: ReadOptions) -> Items:
    """Yields the images of a folder's ``annotations.xml``."""
    yield from iter_cvat_xml(root / _FILE, options)


def iter_cvat_xml(path: Path, options: ReadOptions) -> Items:
    """Yields the annotated images of a file; boxes are filled, polylines and points scribbles."""
    try:
        root: Element = fromstring(read_annotations(path), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not plain XML ({error}); is it cut off? Export it again") from error
    if root.tag != "annotations":
        raise DataError(
            f"{path} must have <annotations> with an <image> for each image or a <track> for each thing of a "
            f"video, got <{root.tag}>: {_FOLLOW}"
        )
    finder = ImageFinder.beside(path, options.images)
    listed = [name.text or "" for name in root.iterfind("meta//labels/label/name")]
    if root.find("track") is not None:
        yield from _video(root, path, finder, listed, options)
        return
    left_out = []
    for image in root.iter("image"):
        name = image.get("name", "")
        where = f"{path}, image {shown(name)}"
        shapes = [shape for shape in image if shape.tag != "tag"]
        if not len(image):
            left_out.append(name)
            continue
        try:
            photo = finder.find(name, where)
            size = image_size(photo, options.max_pixels)
            annotated = (_number(image, "height", where), _number(image, "width", where))
            check_annotated_size(where, size, (int(annotated[0]), int(annotated[1])))
            canvas = _drawn(((shape.get("label"), shape) for shape in shapes), size, options, where)
            yield canvas.annotated(photo, listed)
        except DataError as error:
            yield Problem(where, error)
    warn_of_left_out(path, left_out, "no shape; one with a tag is a negative")


def _video(
    root: Element, path: Path, finder: ImageFinder, listed: Sequence[str], options: ReadOptions
) -> Items:
    """Yields the frames that show something and have an image; a thing is not there where it is outside."""
    frames: dict[int, list[tuple[str | None, Element]]] = defaultdict(list)
    for track in root.iter("track"):
        for shape in track:
            if shape.get("outside") != "1":
                frames[int(_number(shape, "frame", f"{path}, a <{shape.tag}>"))].append(
                    (track.get("label"), shape)
                )
    files = {
        file.stem: file for folder in reversed(finder.folders) for file in image_files(folder, deep=False)
    }
    photos = {frame: file for frame in sorted(frames) if (file := files.get(f"frame_{frame:06}"))}
    if not photos:
        raise DataError(
            f"{path} is of a video, and none of its {len(frames)} frames with a shape is an image there; "
            "expected frame_000000.png and so on, from 0: export the images with it, or give their folder"
        )
    original_size = root.find(".//original_size")
    for frame, photo in photos.items():
        where = f"{path}, frame {frame}"
        try:
            size = image_size(photo, options.max_pixels)
            if original_size is not None:
                tall, wide = (original_size.findtext(side, "").strip() for side in ("height", "width"))
                if (tall, wide) != (str(size[0]), str(size[1])):
                    raise DataError(
                        f"{where}: the image is {size[1]} x {size[0]} pixels and the video {wide} x {tall}; "
                        "both must be of one size: give the frames that were annotated"
                    )
            canvas = _drawn(frames[frame], size, options, where)
            yield canvas.annotated(photo, listed)
        except DataError as error:
            yield Problem(where, error)
    missing = [f"frame {frame}" for frame in sorted(frames) if frame not in photos]
    warn_of_left_out(path, missing, "annotated frames without a file")


def _drawn(
    shapes: Iterable[tuple[str | None, Element]], size: tuple[int, int], options: ReadOptions, where: str
) -> Canvas:
    """Draws the shapes of an image, each with its label."""
    canvas = Canvas(size)
    for k, (label, shape) in enumerate(shapes):
        place = f"{where}, shape {k}"
        if not label:
            raise DataError(f"{place} must have a label, got none: {_FOLLOW}")
        canvas.add(label, _region(shape, size, options, place), _KINDS.get(shape.tag, "region"))
    return canvas


def _number(element: Element, key: str, where: str, default: str = "") -> float:
    text = element.get(key, default)
    try:
        return number(float(text), f"{where}: {key!r}")
    except ValueError as error:
        raise DataError(f"{where}: {key!r} must be a finite number, got {shown(text)}: {_FOLLOW}") from error


def _points(shape: Element, least: int, where: str) -> Points:
    text = shape.get("points", "")
    check_points(text.count(";") + 1, f"{where}: a shape")
    try:
        points = [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";"))]
        if len(points) < least or not all(map(math.isfinite, sum(points, ()))):
            raise ValueError
    except ValueError as error:
        raise DataError(
            f"{where}: a {shape.tag} must have points x,y;x,y;..., {least} or more, got {shown(text)}: draw "
            "it again"
        ) from error
    return points


def _region(shape: Element, size: tuple[int, int], options: ReadOptions, where: str) -> Region:
    def read(key: str, default: str = "") -> float:
        return _number(shape, key, where, default)

    if shape.tag == "polygon":
        return fill_polygons([np.array(_points(shape, 3, where)).ravel()], size)
    if shape.tag == "ellipse":
        return ellipse(read("cx"), read("cy"), read("rx"), read("ry"), size, read("rotation", "0"))
    if shape.tag == "box":
        x, y, wide, tall = read("xtl"), read("ytl"), read("xbr") - read("xtl"), read("ybr") - read("ytl")
        turn = math.radians(read("rotation", "0"))  # about its centre; rectangle() turns about its corner
        left = x + wide / 2 - (wide * math.cos(turn) - tall * math.sin(turn)) / 2
        top = y + tall / 2 - (wide * math.sin(turn) + tall * math.cos(turn)) / 2
        return rectangle(left, top, wide, tall, size, math.degrees(turn))
    if shape.tag == "mask":
        return _mask(shape, size, where)
    if shape.tag == "polyline":
        return stroke(_points(shape, 1, where), options.stroke, size)
    if shape.tag == "points":
        return dots(_points(shape, 1, where), options.stroke, size)
    raise DataError(f"{where} must be one of {', '.join(_SHAPES)} or tag, got {shape.tag}: draw it as one")


def _mask(shape: Element, size: tuple[int, int], where: str) -> Region:
    """A mask's runs, background first, along the rows of its box."""
    left, top, wide, tall = (int(_number(shape, key, where)) for key in ("left", "top", "width", "height"))
    text = shape.get("rle", "")
    try:
        runs = np.array([int(run) for run in text.split(",")])
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: the rle must be whole numbers, got {shown(text)}: {_FOLLOW}") from error
    inside = 0 <= left <= left + wide <= size[1] and 0 <= top <= top + tall <= size[0]
    if not inside or (runs < 0).any() or runs.max() > wide * tall or runs.sum() != wide * tall:
        raise DataError(
            f"{where}: the mask's runs must fill a box inside the image, got {runs.sum()} pixels in a box of "
            f"{wide} x {tall} at {left}, {top}: {_FOLLOW}"
        )
    region: Region = np.zeros(size, dtype=np.bool_)
    region[top : top + tall, left : left + wide] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(
        tall, wide
    )
    return region
