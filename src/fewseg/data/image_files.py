"""Reading image and mask files, with errors that say what is wrong with which file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.types import IGNORE

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


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
            if file.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED:
                width, height = height, width
            file.draft("RGB", (1, 1))
            file.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, "image", error) from error
    return height, width


def read_mask(path: Path, modes: Sequence[str] = ("L", "P")) -> Tensor:
    """Reads a mask file as (H, W) uint8, the stored numbers (palette indices for mode P).

    Args:
        path: the file.
        modes: Pillow's names of the accepted modes; of L, P and 1 (read as 0 and 1).

    Raises:
        DataError: the file is missing, unreadable, or of another mode (such as RGB).
    """
    try:
        with Image.open(path) as file:
            mode = file.mode
            pixels = np.array(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, "mask", error) from error
    if mode not in modes:
        raise DataError(
            f"mask {path} is stored as {mode}; accepted are single-channel files (modes {', '.join(modes)}) "
            "that hold class numbers: convert colours to class numbers and save it as a palette or grey PNG"
        )
    return torch.from_numpy(pixels.astype(np.uint8, copy=False))


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
