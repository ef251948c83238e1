"""Opening image files with Pillow: one set of formats, one limit of pixels, and errors that name the file."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fewseg.annotations.options import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from fewseg.annotations.options import MAX_PIXELS, ValueRange
from fewseg.types import IGNORE, DataError

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # by content; MPO is a JPEG


@contextmanager
def opened(
    path: Path | str, kind: str, max_pixels: int, content: bytes | None = None
) -> Iterator[Image.Image]:
    """Gives a still image of at most ``max_pixels``, not decoded yet; errors in the block are DataErrors.

    Of an upload, ``content`` is the file's bytes, and ``path`` what errors call it.
    """
    path = Path(path)
    if content == b"":
        raise DataError(f"{kind} {path} is empty (0 bytes): send it again")
    source = path if content is None else io.BytesIO(content)
    with reading_errors(path, kind, max_pixels), Image.open(source, formats=_FORMATS) as file:
        check_still(file, path, kind, max_pixels)
        yield file


@contextmanager
def reading_errors(path: Path, kind: str, max_pixels: int) -> Iterator[None]:
    """Turns whatever Pillow raises in the block into a DataError; its limit is ``max_pixels`` at least."""
    try:
        with _PILLOWS_LIMIT.at_least(max_pixels):
            yield
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(path, kind, f"{count[0] if count else 'many'} pixels", max_pixels) from error
    except Exception as error:  # Pillow raises whatever a broken file leads to
        raise _unreadable(path, kind, error) from error


def check_still(file: Image.Image, path: Path, kind: str, max_pixels: int) -> None:
    """Checks that an image is not too large and not animated."""
    width, height = file.size
    if width * height > max_pixels:
        raise _too_large(path, kind, f"{width} x {height} pixels", max_pixels)
    # The second picture of an MPO is a camera's preview or depth: the first is the photograph.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        raise DataError(
            f"{kind} {path} holds {getattr(file, 'n_frames', 'several')} frames ({file.format}); "
            "expected still images: export one frame"
        )


class _PillowsLimit:
    """Pillow's limit, which keeps bombs out: raised to what the present readers accept, and no further."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: int | None = None
        self._wanted: list[int] = []

    @contextmanager
    def at_least(self, pixels: int) -> Iterator[None]:
        """Has it at a number of pixels, or above where it is or another thread needs it so."""
        with self._lock:
            if not self._wanted:
                self._own = Image.MAX_IMAGE_PIXELS
            self._wanted.append(pixels)
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(pixels)
                self._set()

    def _set(self) -> None:
        Image.MAX_IMAGE_PIXELS = None if self._own is None else max(self._own, *self._wanted, 0)


_PILLOWS_LIMIT = _PillowsLimit()


def _too_large(path: Path, kind: str, size: str, max_pixels: int) -> DataError:
    return DataError(
        f"{kind} {path} has {size}; expected at most {max_pixels}, the limit set: cut it into tiles, "
        "shrink it, or raise the limit where you trust the file"
    )


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{kind} {path} does not exist: check the list and the root, or fetch the file")
    if path.is_file() and path.stat().st_size == 0:
        return DataError(f"{kind} {path} is empty (0 bytes): fetch it again, or leave it out")
    if isinstance(error, UnidentifiedImageError):  # its own words hold the address of the bytes in memory
        return DataError(
            f"{kind} {path} cannot be read: its content is no image; expected {', '.join(_FORMATS)}: "
            "convert it, or leave it out"
        )
    return DataError(
        f"{kind} {path} cannot be read ({error}); expected complete image files: fetch it again, or "
        "leave it out"
    )


GREY_MODES = ("1", "L", "P", "LA", "RGB", "RGBA")
"""Modes of masks that people save: numbers, and colours where they are all grey and opaque."""
NUMBER_MODES = (*GREY_MODES, "I;16", "I")
"""As :data:`GREY_MODES`, with those of more bits, of which numbers up to 255 are taken."""
_COLOURS = {"LA", "RGB", "RGBA"}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def require_folder(root: Path, what: str) -> None:
    """Checks that a folder exists and holds something."""
    if not root.exists():
        raise DataError(f"{what}: the folder {root} does not exist: give the path of the data set's root")
    if not root.is_dir():
        raise DataError(f"{what}: {root} is a file: give the folder that holds the data set")
    if next(root.iterdir(), None) is None:
        raise DataError(f"{what}: the folder {root} is empty: download or unpack the data set there")


def read_rgb(
    path: Path | str,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    content: bytes | None = None,
) -> Tensor:
    """Reads (3, H, W) uint8 RGB, EXIF orientation applied, of a file or its ``content``.

    Of grey images of 16 or 32 bits a pixel, or floats, ``value_range`` becomes 0 .. 255, and what lies
    outside is clipped. Without one, 16 bits become 8 over their full range, and other images are refused.
    """
    with opened(path, "image", max_pixels, content) as file:
        return _rgb(file, Path(path), value_range)


def rgb_of_pil(
    image: Image.Image, what: str, max_pixels: int = MAX_PIXELS, value_range: ValueRange | None = None
) -> Tensor:
    """As :func:`read_rgb`, of a Pillow image; its EXIF orientation is applied, and the image not changed."""
    with reading_errors(Path(what), "image", max_pixels):
        check_still(image, Path(what), "image", max_pixels)
        return _rgb(image, Path(what), value_range)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns the oriented (H, W) of an image file, decoded coarsely: enough to find a truncated one."""
    with opened(path, "image", max_pixels) as file:
        width, height = file.size
        if file.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED:
            width, height = height, width
        file.draft("RGB", (1, 1))
        file.load()
    return height, width


def read_mask(
    path: Path | str,
    modes: Sequence[str] = ("L", "P"),
    max_pixels: int = MAX_PIXELS,
    content: bytes | None = None,
) -> Tensor:
    """Reads a mask file, or its ``content``, as (H, W) uint8: the stored numbers (palette indices for P)."""
    with opened(path, "mask", max_pixels, content) as file:
        return mask_numbers(file, Path(path), modes)


def check_labels(labels: Tensor, class_names: Mapping[int, str], what: str) -> None:
    """Checks that labels (H, W) uint8 hold only 0, known class ids and 255."""
    numbers = torch.bincount(labels.flatten(), minlength=256).nonzero().flatten().tolist()
    unknown = [v for v in numbers if v not in class_names and v not in (0, IGNORE)]
    if unknown:
        raise DataError(
            f"mask {what} holds class ids {unknown[:8]}{' ...' if len(unknown) > 8 else ''}; expected 0 "
            f"(background), {min(class_names)}..{max(class_names)} ({len(class_names)} classes) and 255 "
            "(ignore): give the right class list, or convert the mask"
        )


def check_same_size(what: str, image_hw: tuple[int, int], mask_hw: tuple[int, int]) -> None:
    """Checks that an image and its mask are of one size (H, W)."""
    _check_alike(what, image_hw, "its mask", mask_hw, "export the mask again at the image's size")


def check_annotated_size(what: str, image_hw: tuple[int, int], annotated_hw: tuple[int, int]) -> None:
    """Checks that an image is of the size (H, W) that its annotations were made at."""
    advice = "give the image that was annotated, or correct the size in the file"
    _check_alike(what, image_hw, "the annotated one", annotated_hw, advice)


def _check_alike(
    what: str, image_hw: tuple[int, int], other: str, other_hw: tuple[int, int], advice: str
) -> None:
    if image_hw == other_hw:
        return
    turned = " (the image is turned by its EXIF orientation?)" if image_hw == other_hw[::-1] else ""
    raise DataError(
        f"{what}: the image is {image_hw[1]} x {image_hw[0]} pixels and {other} {other_hw[1]} x "
        f"{other_hw[0]}{turned}; both must be of one size: {advice}"
    )


def mask_numbers(file: Image.Image, path: Path, modes: Sequence[str]) -> Tensor:
    """Returns the numbers (H, W) uint8 that an open mask of one of these modes stores."""
    pixels = np.array(file) if file.mode in modes else None
    if pixels is not None and pixels.ndim == 3:
        colours = pixels[..., :-1] if file.mode in ("LA", "RGBA") else pixels
        clear = colours is not pixels and bool((pixels[..., -1] != 255).any())
        grey = not clear and bool((colours == colours[..., :1]).all())
        pixels = colours[..., 0] if grey else None
    if pixels is None or pixels.min() < 0 or pixels.max() > IGNORE:
        raise _not_numbers(file, path, modes)
    return torch.from_numpy(pixels.astype(np.uint8, copy=False))


def _not_numbers(file: Image.Image, path: Path, modes: Sequence[str]) -> DataError:
    why = ", in colours or transparent in parts" if file.mode in _COLOURS else ", with numbers above 255"
    plain = ", ".join(mode for mode in modes if mode not in _COLOURS)
    stored = f"is stored as {file.mode}" + (why if file.mode in modes else "")
    grey = ", or in colours that are all grey and opaque" if _COLOURS & set(modes) else ""
    return DataError(
        f"mask {path} {stored}; expected single-channel files (modes {plain}) that hold class "
        f"numbers{grey}: convert colours to class numbers and save it as a palette or grey PNG"
    )


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a pixel."""
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def to_bytes(values: NDArray[Any], value_range: ValueRange) -> NDArray[np.uint8]:
    """Returns values with a range as 0 .. 255, rounded; what lies outside is clipped, and NaN becomes 0."""
    low, high = value_range
    known = np.where(np.isnan(values), low, values).clip(low, high)
    scaled: NDArray[np.uint8] = np.rint((known - low) / (high - low) * 255).astype(np.uint8)
    return scaled


def _rgb(file: Image.Image, path: Path, value_range: ValueRange | None) -> Tensor:
    pixels = np.array(_eight_bit(ImageOps.exif_transpose(file), path, value_range).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _eight_bit(image: Image.Image, path: Path, value_range: ValueRange | None) -> Image.Image:
    """Brings deep grey to 8 bits; Pillow's own conversion cuts it off at 255."""
    if value_range is not None and is_deep(image):
        return Image.fromarray(to_bytes(np.array(image), value_range))
    if image.mode.startswith("I;16"):
        return Image.fromarray(((np.array(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"image {path} has 32 bits a pixel (mode {image.mode}), whose range is unknown; expected 8 "
            "and 16 bits, or a range (--value-range LOW HIGH): give one, or export it as 8-bit"
        )
    return image
