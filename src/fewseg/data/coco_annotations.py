"""COCO's annotation file (``instances_*.json``): read once, checked, and made compact."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import basename, splitext
from pathlib import Path
from typing import Any

from fewseg.data.coco_classes import CATEGORY_IDS, CLASS_OF_CATEGORY, COCO_CLASSES
from fewseg.data.coco_regions import Region, compact, region_of
from fewseg.data.errors import DataError
from fewseg.data.parallel import summary

_MOST_PIXELS = 178_956_970
"""Pillow refuses to read a larger photograph."""


@dataclass(frozen=True)
class CocoImage:
    """One image of the file.

    Attributes:
        file: file name of the photograph.
        height: pixels.
        width: pixels.
    """

    file: str
    height: int
    width: int

    @property
    def id(self) -> str:
        """The file name without suffix: ``COCO_val2014_000000000042``."""
        return splitext(basename(self.file))[0]  # of 80 000 at every start: a Path takes five times as long


@dataclass(frozen=True)
class Annotations:
    """What an annotation file holds.

    Attributes:
        images: those with one annotation at least (a crowd region counts), in the order of the file.
        regions: of each of ``images``, in the order of the file.
        listed: all images of the file, those without annotations too.
        tolerated: what was left out or mended -> how often.
    """

    images: tuple[CocoImage, ...]
    regions: tuple[tuple[Region, ...], ...]
    listed: int
    tolerated: Mapping[str, int]


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_annotations(path: Path) -> Annotations:
    """Reads an annotation file.

    Tolerated, with counts: polygons of fewer than three points, and annotations that have none of more (both
    left out); polygons that reach outside their image (clipped when drawn).

    Raises:
        DataError: the file is missing, truncated or no instances file; a category is not one of COCO's 80; an
            annotation is of an image or category that the file does not list; a segmentation is broken, of
            another size than its image, or far outside it. All are counted and the first few shown.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=compact)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    parts = {name: _list(path, content, name) for name in ("images", "categories", "annotations")}
    wrong = _wrong_categories(parts["categories"])
    known = {_id_of(category) for category in parts["categories"]}
    images = _images(parts["images"], wrong)
    found: dict[Any, list[Region]] = {}
    tolerated: Counter[str] = Counter()
    for number, raw in enumerate(parts["annotations"]):
        try:
            image, category = raw["image_id"], raw["category_id"]
            if image not in images:
                raise DataError(f"is of image {image}, which the file does not list")
            if category not in known or category not in CLASS_OF_CATEGORY:
                raise DataError(f"is of category {category}, which the file does not list")
            size = (images[image].height, images[image].width)
            regions = found.setdefault(image, [])
            region = region_of(raw, CLASS_OF_CATEGORY[category], size, tolerated)
        except (KeyError, TypeError) as error:
            wrong.append(f"annotation number {number} lacks {error} or is no annotation")
        except DataError as error:
            wrong.append(f"annotation {raw.get('id', number)} {error}")
        else:
            regions += [] if region is None else [region]
    if wrong:
        raise DataError(
            f"annotation file {path}: {len(wrong)} wrong entries; accepted is COCO's own instances file (or "
            f"a part of it) as unpacked: unpack it again, or mend what made it{summary(wrong)}"
        )
    return Annotations(
        images=tuple(images[key] for key in images if key in found),
        regions=tuple(tuple(found[key]) for key in images if key in found),
        listed=len(images),
        tolerated=dict(sorted(tolerated.items())),
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(
            f"annotation file {path} does not exist: unpack COCO's annotations_trainval2014 into the root"
        )
    return DataError(
        f"annotation file {path} cannot be read ({error}); accepted is COCO's instances file, JSON: it is "
        "truncated or another file, unpack it again"
    )


def _list(path: Path, content: Any, name: str) -> list[Any]:
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not found:
        raise DataError(
            f"annotation file {path} has no {name}; accepted is an instances file with images, categories "
            "and annotations: captions and keypoints are other files"
        )
    return found


def _wrong_categories(categories: Sequence[Any]) -> list[str]:
    names = dict(zip(CATEGORY_IDS, COCO_CLASSES, strict=True))
    wrong = []
    for category in categories:
        number, name = (
            (category.get(k) for k in ("id", "name")) if isinstance(category, dict) else (None, None)
        )
        if name is None or names.get(_id_of(category)) != name:
            wrong.append(f"category {number} {name!r} is none of COCO's 80 (ids 1 .. 90, such as 1 'person')")
    return wrong


def _id_of(category: Any) -> int:
    """The id of a category; 0, which is none, where it has no whole number."""
    number = category.get("id") if isinstance(category, dict) else None
    return number if isinstance(number, int) else 0


def _images(entries: Sequence[Any], wrong: list[str]) -> dict[Any, CocoImage]:
    """Image id -> image; appends to ``wrong`` what is no image, or comes twice."""
    images: dict[Any, CocoImage] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        try:
            image = CocoImage(str(entry["file_name"]), int(entry["height"]), int(entry["width"]))
            key = entry["id"]
            hash(key)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            wrong.append(f"image number {number} lacks {error} or is no image")
            continue
        if min(image.height, image.width) < 1 or image.height * image.width > _MOST_PIXELS:
            wrong.append(
                f"image {image.file} is {image.width} x {image.height} pixels; accepted are 1 to "
                f"{_MOST_PIXELS} in all"
            )
        if key in images or image.id in names:
            wrong.append(f"image {image.file} (id {key}) is listed twice")
        images[key] = image
        names.add(image.id)
    return images
