"""One image of a workspace, and what becomes of an uploaded file's name and pixels."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.data.image_files import mask_of_bytes
from fewseg.inference.formats.png import png_bytes
from fewseg.inference.formats.values import Mask
from fewseg.inference.model import EncodedImage
from fewseg.inference.session import Answer, Session
from fewseg.inference.views import view_masks
from fewseg.types import IGNORE

_LONGEST_SIDE = 65_500  # of a JPEG

Role = Literal["open", "support", "accepted"]
"""What an image's mask is: none yet (it is predicted), one to learn from, one that a person has settled."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """An answer with the session that gave it.

    Attributes:
        session: of one state of the supports.
        answer: its margins, and quality where it was asked for.
    """

    session: Session
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class ServedImage:
    """An image of a workspace; a value that is replaced.

    Attributes:
        id: random, what requests name it by.
        name: of the uploaded file, its last part; it is shown and exported, never used as a path.
        encoded: its features.
        picture: JPEG of its pixels, turned as a viewer shows it.
        role: what its mask is.
        labels: PNG of its mask, where the role is not ``open``.
        held: the newest answer.
    """

    id: str
    name: str
    encoded: EncodedImage
    picture: bytes
    role: Role = "open"
    labels: bytes | None = None
    held: Held | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        margins = self.held.answer.margins.nbytes if self.held else 0
        return self.encoded.nbytes + len(self.picture) + len(self.labels or b"") + margins

    @property
    def mask(self) -> Mask | None:
        """The settled mask (H, W) uint8: class numbers and 255."""
        if self.labels is None:
            return None
        height, width = self.encoded.size
        found: Mask = mask_of_bytes(self.labels, f"of {self.name}", max_pixels=height * width).numpy()
        return found


def without_class(image: ServedImage, number: int) -> ServedImage:
    """Returns an image without one class: its pixels become background, later numbers move down by one.

    A mask that showed this class alone is dropped, and the image is open: an empty one would say that the
    image shows nothing, which nobody did.
    """
    mask = image.mask
    if mask is None:
        return image
    others = mask[(mask != 0) & (mask != number) & (mask != IGNORE)]
    if bool((mask == number).any()) and not others.size:
        return replace(image, role="open", labels=None)
    table = np.arange(256, dtype=np.uint8)
    table[number] = 0
    table[number + 1 : IGNORE] -= 1
    return replace(image, labels=png_bytes(table[mask]))


def class_views(labels: Tensor, encoded: EncodedImage) -> dict[int, Tensor]:
    """Cuts a mask as supports take it.

    Args:
        labels: (H, W) uint8, class numbers and 255.
        encoded: the image, of n views.

    Returns:
        Number of each class that is shown -> (n, S, S) uint8 in {0, 1, 255}.
    """
    shown = torch.bincount(labels.flatten(), minlength=256)[1:IGNORE].nonzero().flatten() + 1
    unknown = labels == IGNORE
    return {
        int(j): view_masks((labels == j).to(torch.uint8).masked_fill(unknown, IGNORE), encoded.windows)
        for j in shown
    }


def clean_name(name: str) -> str:
    """Returns the last part of a file name, printable, at most 120 letters."""
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if c.isprintable() and unicodedata.category(c) != "Cs").strip(" .")
    return kept[-120:].strip(" .") or "image"


def unused_name(name: str, taken: set[str]) -> str:
    """Returns a name that is not taken, by a number before its suffix."""
    stem, dot, suffix = name.rpartition(".")
    head, tail = (stem, dot + suffix) if stem else (name, "")
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{head} ({number}){tail}"
    return found


def jpeg_of(pixels: Tensor, what: str) -> bytes:
    """Returns (3, H, W) uint8 as a JPEG, for looking at.

    Raises:
        DataError: a side is longer than a JPEG's can be.
    """
    if max(pixels.shape) > _LONGEST_SIDE:
        raise DataError(
            f"image {what} has {pixels.shape[2]} x {pixels.shape[1]} pixels; accepted are {_LONGEST_SIDE} "
            "a side: cut it into tiles"
        )
    file = io.BytesIO()
    upright = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    upright.save(file, format="JPEG", quality=92, subsampling=0)
    return file.getvalue()
