"""Reads images and masks in all forms that a caller may have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations.class_masks import (
    ClassMask,
    check_stored,
    class_mask,
    class_number,
    one_class_mask,
    read_class_mask,
    stored_number,
)
from fewseg.annotations.image_files import (
    check_same_size,
    is_deep,
    opened,
    read_rgb,
    rgb_of_pil,
    to_bytes,
)
from fewseg.annotations.options import MAX_PIXELS, ValueRange
from fewseg.types import IGNORE, DataError

logger = logging.getLogger(__name__)

ImageLike = str | Path | bytes | Image.Image | NDArray[Any] | Tensor
"""A path, the bytes of an image file, a Pillow image, an array (H, W), (H, W, 3) or (H, W, 4), or a tensor
(3, H, W), (1, H, W) or (H, W). Arrays and tensors hold uint8, floats in [0, 1], or whole numbers of more bits
with a range of values."""

MaskLike = str | Path | Image.Image | NDArray[Any] | Tensor
"""A path, a Pillow image, or an array or tensor (H, W): bool, or whole numbers 0/1, 0/255 or 0/1/255, where
255 beside a 1 is ignored."""


def read_image(
    image: ImageLike,
    what: str = "the image",
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> Tensor:
    """An image as (3, H, W) uint8 RGB; an EXIF orientation is applied, once.

    ``value_range`` is what becomes 0 and 255 of an image of more than 8 bits a pixel (see
    :func:`~fewseg.annotations.image_files.read_rgb`); of arrays and tensors, one of whole numbers.

    ``what`` is what errors call an image without a path. Images of more than ``max_pixels`` are refused with
    a DataError, files from their header; so are those that cannot be read or have a wrong shape or range.
    """
    if isinstance(image, (str, Path)):
        return read_rgb(Path(image), max_pixels, value_range)
    if isinstance(image, bytes):
        return read_rgb(what, max_pixels, value_range, image)
    if isinstance(image, Image.Image):
        return rgb_of_pil(image, what, max_pixels, value_range)
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        planes = pixels[None] if pixels.ndim == 2 else pixels
    elif isinstance(image, np.ndarray):
        pixels = _tensor(image, what)
        planes = pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)[:3]
        if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4):
            raise _wrong_array(what, pixels)
    else:
        raise DataError(
            f"{what} must be a path, bytes of a file, a Pillow image, a numpy array or a torch tensor, got a "
            f"{type(image).__name__}"
        )
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape:
        raise _wrong_array(what, pixels)
    height, width = planes.shape[1:]
    if height * width > max_pixels:
        raise DataError(
            f"{what} must have at most {max_pixels} pixels, got {width} x {height}: cut it, shrink it, or "
            "raise the limit"
        )
    return _bytes(planes, what, value_range).expand(3, -1, -1).contiguous()


def _tensor(array: NDArray[Any], what: str) -> Tensor:
    try:
        array = np.ascontiguousarray(array)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise DataError(
            f"{what} must hold uint8, or floats in [0, 1], got an array of {array.dtype}: convert it"
        ) from error


def _wrong_array(what: str, pixels: Tensor) -> DataError:
    return DataError(
        f"{what} must be an array (H, W), (H, W, 3), (H, W, 4) or a tensor (H, W), (1, H, W), (3, H, W), got "
        f"the shape {tuple(pixels.shape)}: give one image at a time, its channels last in an array and first "
        "in a tensor"
    )


def _bytes(planes: Tensor, what: str, value_range: ValueRange | None) -> Tensor:
    """Converts uint8, floats in [0, 1], or whole numbers with a range to uint8."""
    if planes.dtype == torch.uint8:
        return planes
    if value_range is not None and _is_deep(planes.dtype):
        return torch.from_numpy(to_bytes(planes.numpy(), value_range))
    if not planes.is_floating_point():
        raise DataError(
            f"{what} must hold uint8, or floats in [0, 1], got {planes.dtype}: scale it, or give "
            "a value_range"
        )
    if not bool(((planes >= 0) & (planes <= 1)).all()):  # a NaN is in no range
        raise DataError(
            f"{what} must hold floats in [0, 1], got values outside or NaN: divide bytes by 255, and undo a "
            "normalisation"
        )
    return (planes.float() * 255).round().to(torch.uint8)


def _is_deep(kind: torch.dtype) -> bool:
    return not (kind.is_floating_point or kind.is_complex or kind in (torch.bool, torch.uint8))


_PERCENTILES = (0.1, 99.9)
_MOST_VALUES = 2**20  # most values of an image, evenly spaced


def value_range_of(images: Iterable[object], max_pixels: int = MAX_PIXELS) -> ValueRange | None:
    """The 0.1 and 99.9 percentiles of the values of all images of more than 8 bits; None without any."""
    samples = []
    for image in images:
        with suppress(DataError):  # reading the image reports it
            samples += [
                values.ravel()[:: -(-values.size // _MOST_VALUES)].copy()
                for values in _deep_values(image, max_pixels)
            ]
    if not samples:
        return None
    values = np.concatenate(samples)
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(values, _PERCENTILES).tolist() if values.size else (0.0, 1.0)
    return low, high if high > low else low + 1


class FirstRange:
    """The range of values of the first image of more than 8 bits, which is used for all later ones.

    Attributes:
        found: the range; None before such an image.
    """

    def __init__(self) -> None:
        self.found: ValueRange | None = None
        self._lock = threading.Lock()

    def of(self, content: bytes, max_pixels: int) -> ValueRange | None:
        """Returns the values that become 0 and 255 in an image file; None for one of 8 bits."""
        value_range = value_range_of([content], max_pixels)
        with self._lock:
            self.found = self.found or value_range
            return value_range and self.found


def _deep_values(image: object, max_pixels: int) -> Iterator[NDArray[Any]]:
    """Yields the values of an image of more than 8 bits, and nothing for others."""
    if isinstance(image, (str, Path, bytes)):
        path, content = ("the image", image) if isinstance(image, bytes) else (image, None)
        with opened(path, "image", max_pixels, content) as file:
            yield from _deep_values(file, max_pixels)
    elif isinstance(image, Image.Image):
        if is_deep(image):
            yield np.array(image)
    elif isinstance(image, (np.ndarray, Tensor)):
        values = image.detach().cpu() if isinstance(image, Tensor) else _tensor(image, "the image")
        if _is_deep(values.dtype):
            yield values.numpy()


def read_mask_of(
    mask: MaskLike | None,
    image_hw: tuple[int, int],
    what: str = "the mask",
    max_pixels: int = MAX_PIXELS,
    known: dict[str, Path] | None = None,
) -> Tensor:
    """A mask as (H, W) uint8 in {0, 1, 255}, all 0 for None; raises a DataError if it does not fit.

    ``known`` is what the other masks of the class are stored as (:func:`.class_masks.check_stored`).
    """
    if mask is None:
        return torch.zeros(image_hw, dtype=torch.uint8)
    if isinstance(mask, (str, Path)):
        what = str(mask)
        read = read_class_mask(Path(mask), max_pixels)
    elif isinstance(mask, Image.Image):
        read = class_mask(mask, what)
    elif isinstance(mask, (np.ndarray, Tensor)):
        values = mask.detach().cpu() if isinstance(mask, Tensor) else _tensor(mask, what)
        stored = _mask_numbers(values, what)
        read = ClassMask(one_class_mask(stored, what), stored_number(class_number(stored, what)))
    else:
        raise DataError(
            f"{what} must be a path, a Pillow image, a numpy array or a torch tensor, got a "
            f"{type(mask).__name__}"
        )
    if read.assumed:
        logger.warning("%s: %s", what, read.assumed)
    check_same_size(what, image_hw, (int(read.mask.shape[0]), int(read.mask.shape[1])))
    if known is not None:
        check_stored(read.stored_as, Path(what), known, "give the class the same number in all its masks")
    return read.mask


def _mask_numbers(values: Tensor, what: str) -> Tensor:
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(
            f"{what} must have the shape (H, W), got {tuple(values.shape)}: give one mask for each image"
        )
    stored = values.to(torch.uint8)
    if values.dtype != torch.bool and not bool((stored == values).all()):
        raise DataError(
            f"{what} must hold bool, 0/1, 0/255 or 0/1/255, got {values.dtype} values that are no whole "
            f"numbers in 0 .. {IGNORE}: threshold it"
        )
    return stored


def as_list(values: Any, stacked: int) -> list[Any]:
    """One or several images or masks as a list; an array with ``stacked`` axes holds several."""
    if isinstance(values, (list, tuple)) or getattr(values, "ndim", 0) == stacked:
        return list(values)
    return [values]
