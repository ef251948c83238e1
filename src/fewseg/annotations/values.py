"""The values between readers and writers: an annotated image, and a prediction."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fewseg.types import IGNORE, DataError

logger = logging.getLogger(__name__)

Mask = NDArray[np.uint8]
"""(H, W) uint8: 0 background, 1 foreground, 255 ignore or unknown."""

MAX_CLASSES = 254
"""Classes of an 8-bit index map: 0 is background and 255 unknown."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image with the masks of the classes that were annotated on it; a negative has no 1 in any mask."""

    image: Path
    size: tuple[int, int]  # (H, W), EXIF orientation applied
    masks: Mapping[str, Mask]
    assumed: Mapping[str, int] = field(default_factory=dict)  # things that were read in a certain way: count
    listed: tuple[str, ...] = ()  # all classes of the file or folder, in its order, where it has a list


class CompressedMasks(Mapping[str, Mask]):
    """Masks of many images at once: a thousandth of their size in memory, and slower to look at."""

    def __init__(self, masks: Mapping[str, Mask]) -> None:
        self._stored = {name: (mask.shape, zlib.compress(mask.tobytes(), 1)) for name, mask in masks.items()}

    def __getitem__(self, name: str) -> Mask:
        shape, content = self._stored[name]
        return np.frombuffer(bytearray(zlib.decompress(content)), np.uint8).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True)
class Problem:
    """An image, or an annotation file of one image, that cannot be used: ``where`` names it."""

    where: str
    error: DataError


Items = Iterator[AnnotatedImage | Problem]
"""What a reader yields: a result or a problem for each image."""


class OnlyIgnoredError(DataError):
    """An image with ignored pixels and no class: neither an example nor a negative. The text says why."""


def counted(count: int, things: str) -> str:
    """Returns a number of things, given in the plural: ``1 mask of 255``, ``2 masks of 255``."""
    noun, space, rest = things.partition(" ")
    single = noun.removesuffix("es") if noun.endswith("xes") else noun.removesuffix("s")
    return f"{count} {single if count == 1 else noun}{space}{rest}"


def warn_of_left_out(where: object, images: Sequence[object], why: str) -> None:
    """Warns of images that a reader leaves out, if there are any."""
    if images:
        number = counted(len(images), "images")
        logger.warning("%s: %s left out (%s), the first is %s", where, number, why, images[0])


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A single thing in an image."""

    class_name: str
    box: tuple[int, int, int, int]  # (x, y, width, height) of its pixels
    piece: Mask  # (height, width) uint8 in {0, 1}: its pixels in the box
    score: float  # in [0, 1]

    @property
    def area(self) -> int:
        """Its pixels."""
        return int(self.piece.sum())

    def mask(self, size: tuple[int, int]) -> Mask:
        """Returns (H, W) uint8 in {0, 1}: where it is in its image of that size."""
        x, y, width, height = self.box
        mask: Mask = np.zeros(size, dtype=np.uint8)
        mask[y : y + height, x : x + width] = self.piece
        return mask


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A segmented image, on its way to a file."""

    name: str  # relative to the folder of images, with forward slashes: the key of writers
    labels: Mask  # 0 background, j = 1 .. N the classes in order, 255 unknown
    classes: tuple[str, ...]
    scores: tuple[float, ...]  # one in [0, 1] for each class
    probability: NDArray[np.uint8] | NDArray[np.floating] | None = None  # (N, H, W); of uint8, 255 is 1
    facts: Mapping[str, object] = field(default_factory=dict)  # JSON values: quality and its parts
    settled: bool = False  # a person drew or accepted the labels
    instances: tuple[Instance, ...] | None = None  # None where single things were not looked for

    def __post_init__(self) -> None:
        check_name(self.name)
        check_classes(self.classes)
        n = len(self.classes)
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8 or 0 in self.labels.shape:
            raise ValueError(
                f"labels of {self.name!r} must be uint8 (H, W), got {self.labels.dtype} {self.labels.shape}"
            )
        top = int(self.labels.max())
        if top == IGNORE:
            top = int(self.labels.max(where=self.labels != IGNORE, initial=0))
        if top > n:
            raise ValueError(f"labels of {self.name!r} must hold 0 .. {n} and 255, got {top}")
        if len(self.scores) != n or not all(0 <= s <= 1 for s in self.scores):
            raise ValueError(
                f"scores of {self.name!r} must be {n} numbers in [0, 1], one a class, got {self.scores}"
            )
        if self.probability is not None and self.probability.shape != (n, *self.size):
            raise ValueError(
                f"probability of {self.name!r} must have shape {(n, *self.size)}, a map of the image's size "
                f"for each class, got {self.probability.shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    @property
    def unknown(self) -> Mask:
        """(H, W) uint8 in {0, 1}: where it is not known what there is."""
        return self.mask(IGNORE)

    def mask(self, j: int) -> Mask:
        """Returns (H, W) uint8 in {0, 1}, contiguous: where class j = 1 .. N is."""
        mask: Mask = (self.labels == j).astype(np.uint8)
        return mask

    def things(self) -> Iterator[Instance]:
        """Yields the instances; without any looked for, all of each class that occurs as one thing."""
        if self.instances is not None:
            yield from self.instances
            return
        for j, (name, score) in enumerate(zip(self.classes, self.scores, strict=True), 1):
            mask = self.mask(j)
            if mask.any():
                x, y, width, height = box = box_of(mask)
                piece = mask[y : y + height, x : x + width]
                yield Instance(class_name=name, box=box, piece=piece, score=float(score))


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Returns (x, y, width, height) of the pixels that are 1; zeros where there are none."""
    rows, columns = np.flatnonzero((mask == 1).any(axis=1)), np.flatnonzero((mask == 1).any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def check_classes(classes: tuple[str, ...]) -> None:
    """Checks a list of class names."""
    named = all(isinstance(name, str) and name for name in classes)
    if not 1 <= len(classes) <= MAX_CLASSES or not named or len(set(classes)) != len(classes):
        raise ValueError(
            f"classes must be 1 .. {MAX_CLASSES} different names, texts that are not empty, got "
            f"{list(classes[:8])} ({len(classes)}): rename or part them"
        )


def check_name(name: str) -> None:
    """Checks that an image's name is relative, in clean form, and stays in its folder."""
    path = PurePosixPath(name)
    clean = name == path.as_posix() and not path.is_absolute() and path.parts
    if not clean or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(
            f"the image name {name!r} is invalid: give a path relative to the folder of images with "
            "forward slashes and without '..'"
        )
