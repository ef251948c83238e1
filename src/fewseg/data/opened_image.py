"""Opening image files with Pillow: what is accepted, and errors that say what is wrong with which file."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fewseg.data.errors import DataError

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # told by content, MPO is a JPEG


@contextmanager
def opened(
    path: Path, kind: str, max_pixels: int, content: io.BytesIO | None = None
) -> Iterator[Image.Image]:
    """Gives a still image of an accepted size, not decoded yet; errors in the block are DataErrors.

    Args:
        path: the file, or what errors call the content.
        kind: "image" or "mask", for errors.
        max_pixels: more pixels are refused from the header, before anything is decoded.
        content: the file's bytes in place of the file.

    Raises:
        DataError: the file is missing, empty, not an image, truncated, animated or too large.
    """
    with told(path, kind, max_pixels), Image.open(content or path, formats=_FORMATS) as file:
        check_still(file, path, kind, max_pixels)
        yield file


@contextmanager
def told(path: Path, kind: str, max_pixels: int) -> Iterator[None]:
    """Turns whatever Pillow raises in the block into a DataError; its own limit is ``max_pixels`` at least.

    Args:
        path: the file, or what errors call it.
        kind: "image" or "mask", for errors.
        max_pixels: that are accepted.
    """
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
    """Checks that an image is not too large and not animated.

    Raises:
        DataError: it is.
    """
    width, height = file.size
    if width * height > max_pixels:
        raise _too_large(path, kind, f"{width} x {height} pixels", max_pixels)
    # The second picture of an MPO is a camera's preview or depth: the first is the photograph.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        raise DataError(
            f"{kind} {path} holds {getattr(file, 'n_frames', 'several')} frames ({file.format}); "
            "accepted are still images: export one frame"
        )


class _PillowsLimit:
    """Pillow's limit, one number of the process, while files are read that may be larger.

    Pillow refuses twice as many pixels from the header of a file, which is what keeps bombs out; so the
    limit is raised to what the readers of the moment accept, and no further.
    """

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
        f"{kind} {path} has {size}; accepted are {max_pixels}, the limit set: cut it into tiles, shrink it, "
        "or raise the limit where you trust the file"
    )


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{kind} {path} does not exist: check the list and the root, or fetch the file")
    if path.is_file() and path.stat().st_size == 0:
        return DataError(f"{kind} {path} is empty (0 bytes): fetch it again, or leave it out")
    if isinstance(error, UnidentifiedImageError):  # its own words hold the address of the bytes in memory
        return DataError(
            f"{kind} {path} cannot be read: its content is no image; accepted are {', '.join(_FORMATS)}: "
            "convert it, or leave it out"
        )
    return DataError(
        f"{kind} {path} cannot be read ({error}); accepted are complete image files: fetch it again, or "
        "leave it out"
    )
