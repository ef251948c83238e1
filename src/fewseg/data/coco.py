"""One annotated region: a few polygons or a run-length code, checked before anything is drawn."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from os.path import basename, splitext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from fewseg.annotations.image_files import image_size, read_rgb, require_folder
from fewseg.data.folds import CATEGORY_IDS, CLASS_OF_CATEGORY, COCO_CLASSES, numbered
from fewseg.data.label_pack import LabelPack, build_pack, open_pack
from fewseg.ops.files import atomic_write_text, cache_folder
from fewseg.ops.parallel import summary
from fewseg.types import IGNORE, DataError

Floats = npt.NDArray[np.float64]
Runs = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Region:
    """What one annotation marks.

    Attributes:
        id: of the annotation.
        class_id: 1 .. 80.
        crowd: a group that is not parted into things.
        polygons: x, y, x, y, ... of each, pixels; empty where ``runs`` are given.
        runs: lengths of runs of 0, 1, 0, ... down the columns, which add up to the image; or None.
    """

    id: int
    class_id: int
    crowd: bool
    polygons: tuple[Floats, ...] = ()
    runs: Runs | None = None


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Makes a JSON object small as soon as it is parsed; a hook of ``json.loads``.

    Of annotations and images only what is used is kept, and coordinates become arrays: a file of 300 MB
    would otherwise take some gigabytes.
    """
    if "segmentation" in entry and "image_id" in entry:
        names = ("id", "image_id", "category_id", "iscrowd")
        kept: dict[str, Any] = {k: entry[k] for k in names if k in entry}
        return {**kept, "segmentation": _as_arrays(entry["segmentation"])}
    if "file_name" in entry:
        return {k: entry[k] for k in ("id", "file_name", "height", "width") if k in entry}
    return entry


def _as_arrays(segmentation: Any) -> Any:
    """Lists of numbers as arrays; what is none stays as it is and is told of later."""
    try:
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
            return {**segmentation, "counts": np.asarray(segmentation["counts"], dtype=np.int64)}
        if isinstance(segmentation, list):
            return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (TypeError, ValueError, OverflowError):
        return None
    return segmentation


def region_of(
    raw: Mapping[str, Any], class_id: int, size: tuple[int, int], tolerated: Counter[str]
) -> Region | None:
    """Checks an annotation.

    Args:
        raw: what :func:`compact` left of it.
        class_id: 1 .. 80.
        size: (H, W) of its image.
        tolerated: what is left out or mended is counted here.

    Returns:
        The region; None where no polygon has three points.

    Raises:
        DataError: segmentation, id or iscrowd cannot be used; the message goes on from "annotation 7 ".
        KeyError: there is no segmentation.
    """
    segmentation = raw["segmentation"]
    number, crowd = _id_and_crowd(raw)
    about: dict[str, Any] = {"id": number, "class_id": class_id, "crowd": crowd}
    if isinstance(segmentation, dict):
        return Region(**about, runs=_runs(segmentation, size))
    if not isinstance(segmentation, list):
        raise DataError("has a segmentation that is neither polygons nor a run-length code")
    polygons = []
    for polygon in segmentation:
        if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise DataError("has a polygon that is no list of x, y, x, y, ... of finite numbers")
        if len(polygon) < 6:
            tolerated["polygons of fewer than 3 points, left out"] += 1
            continue
        out = outside(polygon, size)
        if max(out) > max(size):
            raise DataError(
                f"has a polygon that reaches {max(out):.0f} pixels outside its image of "
                f"{size[1]} x {size[0]}: its coordinates are of another image, or no pixels"
            )
        if max(out) > 0:
            tolerated["polygons outside their image, clipped"] += 1
        polygons.append(polygon)
    if not polygons:
        tolerated["annotations without a polygon of 3 points, left out"] += 1
        return None
    return Region(**about, polygons=tuple(polygons))


def _id_and_crowd(raw: Mapping[str, Any]) -> tuple[int, bool]:
    """The id and whether it is a crowd; both may be missing."""
    number, crowd = raw.get("id", 0), raw.get("iscrowd", 0)
    if not isinstance(number, int):
        raise DataError(f"has the id {number!r}, which is no whole number")
    if crowd not in (0, 1):
        raise DataError(f"has iscrowd {crowd!r}, which is neither 0 nor 1")
    return number, bool(crowd)


def outside(polygon: Floats, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns how far a polygon reaches past the left, top, right and lower edge, pixels; 0 where not."""
    x, y = polygon[::2], polygon[1::2]
    past = (-x.min(), -y.min(), x.max() - size[1], y.max() - size[0])
    left, top, right, below = (max(0.0, float(v)) for v in past)
    return left, top, right, below


def _runs(code: Mapping[str, Any], size: tuple[int, int]) -> Runs:
    """The runs of a run-length code of either kind, checked to be of the image's size."""
    stated, counts = code.get("size"), code.get("counts")
    if isinstance(counts, str | bytes):
        runs = decode_counts(counts)
    elif isinstance(counts, np.ndarray) and counts.ndim == 1:
        runs = counts
    else:
        raise DataError("has a run-length code without counts")
    if not isinstance(stated, Sequence) or tuple(stated) != size:
        raise DataError(f"has a run-length code of size {stated}, its image is {list(size)} (height, width)")
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise DataError(
            f"has a run-length code of {int(runs.sum())} pixels, its image of {size[1]} x {size[0]} has "
            f"{size[0] * size[1]}"
        )
    return runs


def decode_counts(text: str | bytes) -> Runs:
    """Returns the runs of a compressed run-length code.

    Each number has groups of 5 bits in characters from "0", the lowest group first; bit 6 tells that another
    group follows, bit 5 of the last one is the sign. From the fourth number on they are differences to
    the number two before. Done here, and not by pycocotools alone, because it draws before it checks.

    Source: COCO API, maskApi (Piotr Dollár and Tsung-Yi Lin), as documented for ``rleToString``.

    Raises:
        DataError: a character is outside the code, or the last number is not complete.
    """
    data = text.encode("latin-1", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in data:
        group = character - 48
        if not 0 <= group < 64 or shift > 35:
            raise DataError("has a compressed run-length code with characters that are none of the code")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (group & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError("has a compressed run-length code that breaks off")
    return np.array(runs, dtype=np.int64)


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


log = logging.getLogger(__name__)

CocoPart = Literal["train", "val"]

COCO_PAGE = "the COCO project's page, cocodataset.org, Dataset > Download"
"""Where the archives are."""

_SCHEMA = "fewseg-coco-1"


def find_coco(root: Path | str) -> Path:
    """Returns the folder with ``annotations`` at or below ``root`` (in ``coco``, ``coco2014`` and the like).

    Raises:
        DataError: the root is missing or empty, or no such folder is there.
    """
    root = Path(root)
    require_folder(root, "COCO 2014")
    places = ("", "coco", "COCO", "coco2014", "COCO2014", "MSCOCO2014")
    for place in places:
        if any((root / place / "annotations").glob("instances_*2014.json")):
            return root / place
    raise DataError(
        f"COCO 2014: {root} has no annotations/instances_train2014.json or instances_val2014.json, nor has "
        f"{' or '.join(places[1:])} in it: unpack annotations_trainval2014.zip there ({COCO_PAGE})"
    )


def annotation_file(coco: Path, part: CocoPart) -> Path:
    """Returns the path of a part's annotation file."""
    return coco / "annotations" / f"instances_{part}2014.json"


def image_folder(coco: Path, part: CocoPart) -> Path:
    """Returns the folder of a part's photographs: ``train2014``, or ``images/train2014`` where that is."""
    other = coco / "images" / f"{part}2014"
    return other if other.is_dir() and not (coco / f"{part}2014").is_dir() else coco / f"{part}2014"


class CocoSource:
    """The annotated images of one part of COCO 2014, classes 1 .. 80 (category ids 1 .. 90 without gaps).

    Ids are file names without suffix, in the order of the annotation file; images without any annotation are
    not in it. For how overlaps and crowd regions become label maps see
    :func:`fewseg.data.coco.draw_labels`; a class's area is counted on them, at original size.

    Args:
        name: what messages call the set.
        folder: of the photographs.
        images: in order.
        labels: the map of each of ``images``.
        key: digest of the annotation file.
        listed: images of the annotation file, those without annotations too.
        tolerated: what of the annotations was left out or mended -> how often.

    Raises:
        DataError: photographs are missing.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        images: Sequence[CocoImage],
        labels: LabelPack,
        key: str,
        listed: int,
        tolerated: Mapping[str, int],
    ) -> None:
        self.name = name
        self.folder = folder
        self.class_names: Mapping[int, str] = numbered(COCO_CLASSES)
        self.listed, self.tolerated = listed, dict(tolerated)
        self._images = {image.id: (number, image) for number, image in enumerate(images)}
        self.ids = tuple(self._images)
        self._labels, self._key = labels, key
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        missing = [f"{folder / i.file} does not exist" for i in images if i.file not in there]
        if missing:
            raise DataError(
                f"{name}: {len(missing)} of {len(images)} photographs are missing: unpack the archive again "
                f"({COCO_PAGE}){summary(missing)}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def _find(self, id: str) -> tuple[int, CocoImage]:
        if id not in self._images:
            raise DataError(f"{self.name} has no image {id!r}: it holds {len(self.ids)}, like {self.ids[:3]}")
        return self._images[id]

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns the oriented (H, W) of a photograph after checking that its file is complete."""
        return image_size(self.folder / self._find(id)[1].file)

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, EXIF orientation applied.

        Raises:
            DataError: the file is missing or broken, or the id unknown.
        """
        return read_rgb(self.folder / self._find(id)[1].file)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, 1 .. 80, 255 (crowd).

        Raises:
            DataError: the cached map is damaged, or the id unknown.
        """
        number, image = self._find(id)
        return torch.from_numpy(self._labels.read(number, (image.height, image.width)))

    def digest(self) -> str:
        """Returns a SHA-256 of the annotation file's content and the drawing rules.

        Photographs are known by their names alone: the release never changed them, and 120 000 look-ups would
        cost every start some seconds.
        """
        return hashlib.sha256(repr((_SCHEMA, self.name, self._key, RENDERING)).encode()).hexdigest()


@dataclass(frozen=True)
class _Header:
    """What of an annotation file is kept beside the label maps."""

    images: tuple[CocoImage, ...]
    listed: int
    tolerated: Mapping[str, int]


def coco_source(
    root: Path | str, part: CocoPart, cache_dir: Path | str | None = None, progress: bool = True
) -> CocoSource:
    """Returns the annotated images of COCO 2014 train or val.

    The first time, the annotation file is read and all label maps are drawn (minutes) and kept, compressed,
    in a folder named by the file's SHA-256. Later neither is read again while path, size and time of the
    annotation file are the same.

    Args:
        root: the folder with ``annotations``, ``train2014`` and ``val2014``, or one that holds it.
        part: "train" or "val".
        cache_dir: where label maps are kept; ``$FEWSEG_CACHE/coco`` by default.
        progress: show a bar with the time left.

    Raises:
        DataError: files are missing, broken, or not those of COCO.
        ValueError: there is no such part.
    """
    if part not in ("train", "val"):
        raise ValueError(f"COCO 2014 has no part {part!r} with annotations: choose 'train' or 'val'")
    coco = find_coco(root)
    path = annotation_file(coco, part)
    cache = Path(cache_dir) if cache_dir is not None else cache_folder() / "coco"
    key = _known_digest(path, cache)
    folder = cache / f"{key[:32]}-{RENDERING}"
    header = _load(folder / "images.json")
    labels = open_pack(folder, len(header.images)) if header else None
    if header is None or labels is None:
        found = read_annotations(path)
        header = _Header(found.images, found.listed, found.tolerated)
        labels = _draw(found, folder, f"drawing label maps of COCO {part}2014", progress)
        _write(folder / "images.json", json.dumps({"schema": _SCHEMA} | asdict(header)))
    for what, times in header.tolerated.items():
        if times:  # lists that were cached by older versions have zeros too
            log.info("%s: %d %s", path.name, times, what)
    return CocoSource(
        f"coco-{part}2014",
        image_folder(coco, part),
        header.images,
        labels,
        key,
        header.listed,
        header.tolerated,
    )


def _draw(found: Annotations, folder: Path, title: str, progress: bool) -> LabelPack:
    def draw(number: int) -> Plane:
        image = found.images[number]
        return draw_labels(found.regions[number], (image.height, image.width))

    return build_pack(folder, len(found.images), draw, title, progress=progress)


def _known_digest(path: Path, cache: Path) -> str:
    """The file's SHA-256, from a note where path, size and time are those of the last look."""
    try:
        stat = path.stat()
    except OSError:
        return file_digest(path)  # raises
    seen = hashlib.sha256(repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()
    note = cache / f"seen-{seen[:24]}.txt"
    known = note.read_text(encoding="ascii", errors="replace").strip() if note.exists() else ""
    if len(known) == 64 and set(known) <= set("0123456789abcdef"):
        return known
    digest = file_digest(path)
    _write(note, digest + "\n")
    return digest


def _write(path: Path, text: str) -> None:
    """Writes what is only there to save time: where it cannot be written, that is a warning."""
    try:
        atomic_write_text(path, text)
    except OSError as error:
        log.warning("not cached, the annotation file is read again next time: %s", error)


def _load(path: Path) -> _Header | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            return None
        images = tuple(CocoImage(i["file"], i["height"], i["width"]) for i in content["images"])
        return _Header(images, int(content["listed"]), dict(content["tolerated"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cached list %s cannot be read (%s): reading the annotation file again", path, error)
        return None
