"""COCO's JSON: one file a set of images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from fewseg.annotations.image_files import check_annotated_size, image_size
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.rle import box_of, decode_coco
from fewseg.annotations.shapes import Canvas, Region, rectangle
from fewseg.annotations.values import (
    AnnotatedImage,
    ImageFinder,
    Prediction,
    Problem,
    number,
    shown,
    size_field,
    typed,
)
from fewseg.annotations.values import json_field as field
from fewseg.annotations.writer import JournalledWriter, json_list, json_text
from fewseg.types import DataError

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


def image_id(name: str) -> int:
    """A COCO image id made of a name: positive, of 48 bits, the same in every file and run.

    Of a million names two have the same id with a probability below 0.2 %.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) or 1


class CocoWriter(JournalledWriter):
    """Writes a COCO file: a data set with scores in its annotations, or a list of results.

    An annotation is all of a class on an image, as compressed RLE. Image ids are those given, or made of the
    image's name (:func:`image_id`), so that a data set and a list of results agree however they came about;
    results have the file's name too. Category ids are 1 .. N by the order of the classes, or those given.
    Pixels of 255 are a crowd of each class, which COCO leaves out of every count; a list of results has none.

    Args:
        path: the file.
        classes: the names.
        form: ``dataset`` has images, annotations and categories; ``results`` is the list that
            ``COCO.loadRes`` takes.
        image_ids: image name -> id, of the data set that results belong to.
        category_ids: class -> id, likewise.

    Raises:
        ValueError: a class has no id.
        DataError: the journal is there with other classes.
    """

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...],
        form: Literal["dataset", "results"] = "dataset",
        image_ids: Mapping[str, int] | None = None,
        category_ids: Mapping[str, int] | None = None,
    ) -> None:
        self._category_ids = category_ids or {name: j for j, name in enumerate(classes, 1)}
        missing = [name for name in classes if name not in self._category_ids]
        if missing:
            raise ValueError(f"category_ids lack {missing}; accepted is an id for each class: add them")
        super().__init__(path, classes)
        self._form, self._image_ids = form, image_ids

    def _write(self, prediction: Prediction) -> None:
        if self._image_ids is not None and prediction.name not in self._image_ids:
            raise ValueError(f"image_ids lack {prediction.name!r}; accepted is an id for each image: add it")
        super()._write(prediction)

    def _pieces(self) -> Iterator[str]:
        if self._form == "results":
            yield from json_list(self._annotations(results=True))
            return
        categories = [{"id": self._category_ids[name], "name": name} for name in self.classes]
        yield f'{{"info":{json_text({"description": "fewseg predictions"})}'
        yield f',"categories":{json_text(categories)},"images":'
        yield from json_list(
            {"id": id, "file_name": line["name"], "height": line["height"], "width": line["width"]}
            for id, line in self._lines()
        )
        yield ',"annotations":'
        yield from json_list(self._annotations(results=False))
        yield "}"

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line in self.journal:
            name = line["name"]
            yield image_id(name) if self._image_ids is None else self._image_ids[name], line

    def _annotations(self, results: bool) -> Iterator[dict[str, object]]:
        count = 0
        for id, line in self._lines():
            for region in line["regions"]:
                count += 1
                shared = {
                    "image_id": id,
                    "category_id": self._category_ids[region["class"]],
                    "segmentation": region["segmentation"],
                    "bbox": region["bbox"],
                    "score": line["scores"][region["class"]],
                }
                yield (
                    {"file_name": line["name"], **shared}
                    if results
                    else {"id": count, "iscrowd": 0, "area": region["area"], **shared}
                )
            if results or "unknown" not in line:
                continue
            unknown = decode_coco(line["unknown"], (line["height"], line["width"]), line["name"])
            for name in self.classes:
                count += 1
                yield {
                    "id": count,
                    "iscrowd": 1,
                    "area": int(unknown.sum()),
                    "image_id": id,
                    "category_id": self._category_ids[name],
                    "segmentation": line["unknown"],
                    "bbox": box_of(unknown),
                }
