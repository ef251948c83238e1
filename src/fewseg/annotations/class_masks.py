"""Masks of one class, as programs save them: numbers, a colour on black or on nothing, 16 bits, JPEG."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations.image_files import NUMBER_MODES, mask_numbers, opened
from fewseg.annotations.options import MAX_PIXELS
from fewseg.types import IGNORE, DataError

logger = logging.getLogger(__name__)

_LOSSY = ("JPEG", "MPO", "WEBP")
_SLACK = 64  # grey levels that lossy compression moves 0 and 255 by, and channels apart by half of it
_MOST_BETWEEN = 0.05  # share of pixels of a lossy drawing that are neither nearly 0 nor nearly 255


@dataclass(frozen=True)
class ClassMask:
    """A mask of one class."""

    mask: Tensor  # (H, W) uint8 in {0, 1, 255}
    stored_as: str  # what the class is in the file; empty in a negative
    assumed: str = ""  # what was assumed about the file, for a warning


def class_number(stored: Tensor, what: str) -> int:
    """Returns the number of the class in a mask of one class: 1 .. 254, else 255; 0 in a negative."""
    counts = torch.bincount(stored.flatten(), minlength=256)
    inner = (counts[1:IGNORE].nonzero().flatten() + 1).tolist()
    if len(inner) > 1:
        raise DataError(
            f"mask {what} holds {len(inner)} numbers besides 0 and 255, like {inner[:5]}; expected one "
            "class a mask (0/1, 0/255 or a palette): threshold a smoothed mask and save it as PNG; several "
            "classes need a list of them all (classes.txt for supports, `image mask` lines for a data set)"
        )
    return int(inner[0]) if inner else IGNORE * bool(counts[IGNORE])


def stored_number(number: int) -> str:
    """What a class is stored as in a mask of numbers; empty in a negative."""
    return f"the number {number}" if number else ""


def one_class_mask(stored: Tensor, what: str) -> Tensor:
    """Returns (H, W) uint8 in {0, 1, 255} of the stored numbers of a mask of one class.

    0 is background; the one number besides 0 and 255 (1, or a palette index) is the class; 255 is the class
    where no such number occurs (0/255 masks), and ignore where one does.
    """
    number = class_number(stored, what) or IGNORE
    mask = (stored == number).to(torch.uint8)
    if number != IGNORE:
        mask[stored == IGNORE] = IGNORE
    return mask


_WHITE = "the number 255"


def check_stored(stored_as: str, path: Path, known: dict[str, Path], advice: str) -> None:
    """Checks that a class is stored alike in all masks; 255 alone may stand for it too, with a warning.

    ``known`` is what the class is stored as, with the first such mask; a new one is added.
    """
    if not stored_as or stored_as in known:
        return
    for other, first in known.items():
        if _WHITE not in (stored_as, other) or "colour" in stored_as + other:
            raise DataError(
                f"{path} holds {stored_as} and {first} {other}; expected one number a class: {advice}"
            )
    known[stored_as] = path
    if len(known) > 1:
        number = next(other for other in known if other != _WHITE)
        logger.warning(
            "%s holds 255 and no other number, as a class; %s holds %s: taken as the same class",
            known[_WHITE], known[number], number,
        )  # fmt: skip


def read_class_mask(
    path: Path, max_pixels: int = MAX_PIXELS, modes: Sequence[str] = NUMBER_MODES
) -> ClassMask:
    """Reads a mask file of one class.

    Besides the numbers of :func:`one_class_mask`, the class may be what is opaque in one colour where the
    rest is transparent, the one colour beside black, 65535 beside 0, or what is bright in a lossy file of a
    black and white drawing. Of two colours in a palette, black or what is transparent is background, whatever
    its number.
    """
    with opened(path, "mask", max_pixels) as file:
        return class_mask(file, str(path), modes)


def class_mask(file: Image.Image, what: str, modes: Sequence[str] = NUMBER_MODES) -> ClassMask:
    """As :func:`read_class_mask`, of a Pillow image."""
    if file.mode in modes and (drawn := (_indexed if file.mode == "P" else _drawn)(file)):
        return drawn
    stored = mask_numbers(file, Path(what), modes)
    number = class_number(stored, what)
    return ClassMask(one_class_mask(stored, what), stored_number(number), assumed_background(file))


def assumed_background(file: Image.Image) -> str:
    """Returns a warning where number 0 of a palette occurs and looks like no background; else nothing."""
    if file.mode != "P" or np.asarray(file).all() or _is_background(_palette(file)[:1]).all():
        return ""
    return "number 0 is background, but neither black nor transparent in the palette"


def _drawn(file: Image.Image) -> ClassMask | None:
    """Returns a mask whose pixels are not its numbers; None where they are, or where it is ambiguous."""
    if file.mode in ("I;16", "I"):
        deep = np.array(file)
        full = deep == 65535
        return _of(full, "the number 255") if full.any() and (full | (deep == 0)).all() else None
    if file.format in _LOSSY and file.mode in ("L", "RGB"):
        return _thresholded(file)
    if file.mode not in ("LA", "RGB", "RGBA"):
        return None
    pixels = np.array(file.convert("RGBA"))
    opaque = pixels[..., 3] >= 128
    colours = _colours(pixels[opaque])
    if (pixels[..., 3] != 255).any():
        assumed = "what is transparent, by half or more, is background, and what is opaque the class"
        return _of(opaque, colours[0] if colours else "", assumed) if len(colours) < 2 else None
    black = (pixels[..., :3] == 0).all(axis=2)
    if len(colours) == 2 and black.any() and (np.ptp(pixels[..., :3], axis=2) > 0).any():
        return _of(~black, colours[1], "black is background")
    return None


def _indexed(file: Image.Image) -> ClassMask | None:
    """Returns a mask of two colours of a palette, of which the background is not number 0."""
    stored = np.array(file)
    numbers = np.unique(stored)
    colours = _palette(file)[numbers]
    empty = _is_background(colours)
    if len(numbers) != 2 or empty.sum() != 1 or numbers[empty] == 0:
        return None
    assumed = "black or what is transparent is background, not number 0 of the palette"
    return _of(stored == numbers[~empty], _colours(colours[~empty])[0], assumed)


def _palette(file: Image.Image) -> NDArray[np.uint8]:
    """Returns (256, 4) colours; those that a palette lacks are black, as Pillow shows them."""
    pixel = file.crop((0, 0, 1, 1))
    pixel.apply_transparency()
    colours = np.array(pixel.getpalette("RGBA") or [], dtype=np.uint8).reshape(-1, 4)
    return np.concatenate([colours, np.tile(np.array([0, 0, 0, 255], np.uint8), (256 - len(colours), 1))])


def _is_background(colours: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each of (n, 4) colours is black or transparent."""
    background: NDArray[np.bool_] = (colours[:, 3] < 128) | ~colours[:, :3].any(axis=1)
    return background


def _colours(pixels: NDArray[np.uint8]) -> list[str]:
    """Returns what (n, 4) pixels are stored as, black first; white, as in grey files, is the number 255."""
    packed = pixels[:, 0].astype(np.uint32) << 16 | pixels[:, 1].astype(np.uint32) << 8 | pixels[:, 2]
    return [f"the colour #{v:06x}" if v != 0xFFFFFF else "the number 255" for v in np.unique(packed).tolist()]


def _thresholded(file: Image.Image) -> ClassMask | None:
    colours = np.array(file.convert("RGB")).astype(np.int16)
    grey = colours[..., 1]
    bright = grey >= 255 - _SLACK
    between = ~bright & (grey > _SLACK)
    few = between.sum() <= min(bright.sum(), _MOST_BETWEEN * grey.size)
    if not bright.any() or not few or (np.ptp(colours, axis=2) > _SLACK // 2).any():
        return None
    lossy = bool((grey % 255).any())
    assumed = f"{file.format} blurs masks: what is 128 or brighter is the class; save masks as PNG"
    return _of(grey >= 128, "the number 255", assumed if lossy else "")


def _of(region: NDArray[np.bool_], stored_as: str, assumed: str = "") -> ClassMask:
    return ClassMask(torch.from_numpy(region.astype(np.uint8)), stored_as, assumed)
