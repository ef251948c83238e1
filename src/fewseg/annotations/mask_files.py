"""Folders of images and mask files.

Layouts, recognised by what the folder holds:

- ``<class>/images/*`` with ``<class>/masks/*``: the folder names the class;
- ``images/*`` with ``masks/*``: a mask lies under the image's path (``images/a/x.jpg``: ``masks/a/x.png``),
  or under its name with ``_mask``;
- ``images/*`` with ``masks/<class>/*``, where ``images`` has no folders: several classes an image;
- images and masks side by side: ``x.jpg`` with ``x.png`` or ``x_mask.png``.

Several classes in one mask file need a list of them: ``classes.txt`` beside ``masks`` or in it, one name a
line from number 1 on (a first line ``background`` is number 0). What numbers mean:

- a list of two classes or more: 0 background, the listed numbers, 255 ignore;
- no list, or one class: :func:`.class_masks.read_class_mask` (0/1, 0/255, 0/1/255, one palette index, one
  colour). A class is stored alike in all its files: one that differs is a problem of its file, since it
  may be a different class.

A mask without foreground makes a negative; an image without a mask is a problem, since it is more likely
forgotten.
"""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from fewseg.annotations.class_masks import assumed_background, check_stored, read_class_mask
from fewseg.annotations.image_files import (
    IMAGE_SUFFIXES,
    NUMBER_MODES,
    check_labels,
    check_same_size,
    image_size,
    mask_numbers,
    opened,
)
from fewseg.annotations.json_values import read_annotations
from fewseg.annotations.names import file_safe
from fewseg.annotations.options import SUPPORT_FORMATS, ReadOptions, image_files
from fewseg.annotations.shapes import BACKGROUND_NAMES
from fewseg.annotations.values import (
    AnnotatedImage,
    Items,
    Mask,
    OnlyIgnoredError,
    Prediction,
    Problem,
    check_classes,
    counted,
)
from fewseg.annotations.writer import FilesWriter
from fewseg.ops.files import atomic_write_bytes
from fewseg.types import IGNORE, DataError

logger = logging.getLogger(__name__)

CLASSES_FILE = "classes.txt"
_MARK = "_mask"
_NAME_THEM = (
    f"name the classes in {CLASSES_FILE} beside the masks (a name a line, line 1 is number 1), or give the "
    "one class the same number in all masks"
)


@dataclass(frozen=True)
class _Seen:
    """What the masks of a folder have in common."""

    stored: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    """Class -> what it is stored as, with the first such mask."""
    assumed: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    """What was assumed -> about which masks."""


def iter_mask_folder(root: Path, options: ReadOptions) -> Items:
    """Reads a folder of one of the layouts above; warns at its end of what was assumed."""
    seen = _Seen()
    yield from _folder(root, seen, options)
    for assumed, masks in seen.assumed.items():
        logger.warning("%s, the first %s: %s", counted(len(masks), "masks"), masks[0], assumed)


def _folder(root: Path, seen: _Seen, options: ReadOptions) -> Items:
    classes = read_classes(root)
    if options.images is not None or (root / "images").is_dir():
        images = options.images or root / "images"
        masks = root / "masks" if (root / "masks").is_dir() else root
        if masks == root and options.images is None:
            raise DataError(
                f"{root} has images/ and no masks/; expected {SUPPORT_FORMATS}: put masks/ beside images/"
            )
        yield from _parallel(images, masks, classes, seen, options)
        return
    folders = _folders(root)
    if any((f / "images").is_dir() and (f / "masks").is_dir() for f in folders):
        for folder in folders:
            yield from _of_class(folder, seen, options)
        return
    yield from _side_by_side(root, classes, seen, options)


def _of_class(folder: Path, seen: _Seen, options: ReadOptions) -> Items:
    """A folder among those of classes; one that is not complete is a problem, as it is likely a mistake."""
    absent = [part for part in ("images", "masks") if not (folder / part).is_dir()]
    pictures = [] if absent else image_files(folder / "images")
    if not pictures:
        missing = " and ".join(f"{part}/" for part in absent) or "a picture in images/"
        error = (
            f"{folder} lacks {missing}; expected <class>/images with <class>/masks, as its neighbours have: "
            "complete it, or take it away"
        )
        yield Problem(str(folder), DataError(error))
        return
    used = set()
    for image in pictures:
        mask = _mask_of(image.relative_to(folder / "images"), folder / "masks")
        used.add(mask)
        yield _read(image, {folder.name: mask}, (), seen, options)
    yield from _unused(folder / "masks", used)


def _unused(masks: Path, used: Collection[Path | None]) -> Iterator[Problem]:
    """Masks that belong to no image."""
    for mask in image_files(masks):
        if mask not in used:
            error = f"{mask} belongs to no image; expected an image of its name: add it, or take it away"
            yield Problem(str(mask), DataError(error))


def read_classes(root: Path) -> Sequence[str]:
    """Returns the names in ``classes.txt`` of a folder or its ``masks``, from number 1 on, or none."""
    file = next((p for p in (root / CLASSES_FILE, root / "masks" / CLASSES_FILE) if p.is_file()), None)
    return () if file is None else read_names(file, BACKGROUND_NAMES)


def read_names(file: Path, left_out: Collection[str] = ()) -> Sequence[str]:
    """Returns the names of a file, one a line, without a first line that is one of those left out."""
    content = read_annotations(file)
    try:
        names = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
        while names and not names[-1]:
            names.pop()
        if names and names[0] in left_out:
            names = names[1:]
        check_classes(tuple(names))
    except ValueError as error:
        raise DataError(f"{file} must have a name a line, from class 1 on: {error}") from error
    return names


def _parallel(images: Path, masks: Path, classes: Sequence[str], seen: _Seen, options: ReadOptions) -> Items:
    """Images in one folder, masks in another."""
    if not images.is_dir():
        raise DataError(
            f"the folder of images {images} does not exist: give the folder that holds the images"
        )
    pictures = image_files(images)
    if not pictures:
        raise DataError(f"{images} holds no images ({', '.join(IMAGE_SUFFIXES)}): put them there")
    class_folders = [] if _folders(images) else _folders(masks)
    used: set[Path | None] = set()
    for image in pictures:
        relative = image.relative_to(images)
        files: dict[str, Path | None] = {f.name: _mask_of(relative, f) for f in class_folders}
        files = {name: mask for name, mask in files.items() if mask is not None}
        if files:
            yield _read(image, files, (), seen, options)
        else:
            files = {options.class_name: _mask_of(relative, masks)}
            yield _read(image, files, classes, seen, options)
        used.update(files.values())
    if masks.name == "masks":  # a folder of masks alone
        yield from _unused(masks, used)


def _side_by_side(root: Path, classes: Sequence[str], seen: _Seen, options: ReadOptions) -> Items:
    """Images and masks in one folder."""
    by_stem: dict[str, list[Path]] = {}
    for file in image_files(root, deep=False):
        by_stem.setdefault(file.stem, []).append(file)
    pairs: dict[Path, Path | None] = {}
    for stem, named in by_stem.items():
        if stem.endswith(_MARK) and stem.removesuffix(_MARK) in by_stem:
            continue
        marked = by_stem.get(stem + _MARK, [])
        png = [f for f in named if f.suffix.lower() == ".png"]
        if not marked and len(named) == 2 and len(png) == 1:
            pairs[next(f for f in named if f not in png)] = png[0]
        else:
            pairs.update({image: marked[0] if len(marked) == len(named) == 1 else None for image in named})
    if not any(pairs.values()):
        raise DataError(
            f"{root} holds no annotated images; expected {SUPPORT_FORMATS}: put masks into <class>/masks "
            "beside <class>/images, into masks/ beside images/, or as x.png or x_mask.png beside x.jpg"
        )
    for image, mask in pairs.items():
        yield _read(image, {options.class_name: mask}, classes, seen, options)


def _read(
    image: Path,
    masks: Mapping[str, Path | None],
    classes: Sequence[str],
    seen: _Seen,
    options: ReadOptions,
) -> AnnotatedImage | Problem:
    """Reads an image's mask files: one for each class, or one for all classes of a list."""
    try:
        size = image_size(image, options.max_pixels)
        by_class: dict[str, Mask] = {}
        for name, path in masks.items():
            if path is None:
                raise DataError(
                    f"{image} has no mask of its name, or several; expected one (x.png or x_mask.png; "
                    "all 0 for a negative): add it, or take the image away"
                )
            if len(classes) > 1:
                with opened(path, "mask", options.max_pixels) as file:
                    stored, assumed = mask_numbers(file, path, NUMBER_MODES), assumed_background(file)
                by_class.update(_split(stored, classes, path))
            else:
                class_mask = read_class_mask(path, options.max_pixels)
                stored, assumed = class_mask.mask, class_mask.assumed
                check_stored(class_mask.stored_as, path, seen.stored[name], _NAME_THEM)
                by_class[classes[0] if classes else name] = stored.numpy()
            if assumed:
                seen.assumed[assumed].append(path)
            check_same_size(str(image), size, (int(stored.shape[0]), int(stored.shape[1])))
    except DataError as error:
        return Problem(str(image), error)
    return AnnotatedImage(image=image, size=size, masks=by_class, listed=tuple(classes))


def _split(stored: Tensor, classes: Sequence[str], path: Path) -> Mapping[str, Mask]:
    """Returns the masks of the classes that occur; an OnlyIgnoredError where 255 alone does."""
    labels = stored.numpy()
    check_labels(stored, dict(enumerate(classes, 1)), str(path))
    ignored = labels == IGNORE
    by_class: dict[str, Mask] = {}
    for j, name in enumerate(classes, 1):
        mask = (labels == j).astype("uint8")
        if mask.any():
            mask[ignored] = IGNORE
            by_class[name] = mask
    if ignored.any() and not by_class:
        raise OnlyIgnoredError(
            f"the mask holds 255 and no class; expected the numbers 1 .. {len(classes)} of {CLASSES_FILE}"
        )
    return by_class


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _mask_of(relative: Path, masks: Path) -> Path | None:
    """Returns the mask of an image by its relative path, or None where there is none or several."""
    folder = masks / relative.parent
    if not folder.is_dir():
        return None
    exact = [folder / f"{relative.name}.png"]  # where x.jpg and x.png are two images
    if exact[0].is_file():
        return exact[0]
    stems = (relative.stem, relative.stem + _MARK)
    files = [f for f in folder.iterdir() if f.stem in stems and f.suffix.lower() in IMAGE_SUFFIXES]
    return files[0] if len(files) == 1 else None


class IndexPngWriter(FilesWriter):
    """Writes ``<image>.png``, palette PNGs of class numbers (0 background, 255 unknown), and ``classes.txt``.

    The folder can be read back as the masks of the same images. The colours are PASCAL VOC's.
    """

    folder, ending = "masks", ".png"

    def _begin(self) -> None:
        if any(name.strip() != name or len(name.splitlines()) > 1 for name in self.classes):
            raise ValueError(
                f"class names {list(self.classes)} are invalid in a list: remove line breaks and outer spaces"
            )
        names = "".join(f"{name}\n" for name in ("background", *self.classes))
        self._write_listing(f"{self.folder}/{CLASSES_FILE}", names)

    def _write(self, prediction: Prediction) -> None:
        atomic_write_bytes(self.path(prediction.name), png_bytes(prediction.labels, voc_palette()))


class ProbabilityPngWriter(FilesWriter):
    """Writes ``<image>.<class>.png``: grey PNGs of each class's probability, 0 .. 255."""

    folder = "probability"

    def _begin(self) -> None:
        self._endings = [f".{file_safe(name)}.png" for name in self.classes]
        if len({e.casefold() for e in self._endings}) != len(self.classes):
            raise ValueError(
                f"classes must differ in more than case, which many disks ignore, got {list(self.classes)}"
            )

    def _write(self, prediction: Prediction) -> None:
        if prediction.probability is None:
            raise ValueError(f"{prediction.name!r} has no probability: keep it when segmenting")
        planes = [png_bytes(quantised(plane)) for plane in prediction.probability]
        for plane, ending in zip(planes, self._endings, strict=True):
            atomic_write_bytes(self.path(prediction.name, ending), plane)

    def __contains__(self, name: object) -> bool:
        return all(self.path(str(name), ending).is_file() for ending in self._endings)


def quantised(probability: np.ndarray) -> np.ndarray:
    """Returns a probability (H, W) as uint8, rounded; 1 is 255."""
    if probability.dtype == np.uint8:
        return probability
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("probabilities must be in [0, 1], got others: give those of a softmax or a sigmoid")
    scaled: np.ndarray = np.rint(probability.astype(np.float64) * 255)
    return scaled.astype(np.uint8)


@cache
def voc_palette() -> list[int]:
    """Returns VOC's colours: bit k of a number goes to bit 7 - k // 3 of channel k mod 3; R G B by number."""
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colours += channels
    return colours


def png_bytes(plane: Mask | np.ndarray, palette: list[int] | None = None) -> bytes:
    """Returns (H, W) uint8 as a PNG file; with 768 values of a palette, as one of indices."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
