"""What a set of labelled images is, and the base of those that lie in files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fewseg.types import IGNORE

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_EXIF_ORIENTATION = 0x0112


class DataError(ValueError):
    """Data that cannot be used; the message says what came, what is accepted and what to do."""


@runtime_checkable
class Source(Protocol):
    """A set of images whose every pixel has a class.

    Attributes:
        name: what messages and results call the set.
        class_names: class id (1..254) -> name.
        ids: the images, in list order, without repeats.
    """

    name: str
    class_names: Mapping[int, str]
    ids: tuple[str, ...]

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, as a viewer shows it (EXIF orientation applied)."""
        ...

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0 background, class ids, 255 ignore."""
        ...

    def digest(self) -> str:
        """Returns a key that changes when the set does."""
        ...


@dataclass(frozen=True)
class ImagePair:
    """An image file and the file of its mask."""

    image: Path
    mask: Path


def require_folder(root: Path, what: str) -> None:
    """Checks that a folder exists and holds something.

    Raises:
        DataError: it is missing, not a folder, or empty.
    """
    if not root.exists():
        raise DataError(f"{what}: the folder {root} does not exist: give the path of the data set's root")
    if not root.is_dir():
        raise DataError(f"{what}: {root} is a file: give the folder that holds the data set")
    if next(root.iterdir(), None) is None:
        raise DataError(f"{what}: the folder {root} is empty: download or unpack the data set there")


def read_rgb(path: Path) -> Tensor:
    """Reads an image file as (3, H, W) uint8 RGB, EXIF orientation applied.

    Raises:
        DataError: the file is missing, not an image, or truncated.
    """
    try:
        with Image.open(path) as file:
            pixels = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, "image", error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: Path) -> tuple[int, int]:
    """Decodes an image file as coarsely as its format allows and returns its oriented (H, W).

    A truncated file is found without the cost of a full decode (JPEG decodes at 1/8 of the size).

    Raises:
        DataError: the file is missing, not an image, or truncated.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            if file.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
                width, height = height, width
            file.draft("RGB", (1, 1))
            file.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, "image", error) from error
    return height, width


def read_mask(path: Path) -> Tensor:
    """Reads a mask file of mode L or P as (H, W) uint8, the stored numbers (palette indices for P).

    Raises:
        DataError: the file is missing, unreadable, or of another mode (such as RGB).
    """
    try:
        with Image.open(path) as file:
            mode = file.mode
            pixels = np.array(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, "mask", error) from error
    if mode not in ("L", "P"):
        raise DataError(
            f"mask {path} is stored as {mode}; accepted are single-channel 8-bit files (modes L and P) that "
            "hold class numbers: convert colours to class numbers and save it as a palette or grey PNG"
        )
    return torch.from_numpy(pixels)


def check_labels(labels: Tensor, class_names: Mapping[int, str], what: str) -> None:
    """Checks that labels (H, W) uint8 hold only 0, known class ids and 255.

    Raises:
        DataError: another number occurs.
    """
    found = torch.bincount(labels.flatten(), minlength=256).nonzero().flatten().tolist()
    strange = [v for v in found if v not in class_names and v not in (0, IGNORE)]
    if strange:
        raise DataError(
            f"mask {what} holds class ids {strange[:8]}{' ...' if len(strange) > 8 else ''}; accepted are 0 "
            f"(background), {min(class_names)}..{max(class_names)} ({len(class_names)} classes) and 255 "
            "(ignore): give the right class list, or convert the mask"
        )


def check_same_size(what: str, image_hw: tuple[int, int], mask_hw: tuple[int, int]) -> None:
    """Checks that an image and its mask are of one size (H, W).

    Raises:
        DataError: they differ.
    """
    if image_hw == mask_hw:
        return
    turned = " (the image is turned by its EXIF orientation?)" if image_hw == mask_hw[::-1] else ""
    raise DataError(
        f"{what}: the image is {image_hw[1]} x {image_hw[0]} pixels and its mask {mask_hw[1]} x {mask_hw[0]}"
        f"{turned}; both must be of one size: export the mask again at the image's size"
    )


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{kind} {path} does not exist: check the list and the root, or fetch the file")
    return DataError(
        f"{kind} {path} cannot be read ({error}); accepted are complete image files: fetch it again, "
        "or take it off the list"
    )


class FileSource:
    """A source whose images and masks lie in files; masks hold class ids.

    Args:
        name: what messages call the set.
        root: paths in the digest are relative to it, so a moved set keeps its index.
        pairs: id -> files, in list order.
        class_names: id -> name.
    """

    def __init__(
        self, name: str, root: Path, pairs: Mapping[str, ImagePair], class_names: Mapping[int, str]
    ) -> None:
        self.name = name
        self.root = root
        self.pairs = dict(pairs)
        self.class_names = dict(class_names)
        self.ids = tuple(self.pairs)

    def __len__(self) -> int:
        return len(self.ids)

    def pair(self, id: str) -> ImagePair:
        """Returns the files of an image.

        Raises:
            DataError: there is no such image.
        """
        if id not in self.pairs:
            raise DataError(f"{self.name} has no image {id!r}: it holds {len(self.ids)}, like {self.ids[:3]}")
        return self.pairs[id]

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns the oriented (H, W) of an image after checking that its file is complete."""
        return image_size(self.pair(id).image)

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, EXIF orientation applied.

        Raises:
            DataError: the file is missing or broken, or the id unknown.
        """
        return read_rgb(self.pair(id).image)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, class ids, 255.

        Raises:
            DataError: the file is missing or broken, of a wrong mode, or holds unknown class ids.
        """
        path = self.pair(id).mask
        labels = read_mask(path)
        check_labels(labels, self.class_names, str(path))
        return labels

    def digest(self) -> str:
        """Returns a SHA-256 of ids, classes, relative paths, file sizes and modification times."""
        sha = hashlib.sha256(repr((self.name, sorted(self.class_names.items()))).encode())
        for id, pair in self.pairs.items():
            for path in (pair.image, pair.mask):
                stat = path.stat() if path.exists() else None
                where = path.relative_to(self.root) if path.is_relative_to(self.root) else path
                facts = (stat.st_size, stat.st_mtime_ns) if stat else None
                sha.update(repr((id, where.as_posix(), facts)).encode())
        return sha.hexdigest()
