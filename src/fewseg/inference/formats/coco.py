"""COCO's JSON: one file a set of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fewseg.data.errors import DataError
from fewseg.data.image_files import check_annotated_size, image_size
from fewseg.inference.formats.canvas import Canvas
from fewseg.inference.formats.coco_rle import decode_coco
from fewseg.inference.formats.image_names import ImageFinder
from fewseg.inference.formats.json_fields import field, number, shown, size_field, typed
from fewseg.inference.formats.shapes import Region, rectangle
from fewseg.inference.formats.values import AnnotatedImage, Problem, ReadOptions

_LONGEST_OUTLINE = 10_000_000  # pixels of edges an object; pycocotools keeps ten numbers for each


def is_coco(value: object) -> bool:
    """Tells whether a JSON value is a COCO data set."""
    return isinstance(value, dict) and "images" in value and bool({"annotations", "categories"} & set(value))


def iter_coco(
    value: Mapping[str, Any], path: Path, finder: ImageFinder, options: ReadOptions
) -> Iterator[AnnotatedImage | Problem]:
    """Reads a COCO file, image by image. An image without annotations is a negative.

    Polygons are filled by pycocotools, so that masks are those of COCO; both kinds of RLE are read; an
    annotation without a segmentation counts with its box, as a weak mask. A crowd is ignored (255): its
    outline is not exact.

    Args:
        value: the file's JSON.
        path: the file.
        finder: finds its images.
        options: pixel limit.

    Yields:
        A result or a problem for each image, in the file's order.

    Raises:
        DataError: images, categories or the annotations' ids are broken; then no image can be told from
            another.
    """
    names = {
        _id(c, "id", f"{path}, category {k}"): field(c, "name", str, f"{path}, category {k}")
        for k, c in enumerate(field(value, "categories", list, str(path)))
    }
    if len(names) != len(value["categories"]):
        raise DataError(f"{path}: two categories have one id; accepted are different ids: correct the file")
    images = field(value, "images", list, str(path))
    ids = [_id(image, "id", f"{path}, image {k}") for k, image in enumerate(images)]
    if len(set(ids)) != len(ids):
        raise DataError(f"{path}: two images have one id; accepted are different ids: correct the file")
    of_image: dict[int, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for k, annotation in enumerate(field(value, "annotations", list, str(path))):
        of_image[_id(annotation, "image_id", f"{path}, annotation {k}")].append(
            (f"{path}, annotation {k}", annotation)
        )
    lost = sorted(set(of_image) - set(ids))
    if lost:
        raise DataError(
            f"{path}: annotations name images {lost[:5]} that are not in 'images': correct the file"
        )
    for id, image in zip(ids, images, strict=True):
        try:
            yield _read_image(image, f"{path}, image {id}", of_image[id], names, finder, options)
        except DataError as error:
            yield Problem(str(image.get("file_name", id)), error)


def _read_image(
    image: Mapping[str, Any],
    where: str,
    annotations: Sequence[tuple[str, Mapping[str, Any]]],
    names: Mapping[int, str],
    finder: ImageFinder,
    options: ReadOptions,
) -> AnnotatedImage:
    file = finder.find(field(image, "file_name", str, where), where)
    size = image_size(file, options.max_pixels)
    check_annotated_size(where, size, size_field(image, "height", "width", where))
    canvas = Canvas(size)
    for place, annotation in annotations:
        category = _id(annotation, "category_id", place)
        if category not in names:
            raise DataError(
                f"{place} has the category {category}; accepted are {sorted(names)[:20]}: add it to "
                "'categories'"
            )
        region, weak = _region(annotation, size, place)
        if annotation.get("iscrowd"):
            canvas.ignore(region)
        else:
            canvas.add(names[category], region, weak=weak)
    return AnnotatedImage(image=file, size=size, masks=canvas.masks(), weak=canvas.weak())


def _id(value: object, key: str, where: str) -> int:
    return field(typed(value, dict, where), key, int, where)


def _region(annotation: Mapping[str, Any], size: tuple[int, int], where: str) -> tuple[Region, bool]:
    """Returns an annotation's pixels, and whether they are those of its box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return decode_coco(segmentation, size, where).astype(np.bool_), False
    if isinstance(segmentation, list) and segmentation:
        return _polygons(segmentation, size, where), False
    if segmentation not in (None, [], ""):
        raise DataError(
            f"{where}: the segmentation is {shown(segmentation)}; accepted are polygons, an RLE, or none "
            "and a bbox"
        )
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(
            f"{where} has no segmentation and its bbox is {shown(box)}; accepted is [x, y, width, height]"
        )
    x, y, width, height = (number(v, f"{where}: bbox") for v in box)
    if width < 0 or height < 0:
        raise DataError(
            f"{where}: the bbox {box} has a negative side; accepted is [x, y, width, height]: correct it"
        )
    return rectangle(x, y, width, height, size), True


def _polygons(polygons: Sequence[object], size: tuple[int, int], where: str) -> Region:
    paths = []
    for outline in polygons:
        flat = [number(v, f"{where}: polygon") for v in typed(outline, list, f"{where}: polygon")]
        if len(flat) < 6 or len(flat) % 2:
            raise DataError(
                f"{where}: a polygon has {len(flat)} numbers; accepted are x, y of 3 points or more: draw "
                "it again"
            )
        paths.append(flat)
    height, width = size
    corners = [np.array(flat).reshape(-1, 2) for flat in paths]
    if any((np.abs(c) > 4 * max(size)).any() for c in corners):
        raise DataError(
            f"{where}: a polygon lies far outside its image of {width} x {height} pixels: correct it"
        )
    edges = sum(float(np.abs(np.diff(c, axis=0, append=c[:1])).max(axis=1).sum()) for c in corners)
    if edges > _LONGEST_OUTLINE:
        raise DataError(
            f"{where}: its outline is {edges:.0f} pixels long; accepted are {_LONGEST_OUTLINE}: use an RLE"
        )
    merged = coco_mask.merge(coco_mask.frPyObjects(paths, height, width))
    rle = {"size": [height, width], "counts": merged["counts"].decode("ascii")}
    return decode_coco(rle, size, where).astype(np.bool_)
