"""How many bytes a workspace keeps, and how room is made: what the network can give again goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from fewseg.serve.limits import MIB, Limits, Refused
from fewseg.serve.served_image import ServedImage

Cut = Mapping[int, Tensor]
"""Number of each class that a support shows -> its mask in the image's views."""


def bytes_of(cut: Cut) -> int:
    """Returns the bytes of a support's masks."""
    return sum(mask.nbytes for mask in cut.values())


def kept_bytes(images: Mapping[str, ServedImage], cuts: Mapping[str, Cut]) -> int:
    """Returns the bytes of images, with their features, masks and answers, and of the supports' masks."""
    return sum(image.nbytes for image in images.values()) + sum(map(bytes_of, cuts.values()))


def drop_answers(images: dict[str, ServedImage], excess: int, last: str | None = None) -> None:
    """Drops answers, which the network can give again, until so many bytes are free, or none is left.

    Args:
        images: by id; changed.
        excess: bytes; nothing happens from 0 down.
        last: the image whose answer is the last to go.
    """
    for id in sorted(images, key=lambda id: id == last):
        held = images[id].held
        if excess > 0 and held is not None:
            excess -= held.answer.margins.nbytes
            images[id] = replace(images[id], held=None)


def make_room(
    images: dict[str, ServedImage], cuts: Mapping[str, Cut], limits: Limits, more: int = 0, new: int = 0
) -> None:
    """Makes room, by dropping answers.

    Args:
        images: by id; changed.
        cuts: the supports' masks, by id.
        limits: of bytes and images.
        more: bytes that are to come.
        new: images that are to come.

    Raises:
        Refused: 413, there is no room.
    """
    drop_answers(images, kept_bytes(images, cuts) + more - limits.session_bytes)
    used = kept_bytes(images, cuts)
    if len(images) + new > limits.images or used + more > limits.session_bytes:
        raise Refused(
            413,
            f"the session holds {len(images)} images and {used / MIB:.0f} MiB; accepted are "
            f"{limits.images} images and {limits.session_bytes / MIB:.0f} MiB: download and remove "
            "some, or start the server with --session-mib",
        )
