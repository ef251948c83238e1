"""The class names of a workspace: a mask's number j is the j-th of them."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewseg.annotations.image_files import check_labels, check_same_size, mask_of_bytes, rgb_of_bytes
from fewseg.annotations.mask_files import png_bytes
from fewseg.annotations.values import MAX_CLASSES, Mask
from fewseg.inference.model import EncodedImage, Model, view_masks
from fewseg.inference.segmentation import Segmentation
from fewseg.inference.session import Session
from fewseg.inference.supports import SupportSet
from fewseg.serve.limits import MIB, Limits, Refused
from fewseg.types import IGNORE, DataError

_LONGEST_NAME = 60


def class_name(name: str, others: tuple[str, ...]) -> str:
    """Returns a name as it is kept, beside the others.

    Raises:
        ValueError: it is empty, too long, or there already, or there are too many.
    """
    name = unicodedata.normalize("NFC", name).strip()
    printable = name.isprintable() and not any(unicodedata.category(c) == "Cs" for c in name)
    alike = {other.casefold() for other in others}
    if not name or len(name) > _LONGEST_NAME or not printable or name.casefold() in alike:
        raise ValueError(
            f"the class name is {name[:80]!r}; accepted are names of 1 to {_LONGEST_NAME} letters on one "
            "line that no other class has: choose another"
        )
    if len(others) >= MAX_CLASSES:
        raise ValueError(f"there are {len(others)} classes; accepted are {MAX_CLASSES}")
    return name


def other_names(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Returns the names without that of a number.

    Raises:
        Refused: 404, there is no such number.
    """
    if not 1 <= number <= len(names):
        raise Refused(404, f"there is no class {number}; there are {len(names)}")
    return (*names[: number - 1], *names[number:])


class EncodedImages:
    """Encodes image files; any number of threads may ask.

    Args:
        model: that encodes.
        pixels: larger images are refused.
        budget: bytes of features to keep; those longest unused go first.
        compute: held while the network runs, so that memory is that of one image at a time.
    """

    def __init__(self, model: Model, pixels: int, budget: int, compute: threading.Lock) -> None:
        self.model, self.pixels, self.budget, self.compute = model, pixels, budget, compute
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        return self._nbytes

    def encode(self, content: bytes, what: str) -> EncodedImage:
        """Returns an image file, encoded.

        Args:
            content: its bytes; their type is told by them.
            what: what errors call it.

        Raises:
            DataError: it is no image that can be used.
        """
        key = hashlib.sha256(content).digest()
        with self.compute:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            pixels = rgb_of_bytes(content, what, self.pixels)
            (encoded,) = self.model.encode([self.model.prepare(pixels)])
            with self._lock:  # before another thread may encode it too, and count it twice
                self._kept[key] = encoded
                self._nbytes += encoded.nbytes
                while self._nbytes > self.budget:
                    _, gone = self._kept.popitem(last=False)
                    self._nbytes -= gone.nbytes
        return encoded


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
    answer: Segmentation


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


_PALETTE_MODES = ("1", "L", "P", "LA", "RGB", "RGBA")


class Workspace:
    """The state of one session; any number of threads may use it.

    A mask has the number j of ``classes[j - 1]``. Supports are encoded when they change, each image once.

    Args:
        model: shared by all workspaces.
        limits: see there.
        compute: held while the network runs, so that memory is that of one image at a time.
        judging: held in its place while quality is judged, which takes seconds: a mask does not wait for it.
    """

    def __init__(
        self, model: Model, limits: Limits, compute: threading.Lock, judging: threading.Lock
    ) -> None:
        self.model, self.limits = model, limits
        self._compute, self._judging, self._lock = compute, judging, threading.RLock()
        self._images: dict[str, ServedImage] = {}
        self._classes: tuple[str, ...] = ()
        self._session: Session | None = None
        self._cut: dict[str, dict[int, Tensor]] = {}
        self._numbering = 0  # grows when masks' numbers change their meaning
        self.version = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a mask's 1 is the first."""
        return self._classes

    @property
    def images(self) -> tuple[ServedImage, ...]:
        """In the order in which they came."""
        with self._lock:
            return tuple(self._images.values())

    @property
    def empty(self) -> bool:
        """Whether it has no image; told at once, whatever other threads do."""
        return not self._images

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        with self._lock:
            return kept_bytes(self._images, self._cut)

    def image(self, id: str) -> ServedImage:
        """Returns an image.

        Raises:
            Refused: 404, there is none of this id.
        """
        with self._lock:
            if id not in self._images:
                raise Refused(404, "there is no such image in this session: load the page again")
            return self._images[id]

    def add_image(self, name: str, content: bytes) -> ServedImage:
        """Decodes and encodes an uploaded file.

        Raises:
            DataError: it is no image that can be used; its type is told by its content.
            Refused: 413, the session is full.
        """
        with self._lock:
            make_room(self._images, self._cut, self.limits, new=1)
        name = clean_name(name)
        with self._compute:
            pixels = rgb_of_bytes(content, name, self.limits.pixels)
            picture = jpeg_of(pixels, name)
            (encoded,) = self.model.encode([self.model.prepare(pixels)])
        image = ServedImage(id=secrets.token_urlsafe(9), name=name, encoded=encoded, picture=picture)
        with self._lock:
            make_room(self._images, self._cut, self.limits, image.nbytes, new=1)
            image = replace(image, name=unused_name(name, {other.name for other in self._images.values()}))
            self._images[image.id] = image
        return image

    def remove_image(self, id: str) -> None:
        """Takes an image away, with its mask.

        Raises:
            Refused: 404, there is none of this id.
        """
        with self._lock:
            was = self.image(id)
            del self._images[id]
            self._cut.pop(id, None)
            if was.role == "support":
                self._changed()

    def add_class(self, name: str) -> int:
        """Adds a class and returns its number.

        Raises:
            ValueError: the name is empty, too long, or there already, or there are too many.
        """
        with self._lock:
            self._classes = (*self._classes, class_name(name, self._classes))
            return len(self._classes)

    def rename_class(self, number: int, name: str) -> None:
        """Gives a class another name; masks stay as they are.

        Raises:
            ValueError: as in :meth:`add_class`.
            Refused: 404, there is no such number.
        """
        with self._lock:
            others = other_names(self._classes, number)
            name = class_name(name, others)
            self._classes = (*self._classes[: number - 1], name, *self._classes[number:])
            self._changed()

    def remove_class(self, number: int) -> None:
        """Takes a class away, from every mask too; the classes after it move down by one number.

        An image whose mask showed this class alone is predicted again.

        Raises:
            Refused: 404, there is no such number.
        """
        with self._lock:
            self._classes = other_names(self._classes, number)
            self._numbering += 1
            for id, image in self._images.items():
                self._images[id] = without_class(image, number)
                cut = self._cut.pop(id, None)
                if cut is not None and self._images[id].role == "support":
                    self._cut[id] = {j - (j > number): m for j, m in cut.items() if j != number}
            self._changed()

    def set_labels(self, id: str, role: Role, content: bytes) -> ServedImage:
        """Settles the mask of an image.

        Args:
            id: the image.
            role: ``support`` or ``accepted``.
            content: a PNG of class numbers, at the image's size; 255 is unknown.

        Raises:
            DataError: it is no such mask.
            Refused: 404, there is no such image; 409, a class was deleted meanwhile; 413, the session is
                full.
        """
        with self._lock:
            image, classes, numbering = self.image(id), self._classes, self._numbering
        what = f"of {image.name}"
        stored = mask_of_bytes(content, what, _PALETTE_MODES, self.limits.pixels)
        check_same_size(f"the mask {what}", image.encoded.size, (int(stored.shape[0]), int(stored.shape[1])))
        names = dict(enumerate(classes, 1))
        if not names:
            raise DataError("there is no class yet: add one before drawing")
        check_labels(stored, names, what)
        cut = class_views(stored, image.encoded) if role == "support" else {}
        packed = png_bytes(stored.numpy())
        with self._lock:
            if self._numbering != numbering:
                raise Refused(409, f"a class was deleted while the mask {what} was on its way: draw it again")
            was = self.image(id)
            had = len(was.labels or b"") + bytes_of(self._cut.get(id, {}))
            make_room(self._images, self._cut, self.limits, len(packed) + bytes_of(cut) - had)
            self._images[id] = replace(self.image(id), role=role, labels=packed)
            self._cut.pop(id, None)
            if role == "support":
                self._cut[id] = cut
            if "support" in (role, was.role):
                self._changed()
            return self._images[id]

    def reopen(self, id: str) -> ServedImage:
        """Drops the mask of an image: it is predicted again.

        Raises:
            Refused: 404, there is no such image.
        """
        with self._lock:
            was = self.image(id)
            self._images[id] = replace(was, role="open", labels=None)
            self._cut.pop(id, None)
            if was.role == "support":
                self._changed()
            return self._images[id]

    def _changed(self) -> None:
        self._session = None
        drop_answers(self._images, self.nbytes)  # all: they are of other supports, which they would keep
        self.version += 1

    def session(self) -> Session | None:
        """Returns the present supports with their encoded state; None where no support shows a class."""
        with self._lock:
            if self._session is None:
                supports = SupportSet()
                for image in self._images.values():
                    if image.role == "support":
                        masks = {self._classes[j - 1]: m for j, m in self._cut[image.id].items()}
                        supports = supports.added(image.encoded, masks)
                if supports.classes:
                    with self._compute:
                        self._session = Session(self.model, supports)
            return self._session

    def answer(self, id: str, *, quality: bool = False) -> Held | None:
        """Returns what the network says of an image with the present supports; None without supports.

        Raises:
            Refused: 404, there is no such image.
        """
        session = self.session()
        image = self.image(id)
        if session is None:
            return None
        held = image.held
        if held is not None and held.session is session and (held.answer.quality or not quality):
            return held
        with self._judging if quality else self._compute:
            (answer,) = session.segment_all([image.encoded], quality=quality)
        held = Held(session=session, answer=answer)
        with self._lock:
            if id in self._images and self._session is session:
                self._images[id] = replace(self._images[id], held=held)
                drop_answers(self._images, self.nbytes - self.limits.session_bytes, last=id)
        return held

    def segmentation(self, id: str, threshold: float = 0.5, *, quality: bool = False) -> Segmentation | None:
        """Returns the prediction of an image, its labels numbered as the session's classes.

        Raises:
            ValueError: the threshold is not between 0 and 1.
            Refused: 404, there is no such image.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold is {threshold}; accepted is a number between 0 and 1")
        held = self.answer(id, quality=quality)
        return None if held is None else held.answer.at(threshold)

    def numbered(self, found: Segmentation) -> Mask:
        """Returns a prediction's labels with the numbers of this workspace's classes."""
        table, numbers = np.zeros(256, dtype=np.uint8), {name: j for j, name in enumerate(self._classes, 1)}
        for j, name in enumerate(found.classes, 1):
            table[j] = numbers.get(name, 0)
        labels: Mask = table[found.labels]
        return labels

    def labels(self, id: str, threshold: float = 0.5, *, predicted: bool = False) -> Mask:
        """Returns the mask of an image: the settled one, else the predicted one, else an empty one.

        Args:
            id: the image.
            threshold: of a prediction.
            predicted: the prediction even where a mask is settled.

        Raises:
            ValueError: the threshold is not between 0 and 1.
            Refused: 404, there is no such image.
        """
        image = self.image(id)
        settled = None if predicted else image.mask
        if settled is not None:
            return settled
        found = self.segmentation(id, threshold)
        return np.zeros(image.encoded.size, dtype=np.uint8) if found is None else self.numbered(found)


class Sessions:
    """Workspaces by token; one that is not used for a while is gone, with all it holds.

    Args:
        model: shared by all.
        limits: see there.
        clock: seconds that only grow.
    """

    def __init__(self, model: Model, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.model, self.limits = model, limits
        self._clock = clock
        self.compute, self.judging = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Workspace, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> tuple[str, Workspace]:
        """Opens a workspace; where there is no room, the longest idle one without images makes some.

        Returns:
            Its token and itself.

        Raises:
            Refused: 503, all that the server allows are in use.
        """
        with self._lock:
            self._sweep()
            if len(self._open) >= self.limits.sessions:
                empty = [(last, token) for token, (space, last) in self._open.items() if space.empty]
                if not empty:
                    raise Refused(
                        503,
                        f"the server has {len(self._open)} sessions; accepted are {self.limits.sessions} at "
                        "a time: close another page, or wait until one times out",
                    )
                del self._open[min(empty)[1]]
            token = secrets.token_urlsafe(24)
            space = Workspace(self.model, self.limits, self.compute, self.judging)
            self._open[token] = (space, self._clock())
            return token, space

    def workspace(self, token: str) -> Workspace:
        """Returns the workspace of a token and starts its time anew.

        Raises:
            Refused: 401, there is none, or it has timed out.
        """
        with self._lock:
            self._sweep()
            if token not in self._open:
                raise Refused(401, "the session is unknown or has timed out: load the page again")
            space, _ = self._open[token]
            self._open[token] = (space, self._clock())
            return space

    def end(self, token: str) -> None:
        """Drops a workspace; an unknown token is none."""
        with self._lock:
            self._open.pop(token, None)

    def sweep(self) -> None:
        """Drops workspaces that were not used for the time allowed."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        self._open = {token: held for token, held in self._open.items() if held[1] > oldest}
