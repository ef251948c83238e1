"""COCO's JSON: one file a set of images."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fewseg.annotations.image_files import check_annotated_size, image_size
from fewseg.annotations.json_values import field, number, shown, size_field, typed
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.rle import Runs, coco_runs, decode_coco, fill_runs, run_array
from fewseg.annotations.shapes import Canvas, Region, rectangle
from fewseg.annotations.values import Items, Problem, box_of, counted, warn_of_left_out
from fewseg.annotations.writer import JournalledWriter, json_list, json_text
from fewseg.ops.parallel import summary
from fewseg.types import DataError

logger = logging.getLogger(__name__)

Polygon = NDArray[np.float64]
"""x, y, x, y, ... in pixels."""

_LONGEST_OUTLINE = 10_000_000  # pixels of edges an object; pycocotools keeps ten numbers for each


def is_coco(value: object) -> bool:
    """Whether a JSON value is a COCO data set."""
    return isinstance(value, dict) and "images" in value and bool({"annotations", "categories"} & set(value))


@dataclass(frozen=True)
class CocoFile:
    """A data set whose entries belong together; what else an entry holds is checked where it is used."""

    categories: Mapping[int, str]
    images: Mapping[int, Mapping[str, Any]]
    annotations: Mapping[int, Sequence[tuple[int, Mapping[str, Any]]]]
    """Image id -> number in the file and entry of each of its annotations."""


def parse_coco(value: Mapping[str, Any], path: Path) -> CocoFile:
    """Sorts a file's entries by image; one error counts all that lack an id, share one or are of no image."""
    wrong: list[str] = []
    categories: dict[int, str] = {}
    images: dict[int, Mapping[str, Any]] = {}
    annotations: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    for k, id, entry in _entries(value, "categories", "id", path, wrong):
        name = entry.get("name")
        if id in categories:
            wrong.append(f"categories, entry {k}: two categories have one id, {id}")
        if not isinstance(name, str):
            wrong.append(f"categories, entry {k}: 'name' must be a text, got {shown(name)}")
        categories[id] = str(name)
    for k, id, entry in _entries(value, "images", "id", path, wrong):
        if id in images:
            wrong.append(f"images, entry {k}: two images have one id, {id}")
        images[id] = entry
    for k, id, entry in _entries(value, "annotations", "image_id", path, wrong):
        if id not in images:
            wrong.append(f"annotations, entry {k} is of image {id}, which the file does not list")
        annotations.setdefault(id, []).append((k, entry))
    if wrong:
        problem = wrong[0] if len(wrong) == 1 else f"{len(wrong)} wrong entries"
        more = summary(wrong) if len(wrong) > 1 else ""
        raise DataError(f"{path}: {problem}: correct the file, or export it again{more}")
    return CocoFile(categories, images, annotations)


def _entries(
    value: Mapping[str, Any], name: str, key: str, path: Path, wrong: list[str]
) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Yields number, id and object of a list's entries; appends to ``wrong`` what has no id."""
    for k, entry in enumerate(field(value, name, list, str(path))):
        try:
            where = f"{name}, entry {k}"
            yield k, field(typed(entry, dict, where), key, int, where), entry
        except DataError as error:
            wrong.append(str(error))


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Keeps of a parsed object what label maps need, coordinates as arrays; a hook of ``json.loads``."""
    if "segmentation" in entry and "image_id" in entry:
        names = ("id", "image_id", "category_id", "iscrowd")
        needed: dict[str, Any] = {k: entry[k] for k in names if k in entry}
        return {**needed, "segmentation": _compact_segmentation(entry["segmentation"])}
    if "file_name" in entry:
        return {k: entry[k] for k in ("id", "file_name", "height", "width") if k in entry}
    return entry


def _compact_segmentation(segmentation: Any) -> Any:
    """Number lists become arrays; anything else stays, for the error that names it."""
    if isinstance(segmentation, dict):
        runs = run_array(segmentation.get("counts"))
        return segmentation if runs is None else {**segmentation, "counts": runs}
    if isinstance(segmentation, list):
        arrays = [(_finite(outline), outline) for outline in segmentation]
        return [outline if array is None else array for array, outline in arrays]
    return segmentation


def _finite(outline: object) -> Polygon | None:
    """Returns a list of finite numbers as an array; None where it is anything else."""
    if isinstance(outline, np.ndarray):
        return outline
    if not isinstance(outline, list) or not all(type(v) in (int, float) for v in outline):
        return None
    try:
        array = np.array(outline, dtype=np.float64)
    except OverflowError:
        return None
    return array if np.isfinite(array).all() else None


def parse_polygons(outlines: Sequence[object], where: str) -> list[Polygon]:
    """Returns the polygons of a segmentation; those of fewer than three points too."""
    polygons = []
    for outline in outlines:
        polygon = _finite(outline)
        if polygon is None or len(polygon) % 2:
            raise DataError(
                f"{where}: a polygon must be x, y, x, y, ... of finite numbers, got {shown(outline)}: export "
                "the file again"
            )
        polygons.append(polygon)
    return polygons


def outside(polygon: Polygon, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns how far a polygon reaches past the left, top, right and lower edge, pixels; 0 where not."""
    x, y = polygon[::2], polygon[1::2]
    past = (-x.min(), -y.min(), x.max() - size[1], y.max() - size[0])
    left, top, right, below = (max(0.0, float(v)) for v in past)
    return left, top, right, below


def _outline_length(polygon: Polygon) -> float:
    """Returns the pixels of a polygon's edges."""
    corners = polygon.reshape(-1, 2)
    return float(np.abs(np.diff(corners, axis=0, append=corners[:1])).max(axis=1).sum())


_CANVAS = 2**26  # pixels that polygons may reach over in any image


def fill_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> Region:
    """Fills polygons as pycocotools does, united, and cuts off what lies outside the image (H, W)."""
    region: Region = np.zeros(size, dtype=np.bool_)
    for polygon in polygons:  # on a larger canvas: pycocotools bends what lies outside onto the edge
        left, top, right, below = (ceil(v) for v in outside(polygon, size))
        height, width = top + size[0] + below, left + size[1] + right
        if height * width > max(_CANVAS, 16 * size[0] * size[1]):  # where it crashes, or takes all memory
            raise DataError(
                f"a polygon reaches {max(left, top, right, below)} pixels past the image of {size[1]} x "
                f"{size[0]}: correct it, or export the file again"
            )
        if (edges := _outline_length(polygon)) > _LONGEST_OUTLINE:
            raise DataError(
                f"the outline of a polygon must have up to {_LONGEST_OUTLINE} pixels, got {edges:.0f}: use a "
                "mask"
            )
        moved = polygon + np.tile((left, top), len(polygon) // 2)
        codes = coco_mask.frPyObjects([moved.tolist()], height, width)
        canvas = np.asarray(coco_mask.decode(coco_mask.merge(codes)), dtype=np.bool_)
        region |= canvas[top : top + size[0], left : left + size[1]]
    return region


def iter_coco(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> Items:
    """Yields the annotated images of a file: a lone bbox is filled, a crowd is 255.

    An image without an annotation is left out, but for files of :class:`CocoWriter`: there it is a negative.
    """
    assumed: Counter[str] = Counter()
    file = parse_coco(_with_whole_ids(value, assumed), path)
    written = value.get("info") == _INFO
    left_out = []
    for id, image in file.images.items():
        if not (written or file.annotations.get(id)):
            left_out.append(image.get("file_name", id))
            continue
        try:
            where = f"{path}, image {id}"
            photo = finder.find(field(image, "file_name", str, where), where)
            size = image_size(photo, options.max_pixels)
            check_annotated_size(where, size, size_field(image, "height", "width", where))
            canvas = Canvas(size)
            for k, annotation in file.annotations.get(id, ()):
                _draw(annotation, file.categories, canvas, assumed, f"{path}, annotation {k}")
            yield canvas.annotated(photo, (file.categories[id] for id in sorted(file.categories)))
        except DataError as error:
            yield Problem(str(image.get("file_name", id)), error)
    for what, count in (+assumed).items():
        logger.warning("%s: %s", path, counted(count, what))
    warn_of_left_out(path, left_out, "no annotation; one whose mask is empty makes a negative")


def _with_whole_ids(value: Mapping[str, Any], assumed: Counter[str]) -> Mapping[str, Any]:
    """Returns a data set whose ids that are texts have become whole numbers: "1" and 1 are one id."""
    keys = {"categories": ("id",), "images": ("id",), "annotations": ("image_id", "category_id")}
    changed = dict(value)
    numbers: dict[str, int] = {}
    for name, id_keys in keys.items():
        entries = value.get(name)
        if not isinstance(entries, list):
            continue
        changed[name] = copies = []
        for entry in entries:
            texts = (
                {k: entry[k] for k in id_keys if isinstance(entry.get(k), str)}
                if isinstance(entry, dict)
                else {}
            )
            for key, text in texts.items():
                plain = re.fullmatch("0|[1-9][0-9]{,17}", text) is not None
                texts[key] = int(text) if plain else numbers.setdefault(text, -1 - len(numbers))
            assumed["ids as texts, read as numbers where they are numbers"] += len(texts)
            copies.append({**entry, **texts} if texts else entry)
    return changed


def _draw(
    annotation: Mapping[str, Any],
    categories: Mapping[int, str],
    canvas: Canvas,
    assumed: Counter[str],
    where: str,
) -> None:
    shape = shape_of(annotation, categories, canvas.size, where, assumed)
    boxed = _is_blank(annotation.get("segmentation"))
    if not boxed and shape.empty:
        raise DataError(f"{where}: its polygons must have x, y of 3 points or more, got fewer: draw it again")
    region = _box(annotation, canvas.size, where) if boxed else shape.draw(canvas.size)
    label = "__ignore__" if annotation.get("iscrowd") else categories[shape.category]
    canvas.add(label, region, "box" if boxed else "region")


def _is_blank(segmentation: object) -> bool:
    """Whether a segmentation is missing, or has no point in any of its lists."""
    empty_lists = isinstance(segmentation, list) and all(isinstance(o, list) and not o for o in segmentation)
    return segmentation is None or segmentation == "" or empty_lists


@dataclass(frozen=True, eq=False)
class Shape:
    """The segmentation of an annotation, checked and not yet drawn: polygons, or runs that fill the image."""

    category: int
    polygons: tuple[Polygon, ...] = ()
    runs: Runs | None = None

    @property
    def empty(self) -> bool:
        """Whether it has neither."""
        return self.runs is None and not self.polygons

    def draw(self, size: tuple[int, int]) -> Region:
        """Returns its pixels in an image of (H, W); polygons that overlap are united, as in COCO."""
        if self.runs is not None:
            return fill_runs(self.runs, size).astype(np.bool_)
        return fill_polygons(self.polygons, size)


def shape_of(
    annotation: Mapping[str, Any],
    categories: Mapping[int, str],
    size: tuple[int, int],
    where: str,
    assumed: Counter[str],
) -> Shape:
    """Checks an annotation of an image of (H, W) ; counts what is left out, clipped or taken for another."""
    category = field(annotation, "category_id", int, where)
    if category not in categories:
        raise DataError(
            f"{where}: the category must be one of {sorted(categories)[:20]}, got {category}: add it to "
            "'categories'"
        )
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return Shape(category, runs=coco_runs(segmentation, size, where))
    if _is_blank(segmentation):
        return Shape(category)
    if not isinstance(segmentation, list):
        raise DataError(
            f"{where}: the segmentation must be polygons, an RLE, or none beside a bbox, got "
            f"{shown(segmentation)}: export the file again"
        )
    if all(isinstance(v, int | float) for v in segmentation):
        segmentation = [segmentation]
        assumed["segmentations of one list of numbers, read as one polygon"] += 1
    polygons = parse_polygons(segmentation, where)
    usable = tuple(polygon for polygon in polygons if len(polygon) >= 6)
    assumed["polygons of fewer than 3 points, left out"] += len(polygons) - len(usable)
    assumed["polygons outside their image, clipped"] += _check_extent(usable, size, where)
    return Shape(category, usable)


def _check_extent(polygons: Sequence[Polygon], size: tuple[int, int], where: str) -> int:
    """Returns how many polygons lie in part outside their image; refuses what can be no drawing of it."""
    reach = [max(outside(polygon, size)) for polygon in polygons]
    if max(reach, default=0) > max(size):
        raise DataError(
            f"{where}: a polygon reaches {max(reach):.0f} pixels outside its image of {size[1]} x {size[0]}: "
            "its coordinates are of another image, or no pixels: correct it"
        )
    edges = sum(map(_outline_length, polygons))
    if edges > _LONGEST_OUTLINE:
        raise DataError(
            f"{where}: its outline must have up to {_LONGEST_OUTLINE} pixels, got {edges:.0f}: use an RLE"
        )
    return sum(pixels > 0 for pixels in reach)


def _box(annotation: Mapping[str, Any], size: tuple[int, int], where: str) -> Region:
    """Returns the pixels of an annotation's bbox."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(
            f"{where} has no segmentation, and its bbox must be [x, y, width, height], got {shown(box)}"
        )
    x, y, width, height = (number(v, f"{where}: bbox") for v in box)
    if width < 0 or height < 0:
        raise DataError(f"{where}: the sides of the bbox must be 0 or more, got {box}: correct it")
    return rectangle(x, y, width, height, size)


def image_id(name: str) -> int:
    """Returns an image id computed from a name: positive, 48 bits; of a million two agree with p < 0.2 %."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) or 1


_INFO = {"description": "fewseg predictions"}


class CocoWriter(JournalledWriter):
    """Writes a data set with scores; 255 is a crowd of each class.

    An annotation is an instance, or all of a class in an image where they were not looked for.
    """

    file = "coco.json"

    def _pieces(self) -> Iterator[str]:
        categories = [{"id": id, "name": name} for id, name in enumerate(self.classes, 1)]
        yield f'{{"info":{json_text(_INFO)}'
        yield f',"categories":{json_text(categories)},"images":'
        yield from json_list(
            {"id": image_id(line["name"]), "file_name": line["name"]}
            | {"height": line["height"], "width": line["width"]}
            for line in self.journal
        )
        yield ',"annotations":'
        yield from json_list(self._annotations(results=False))
        yield "}"

    def _annotations(self, results: bool) -> Iterator[dict[str, object]]:
        count = 0
        for line in self.journal:
            id = image_id(line["name"])
            for region in line.get("instances", line["regions"]):
                count += 1
                name = region["class"]
                first = {"id": count, "iscrowd": 0, "area": region["area"]}
                shared = {"image_id": id, "category_id": self.classes.index(name) + 1}
                shared |= {"segmentation": region["segmentation"], "bbox": region["bbox"]}
                shared |= {"score": region.get("score", line["scores"][name])}
                yield ({"file_name": line["name"]} if results else first) | shared
            if results or "unknown" not in line:
                continue
            unknown = decode_coco(line["unknown"], (line["height"], line["width"]), line["name"])
            for category in range(1, len(self.classes) + 1):
                count += 1
                crowd = {"id": count, "iscrowd": 1, "area": int(unknown.sum()), "image_id": id}
                crowd |= {"category_id": category, "segmentation": line["unknown"]}
                yield {**crowd, "bbox": box_of(unknown)}


class CocoResultsWriter(CocoWriter):
    """Writes results for ``COCO.loadRes``, which hold no 255."""

    file = "coco-results.json"

    def _pieces(self) -> Iterator[str]:
        yield from json_list(self._annotations(results=True))
