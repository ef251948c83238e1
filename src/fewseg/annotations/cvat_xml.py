"""CVAT's XML for images (version 1.1): one file for a list of images, such as ``annotations.xml``.

An image without a shape and without a tag is taken as not annotated yet; one with a tag alone is a negative.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from fewseg.annotations.coco import fill_polygons
from fewseg.annotations.image_files import check_annotated_size, image_size
from fewseg.annotations.json_values import number, read_annotations, shown
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import Canvas, Points, Region, ellipse, rectangle, stroke
from fewseg.annotations.values import AnnotatedImage, Items, Problem
from fewseg.types import DataError

logger = logging.getLogger(__name__)

_FILE = "annotations.xml"
_SHAPES = ("polygon", "box", "ellipse", "mask", "polyline", "points")
_FOLLOW = "export as 'CVAT for images 1.1'"


def is_cvat_folder(root: Path) -> bool:
    """Whether a folder has CVAT's XML."""
    return (root / _FILE).is_file()


def iter_cvat_folder(root: Path, options: ReadOptions) -> Items:
    """Yields the images of a folder's ``annotations.xml``."""
    yield from iter_cvat_xml(root / _FILE, options)


def iter_cvat_xml(path: Path, options: ReadOptions) -> Items:
    """Yields the annotated images of a file; boxes are weak masks, polylines and points scribbles."""
    try:
        root: Element = fromstring(read_annotations(path), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not plain XML ({error}); is it cut off? Export it again") from error
    if root.tag != "annotations" or root.find("track") is not None:
        what = "tracks of a video" if root.tag == "annotations" else f"<{root.tag}>"
        raise DataError(
            f"{path} has {what}; expected <annotations> with an <image> for each image: {_FOLLOW}"
        )
    finder = ImageFinder.beside(path, options.images)
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
            canvas = Canvas(size)
            for k, shape in enumerate(shapes):
                place = f"{where}, shape {k}"
                label = shape.get("label")
                if not label:
                    raise DataError(f"{place} has no label; expected the name of a class: {_FOLLOW}")
                weak, scribble = shape.tag == "box", shape.tag in ("polyline", "points")
                canvas.add(label, _region(shape, size, options, place), weak=weak, scribble=scribble)
            yield AnnotatedImage(image=photo, size=size, masks=canvas.masks(), weak=canvas.weak())
        except DataError as error:
            yield Problem(where, error)
    if left_out:
        logger.warning(
            "%s: %d images have no shape and are left out, the first is %s; one with a tag is a negative",
            path, len(left_out), left_out[0],
        )  # fmt: skip


def _number(element: Element, key: str, where: str, default: str = "") -> float:
    text = element.get(key, default)
    try:
        return number(float(text), f"{where}: {key!r}")
    except ValueError as error:
        raise DataError(f"{where}: {key!r} is {shown(text)}; expected a finite number: {_FOLLOW}") from error


def _points(shape: Element, least: int, where: str) -> Points:
    text = shape.get("points", "")
    try:
        points = [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";"))]
        if len(points) < least or not all(map(math.isfinite, sum(points, ()))):
            raise ValueError
    except ValueError as error:
        raise DataError(
            f"{where} is a {shape.tag} with the points {shown(text)}; expected x,y;x,y;... of {least} or "
            "more points: draw it again"
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
        drawn: Region = np.zeros(size, dtype=np.bool_)
        for point in _points(shape, 1, where):
            drawn |= stroke([point], options.stroke, size)
        return drawn
    raise DataError(f"{where} is a {shape.tag}; expected {', '.join(_SHAPES)} or tag: draw it as one of them")


def _mask(shape: Element, size: tuple[int, int], where: str) -> Region:
    """A mask's runs, background first, along the rows of its box."""
    left, top, wide, tall = (int(_number(shape, key, where)) for key in ("left", "top", "width", "height"))
    text = shape.get("rle", "")
    try:
        runs = np.array([int(run) for run in text.split(",")])
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: the rle is {shown(text)}; expected whole numbers: {_FOLLOW}") from error
    inside = 0 <= left <= left + wide <= size[1] and 0 <= top <= top + tall <= size[0]
    if not inside or (runs < 0).any() or runs.max() > wide * tall or runs.sum() != wide * tall:
        raise DataError(
            f"{where}: the mask's runs have {runs.sum()} pixels in a box of {wide} x {tall} at {left}, {top};"
            f" expected one inside the image, filled by its runs: {_FOLLOW}"
        )
    region: Region = np.zeros(size, dtype=np.bool_)
    region[top : top + tall, left : left + wide] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(
        tall, wide
    )
    return region
