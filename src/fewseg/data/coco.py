"""COCO 2014 from the folders as unpacked: label maps are drawn from ``instances_*.json`` once, then kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fewseg.data.coco_annotations import Annotations, CocoImage, file_digest, read_annotations
from fewseg.data.coco_classes import COCO_CLASSES
from fewseg.data.coco_masks import RENDERING, Plane, draw_labels
from fewseg.data.errors import DataError
from fewseg.data.folds import numbered
from fewseg.data.image_files import image_size, read_rgb, require_folder
from fewseg.data.label_pack import LabelPack, build_pack, open_pack
from fewseg.data.parallel import summary
from fewseg.data.storage import cache_folder
from fewseg.ops.files import atomic_write_text

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
    :func:`fewseg.data.coco_masks.draw_labels`; a class's area is counted on them, at original size.

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
