"""COCO 2014: annotation files as label maps of 80 classes, drawn once and kept compressed, and the source."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os.path import basename, splitext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fewseg.annotations.coco import Shape, compact, parse_coco, shape_of
from fewseg.annotations.image_files import image_size, read_rgb, require_folder
from fewseg.annotations.json_values import field as json_field
from fewseg.annotations.json_values import shown, size_field
from fewseg.annotations.values import Mask, counted
from fewseg.data.folds import CATEGORY_IDS, CLASS_OF_CATEGORY, COCO_CLASSES, numbered
from fewseg.data.source import known
from fewseg.ops.files import atomic_write_bytes, atomic_write_text, cache_folder
from fewseg.ops.parallel import for_each, summary
from fewseg.types import IGNORE, DataError

log = logging.getLogger(__name__)

CocoPart = Literal["train", "val"]

COCO_PAGE = "the COCO project's page, cocodataset.org, Dataset > Download"
"""Where the archives are."""

_MOST_PIXELS = 178_956_970
"""Pillow refuses to read a larger photograph."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotation of an image."""

    id: int
    class_id: int
    crowd: bool
    shape: Shape


@dataclass(frozen=True)
class CocoImage:
    """A photograph: the name of its file, and its size in pixels."""

    file: str
    height: int
    width: int

    @property
    def id(self) -> str:
        """The file name without suffix: ``COCO_val2014_000000000042``."""
        return splitext(basename(self.file))[0]  # of 80 000 at every start: a Path takes five times as long

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width


@dataclass(frozen=True)
class Annotations:
    """What an annotation file holds."""

    images: tuple[CocoImage, ...]  # those with one annotation at least (a crowd region counts)
    instances: tuple[tuple[Instance, ...], ...]  # of each of ``images``; not kept beside the label maps
    listed: int  # images of the file, those without annotations too
    tolerated: Mapping[str, int]  # what was left out or clipped -> how often


def read_annotations(path: Path) -> Annotations:
    """Reads an annotation file; all wrong entries are counted and the first few shown."""
    try:
        content = json.loads(path.read_bytes(), object_hook=compact)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    for name in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not content.get(name):
            raise DataError(
                f"annotation file {path} has no {name}; expected an instances file with images, categories "
                "and annotations: captions and keypoints are other files"
            )
    file = parse_coco(content, path)
    names = dict(zip(CATEGORY_IDS, COCO_CLASSES, strict=True))
    wrong = [
        f"category {id} {name!r} is not one of COCO's 80 (ids 1 .. 90, such as 1 'person')"
        for id, name in file.categories.items()
        if names.get(id) != name
    ]
    tolerated: Counter[str] = Counter()
    stems: set[str] = set()
    images: list[CocoImage] = []
    instances: list[tuple[Instance, ...]] = []
    for key, entry in file.images.items():
        try:
            image = _image(entry, f"image {key}", stems)
        except DataError as error:
            wrong.append(str(error))
            continue
        of_image: list[Instance | None] = []
        for k, raw in file.annotations.get(key, ()):
            try:
                of_image.append(
                    instance_of(raw, file.categories, image.size, f"annotation {raw.get('id', k)}", tolerated)
                )
            except DataError as error:
                wrong.append(str(error))
        if of_image:
            images.append(image)
            instances.append(tuple(instance for instance in of_image if instance))
    if wrong:
        raise DataError(
            f"annotation file {path}: {len(wrong)} wrong entries; expected COCO's own instances file (or "
            f"a part of it) as unpacked: unpack it again, or mend what made it{summary(wrong)}"
        )
    return Annotations(tuple(images), tuple(instances), len(file.images), dict(sorted((+tolerated).items())))


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(
            f"annotation file {path} does not exist: unpack COCO's annotations_trainval2014 into the root"
        )
    return DataError(
        f"annotation file {path} cannot be read ({error}); expected COCO's instances file, JSON: it is "
        "truncated or another file, unpack it again"
    )


def _image(entry: Mapping[str, Any], where: str, stems: set[str]) -> CocoImage:
    image = CocoImage(
        json_field(entry, "file_name", str, where), *size_field(entry, "height", "width", where)
    )
    if image.height * image.width > _MOST_PIXELS:
        raise DataError(
            f"{where}, {image.file}, must have up to {_MOST_PIXELS} pixels, got {image.width} x "
            f"{image.height}"
        )
    if image.id in stems:
        raise DataError(f"{where}, {image.file}, is listed twice")
    stems.add(image.id)
    return image


def instance_of(
    raw: Mapping[str, Any],
    categories: Mapping[int, str],
    size: tuple[int, int],
    where: str,
    tolerated: Counter[str],
) -> Instance | None:
    """Checks an annotation of an image of (H, W); None where no polygon has three points."""
    number, crowd = raw.get("id", 0), raw.get("iscrowd", 0)
    if type(number) is not int:
        raise DataError(f"{where}: the id must be a whole number, got {shown(number)}")
    if crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd must be 0 or 1, got {shown(crowd)}")
    if raw.get("segmentation") is None:
        raise DataError(f"{where}: the segmentation must be polygons or an RLE, got none")
    shape = shape_of(raw, categories, size, where, tolerated)
    if shape.empty:
        tolerated["annotations without a polygon of 3 points, left out"] += 1
        return None
    return Instance(number, CLASS_OF_CATEGORY.get(shape.category, 0), bool(crowd), shape)


RENDERING = 1
"""Part of the key of drawn maps: a change of these rules is a change of this number."""


def draw_labels(instances: Sequence[Instance], size: tuple[int, int]) -> Mask:
    """Returns the label map of an image of (H, W): 0 background, 1 .. 80, 255 ignore.

    Crowds come first, as 255: their pixels count neither for their class nor against it. Things come over
    them, the larger below the smaller (by pixels drawn; of two alike the one with the lower annotation id is
    on top), so that where things overlap a pixel belongs to the smallest of them, and where a thing overlaps
    a crowd to the thing.
    """
    labels: Mask = np.zeros(size, dtype=np.uint8)
    things = []
    for instance in instances:
        inside = instance.shape.draw(size)
        if instance.crowd:
            labels[inside] = IGNORE
        else:
            things.append((-int(np.count_nonzero(inside)), -instance.id, instance.class_id, inside))
    for _, _, class_id, inside in sorted(things, key=lambda thing: thing[:2]):
        labels[inside] = class_id
    return labels


SHARD = 256
"""Label maps of a file: one of more takes longer to open, for each map that is read."""


@dataclass(frozen=True)
class LabelPack:
    """Label maps on disk: NumPy archives of ``SHARD`` maps, named by their numbers."""

    folder: Path
    kept: dict[int, bytes] = field(default_factory=dict, repr=False)
    """Archives that could not be written, in memory."""

    def path(self, shard: int) -> Path:
        """Returns the file of an archive."""
        return self.folder / f"labels-{shard:04d}.npz"

    def read(self, number: int) -> Mask:
        """Returns map ``number``, (H, W) uint8."""
        shard = number // SHARD
        try:
            with np.load(io.BytesIO(self.kept[shard]) if shard in self.kept else self.path(shard)) as maps:
                labels: Mask = maps[str(number)]
                return labels
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"the cached label maps {self.path(shard)} cannot be read ({error}): delete the folder "
                f"{self.folder}, and they are drawn again"
            ) from error

    def has(self, shard: int, count: int) -> bool:
        """Whether an archive of a pack of ``count`` maps is there and not cut off."""
        try:
            with zipfile.ZipFile(self.path(shard)) as archive:
                return archive.namelist() == [f"{n}.npy" for n in _numbers(shard, count)]
        except (OSError, zipfile.BadZipFile):
            return False

    def fill(self, count: int, draw: Callable[[int], Mask], title: str, progress: bool = True) -> None:
        """Draws the archives of ``count`` maps that are not complete; without room they are kept."""

        def make(key: str) -> None:
            shard = int(key)
            if self.has(shard, count):
                return
            if self.path(shard).exists():
                log.warning("the cached label maps %s are damaged: drawing them again", self.path(shard))
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
                for n in _numbers(shard, count):
                    with archive.open(f"{n}.npy", "w") as file:
                        np.save(file, draw(n))
            try:
                atomic_write_bytes(self.path(shard), content.getvalue())
            except OSError as error:
                log.warning("label maps stay in memory and are drawn again next time: %s", error)
                self.kept[shard] = content.getvalue()

        for_each([str(shard) for shard in _shards(count)], make, title, progress=progress)


def _shards(count: int) -> range:
    """The numbers of the archives of ``count`` maps."""
    return range(-(-count // SHARD))


def _numbers(shard: int, count: int) -> range:
    """The numbers of the maps of an archive."""
    return range(shard * SHARD, min((shard + 1) * SHARD, count))


_SCHEMA = "fewseg-coco-1"


def find_coco(root: Path | str) -> Path:
    """Returns the folder with ``annotations`` at or below ``root`` (``coco``, ``coco2014`` and the like)."""
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


def coco_paths(coco: Path, part: CocoPart) -> tuple[Path, Path]:
    """Returns a part's annotation file, and its photographs: ``train2014``, or else ``images/train2014``."""
    photos, other = coco / f"{part}2014", coco / "images" / f"{part}2014"
    photos = other if other.is_dir() and not photos.is_dir() else photos
    return coco / "annotations" / f"instances_{part}2014.json", photos


class CocoSource:
    """The annotated images of a COCO instance file, classes 1 .. 80 (category ids 1 .. 90 without gaps).

    Ids are file names without suffix, in the order of the annotation file; images without any annotation are
    not in it. For how overlaps and crowd regions become label maps see
    :func:`draw_labels`; a class's area is counted on them, at original size.

    Args:
        name: what messages call the set.
        folder: of the photographs.
        annotations: the images, in order.
        labels: the map of each of them.
        key: digest of the annotation file.

    Raises:
        DataError: photographs are missing; of a reading, the file is damaged or the id unknown.
    """

    def __init__(
        self, name: str, folder: Path, annotations: Annotations, labels: LabelPack, key: str
    ) -> None:
        self.name, self.folder = name, folder
        self.class_names: Mapping[int, str] = numbered(COCO_CLASSES)
        self.listed, self.tolerated = annotations.listed, dict(annotations.tolerated)
        images = annotations.images
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

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns the oriented (H, W) of a photograph after checking that its file is complete."""
        return image_size(self._file(id))

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, EXIF orientation applied."""
        return read_rgb(self._file(id))

    def _file(self, id: str) -> Path:
        return self.folder / known(self, self._images, id)[1].file

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, 1 .. 80, 255 (crowd)."""
        return torch.from_numpy(self._labels.read(known(self, self._images, id)[0]))

    def digest(self) -> str:
        """Returns a SHA-256 of the annotation file's content and the drawing rules.

        Photographs are known by their names alone: the release never changed them, and 120 000 look-ups would
        cost every start some seconds.
        """
        return hashlib.sha256(repr((_SCHEMA, self.name, self._key, RENDERING)).encode()).hexdigest()


def coco_source(
    root: Path | str, part: CocoPart, cache_dir: Path | str | None = None, progress: bool = True
) -> CocoSource:
    """Returns the annotated images of COCO 2014 train or val; see ``instance_source`` for what is kept.

    Args:
        root: the folder with ``annotations``, ``train2014`` and ``val2014``, or one that holds it.
        part: "train" or "val".
        cache_dir: where label maps are kept; ``$FEWSEG_CACHE/coco`` by default.
        progress: show a bar with the time left.

    Raises:
        DataError: files are missing, broken, or not those of COCO.
        ValueError: the part is unknown.
    """
    if part not in ("train", "val"):
        raise ValueError(f"COCO 2014 has no part {part!r} with annotations: choose 'train' or 'val'")
    path, photos = coco_paths(find_coco(root), part)
    return instance_source(f"coco-{part}2014", path, photos, cache_dir, progress)


def coco_mini_source(root: Path) -> CocoSource:
    """Returns the 500 photographs of coco-mini, from the folder with ``instances.json`` and ``images``."""
    if not (root / "instances.json").is_file():
        raise DataError(
            f"coco-mini is not at {root}: give --root, or set FEWSEG_SHARED to the folder that has "
            "data/coco-mini"
        )
    return instance_source("coco-mini", root / "instances.json", root / "images")


def instance_source(
    name: str, path: Path, photos: Path, cache_dir: Path | str | None = None, progress: bool = True
) -> CocoSource:
    """Returns the annotated images of a file of COCO's 80 categories, ``name`` in messages.

    The first time, the annotation file is read and all label maps are drawn (of COCO 2014, minutes) and kept,
    compressed, in a folder named by the file's SHA-256. Later neither is read again while path, size and time
    of the annotation file are the same.
    """
    cache = Path(cache_dir) if cache_dir is not None else cache_folder() / "coco"
    key = _known_digest(path, cache)
    folder = cache / f"{key[:32]}-{RENDERING}"
    annotations, labels = _load(folder / "images.json"), LabelPack(folder)
    count = len(annotations.images) if annotations else 0
    if annotations is None or not all(labels.has(shard, count) for shard in _shards(count)):
        annotations = read = read_annotations(path)

        def draw(number: int) -> Mask:
            return draw_labels(read.instances[number], read.images[number].size)

        labels.fill(len(annotations.images), draw, f"drawing label maps of {name}", progress)
        images = [asdict(image) for image in annotations.images]
        facts = {"images": images, "listed": annotations.listed, "tolerated": dict(annotations.tolerated)}
        _write(folder / "images.json", json.dumps({"schema": _SCHEMA} | facts))
    for what, count in annotations.tolerated.items():
        if count:  # lists that were cached by older versions have zeros too
            log.info("%s: %s", path.name, counted(count, what))
    return CocoSource(name, photos, annotations, labels, key)


def _known_digest(path: Path, cache: Path) -> str:
    """The file's SHA-256, from a note where path, size and time are those of the last look."""
    try:
        stat = path.stat()
        seen = hashlib.sha256(
            repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns)).encode()
        ).hexdigest()
        note = cache / f"seen-{seen[:24]}.txt"
        noted = note.read_text(encoding="ascii", errors="replace").strip() if note.exists() else ""
        if len(noted) == 64 and set(noted) <= set("0123456789abcdef"):
            return noted
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
    _write(note, digest + "\n")
    return digest


def _write(path: Path, text: str) -> None:
    """Writes what is only there to save time: where it cannot be written, that is a warning."""
    try:
        atomic_write_text(path, text)
    except OSError as error:
        log.warning("not cached, the annotation file is read again next time: %s", error)


def _load(path: Path) -> Annotations | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            return None
        images = tuple(CocoImage(i["file"], i["height"], i["width"]) for i in content["images"])
        return Annotations(images, (), int(content["listed"]), dict(content["tolerated"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        log.warning("the cached list %s cannot be read (%s): reading the annotation file again", path, error)
        return None
