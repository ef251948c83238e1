"""The state of the open pages: images, classes, masks, and what the model predicts from them."""

from __future__ import annotations

import io
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from os.path import splitext
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations.image_files import (
    GREY_MODES,
    check_labels,
    check_same_size,
    mask_of_bytes,
    rgb_of_bytes,
)
from fewseg.annotations.mask_files import png_bytes
from fewseg.annotations.values import MAX_CLASSES, Mask
from fewseg.inference.complete import Canvas, Hints, canvas, complete
from fewseg.inference.model import EncodedImage, Model, view_masks
from fewseg.inference.quality import probabilities
from fewseg.inference.segmentation import Segmentation, Session
from fewseg.inference.supports import SupportSet
from fewseg.serve.limits import MIB, Limits, RequestError
from fewseg.types import IGNORE, DataError

_LONGEST_CLASS_NAME = 60
_LONGEST_FILE_NAME = 120
_LONGEST_JPEG_SIDE = 65_500

Role = Literal["open", "support", "accepted"]
"""What an image's mask is: none yet (it is predicted), a support's, or one that a person has accepted."""


@dataclass(frozen=True)
class SharedModel:
    """A model that all pages use, with its locks."""

    model: Model
    network: threading.Lock = field(default_factory=threading.Lock)  # memory is that of one image at a time
    judging: threading.Lock = field(default_factory=threading.Lock)  # takes seconds: masks do not wait for it

    def session(self, supports: SupportSet, before: Session | None) -> Session | None:
        """Encodes the supports; None where they show no class. The one before spares a choice of method."""
        if not supports.classes:
            return None
        with self.network:
            return Session(self.model, supports, before)


@dataclass(frozen=True, kw_only=True)
class PageImage:
    """An image of a page."""

    id: str  # random; requests name it by this
    name: str  # last part of the uploaded file's name; shown and exported, never used as a path
    encoded: EncodedImage
    jpeg: bytes  # its pixels, upright
    role: Role = "open"
    mask_png: bytes | None = None  # where the role is not "open"
    class_masks: Mapping[int, Tensor] = field(default_factory=dict)  # of a support: number -> its views' mask
    answer: Segmentation | None = None  # of the present supports
    chances: NDArray[np.float32] | None = None  # (N, h, w) of the page's classes, before its mask was drawn

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        answer = self.answer.margins.nbytes if self.answer else 0
        chances = 0 if self.chances is None else self.chances.nbytes
        return self.encoded.nbytes + len(self.jpeg) + self.mask_nbytes + answer + chances

    @property
    def mask_nbytes(self) -> int:
        """Bytes of its mask in both forms."""
        return len(self.mask_png or b"") + sum(mask.nbytes for mask in self.class_masks.values())

    @property
    def mask(self) -> Mask | None:
        """The mask (H, W) uint8 of a support or accepted image: class numbers and 255."""
        if self.mask_png is None:
            return None
        height, width = self.encoded.size
        found: Mask = mask_of_bytes(self.mask_png, f"of {self.name}", max_pixels=height * width).numpy()
        return found

    def reopened(self) -> PageImage:
        """The image without a mask."""
        return replace(self, role="open", mask_png=None, class_masks={}, chances=None)

    def without_class(self, number: int) -> PageImage:
        """The image with one class turned into background and later classes moved down by one.

        A mask of this class alone is dropped: an empty one would state that the image shows no class.
        """
        mask = self.mask
        if mask is None:
            return replace(self, chances=None)
        others = mask[(mask != 0) & (mask != number) & (mask != IGNORE)]
        if bool((mask == number).any()) and not others.size:
            return self.reopened()
        table = np.arange(256, dtype=np.uint8)
        table[number] = 0
        table[number + 1 : IGNORE] -= 1
        moved = {j - (j > number): own for j, own in self.class_masks.items() if j != number}
        return replace(self, mask_png=png_bytes(table[mask]), class_masks=moved, chances=None)


class PageState:
    """What one open page has; any number of threads may use it.

    A mask has the number j where ``classes[j - 1]`` is shown. Each image is encoded once.
    """

    def __init__(self, shared: SharedModel, limits: Limits) -> None:
        self.limits = limits
        self._shared, self._lock, self._fitting = shared, threading.RLock(), threading.Lock()
        self._images: dict[str, PageImage] = {}
        self._classes: tuple[str, ...] = ()
        self._session: Session | None = None  # of the present supports, made when first needed
        self._before: Session | None = None  # of earlier ones
        self._deleted_classes = 0
        self._drawn: tuple[str, Canvas] | None = None  # the image that is drawn on
        self.version = 0  # grows when predictions may change

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a mask's 1 is the first."""
        return self._classes

    @property
    def images(self) -> tuple[PageImage, ...]:
        """In the order of upload."""
        with self._lock:
            return tuple(self._images.values())

    @property
    def empty(self) -> bool:
        """Whether it has no image; never waits for other threads."""
        return not self._images

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        return sum(image.nbytes for image in self.images)

    def image(self, id: str) -> PageImage:
        """The image with an id."""
        with self._lock:
            if id not in self._images:
                raise RequestError(404, "there is no such image in this session: load the page again")
            return self._images[id]

    def add_image(self, name: str, content: bytes) -> PageImage:
        """Decodes and encodes an uploaded file."""
        with self._lock:
            self._make_room(images=1)
        name = clean_name(name)
        with self._shared.network:
            pixels = rgb_of_bytes(content, name, self.limits.pixels)
            jpeg, model = jpeg_of(pixels, name), self._shared.model
            (encoded,) = model.encode([model.prepare(pixels)])
        image = PageImage(id=secrets.token_urlsafe(9), name=name, encoded=encoded, jpeg=jpeg)
        with self._lock:
            self._make_room(image.nbytes, images=1)
            image = replace(image, name=unused_name(name, {other.name for other in self._images.values()}))
            self._images[image.id] = image
        return image

    def remove_image(self, id: str) -> None:
        """Removes an image with its mask."""
        with self._lock:
            image = self.image(id)
            del self._images[id]
            if image.role == "support":
                self._supports_changed()

    def add_class(self, name: str) -> None:
        """Adds a class, numbered after the others."""
        with self._lock:
            self._classes = (*self._classes, class_name(name, self._classes))

    def rename_class(self, number: int, name: str) -> None:
        """Gives a class a different name; masks stay the same."""
        with self._lock:
            others = self._classes_but(number)
            name = class_name(name, others)
            self._classes = (*self._classes[: number - 1], name, *self._classes[number:])
            self._supports_changed()

    def remove_class(self, number: int) -> None:
        """Removes a class, from every mask too; later classes move down by one number."""
        with self._lock:
            self._classes = self._classes_but(number)
            self._deleted_classes += 1
            self._images = {id: image.without_class(number) for id, image in self._images.items()}
            self._supports_changed()

    def _classes_but(self, number: int) -> tuple[str, ...]:
        names = self._classes
        if not 1 <= number <= len(names):
            raise RequestError(404, f"there is no class {number}: there are {len(names)} classes")
        return (*names[: number - 1], *names[number:])

    def set_mask(self, id: str, role: Role, content: bytes) -> PageImage:
        """Gives an image a PNG of class numbers, at its size, as its mask; 255 is unknown."""
        with self._lock:
            image, classes, deleted = self.image(id), self._classes, self._deleted_classes
        what = f"of {image.name}"
        mask = mask_of_bytes(content, what, GREY_MODES, self.limits.pixels)
        check_same_size(f"the mask {what}", image.encoded.size, (int(mask.shape[0]), int(mask.shape[1])))
        if not classes:
            raise DataError("there is no class yet: add one before drawing")
        check_labels(mask, dict(enumerate(classes, 1)), what)
        new = replace(
            image,
            role=role,
            mask_png=png_bytes(mask.numpy()),
            class_masks=class_masks(mask, image.encoded) if role == "support" else {},
        )
        with self._lock:
            if self._deleted_classes != deleted:
                raise RequestError(409, f"a class was deleted while the mask {what} was sent: draw it again")
            old = self.image(id)
            self._make_room(new.mask_nbytes - old.mask_nbytes)
            self._images[id] = replace(new, answer=self.image(id).answer)
            if "support" in (role, old.role):
                self._supports_changed()
            return self._images[id]

    def complete(self, id: str, content: bytes) -> Mask:
        """Completes what is painted: a PNG of twice the image's height, labels above and hints below.

        It never waits for the network: a model's prediction helps where it has been computed.
        """
        with self._lock:
            image, classes = self.image(id), self._classes
        (height, width), what = image.encoded.size, f"of strokes on {image.name}"
        planes = mask_of_bytes(content, what, GREY_MODES, 2 * self.limits.pixels)
        check_same_size(f"the mask {what}", (2 * height, width), (int(planes.shape[0]), int(planes.shape[1])))
        check_labels(planes[:height], dict(enumerate(classes, 1)), what)
        hints = Hints(labels=planes[:height].numpy(), kind=planes[height:].numpy())
        if int(hints.kind.max()) > 1 + len(classes):
            raise DataError(f"hints {what} must be 0 to {1 + len(classes)}, got {int(hints.kind.max())}")
        drawn = self._drawn
        if drawn is None or drawn[0] != id:
            drawn = id, canvas(Image.open(io.BytesIO(image.jpeg)), image.encoded)
        chances = image.chances
        if image.role == "open":
            chances = None if image.answer is None else _chances(image.answer, classes)
        with self._lock:
            self._drawn = drawn
            if id in self._images and chances is not image.chances:
                self._images[id] = replace(self._images[id], chances=chances)
        return complete(drawn[1], hints, chances)

    def reopen(self, id: str) -> PageImage:
        """Drops the mask of an image: it is predicted again."""
        with self._lock:
            image = self.image(id)
            self._images[id] = image.reopened()
            if image.role == "support":
                self._supports_changed()
            return self._images[id]

    def _supports_changed(self) -> None:
        self._before, self._session = self._session or self._before, None
        self._images = {id: replace(image, answer=None) for id, image in self._images.items()}
        self.version += 1

    def _make_room(self, nbytes: int = 0, images: int = 0) -> None:
        """Drops answers until there is room for more bytes and images."""
        self._drop_answers(self.nbytes + nbytes - self.limits.session_bytes)
        used = self.nbytes
        if len(self._images) + images > self.limits.images or used + nbytes > self.limits.session_bytes:
            raise RequestError(
                413,
                f"a session may hold {self.limits.images} images and {self.limits.session_bytes / MIB:.0f} "
                f"MiB, this one has {len(self._images)} images and {used / MIB:.0f} MiB: download and remove "
                "some, or start the server with --session-mib",
            )

    def _drop_answers(self, excess: int, last: str | None = None) -> None:
        """Drops answers, which the network can give again, until so many bytes are free."""
        for id in sorted(self._images, key=lambda id: id == last):
            answer = self._images[id].answer
            if excess > 0 and answer is not None:
                excess -= answer.margins.nbytes
                self._images[id] = replace(self._images[id], answer=None)

    def _encoded_supports(self) -> Session | None:
        """The present supports with their encoded state; None where no support shows a class.

        Fitting takes seconds; strokes and masks do not wait for it.
        """
        with self._fitting:
            with self._lock:
                version, before, supports = self.version, self._before, SupportSet()
                if self._session is not None:
                    return self._session
                for image in self._images.values():
                    if image.role == "support":
                        masks = {self._classes[j - 1]: mask for j, mask in image.class_masks.items()}
                        supports = supports.added(image.encoded, masks)
            session = self._shared.session(supports, before)
            with self._lock:
                if self.version == version:
                    self._session, self._before = session, None
                else:
                    self._before = session or before
            return session

    def segmentation(self, id: str, threshold: float = 0.5, *, quality: bool = False) -> Segmentation | None:
        """The prediction of an image from the present supports; None without supports."""
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {threshold}")
        session, image = self._encoded_supports(), self.image(id)
        if session is None:
            return None
        answer = image.answer
        if answer is None or (quality and answer.quality is None):
            with self._shared.judging if quality else self._shared.network:
                (answer,) = session.segment_all([image.encoded], quality=quality)
            with self._lock:
                if id in self._images and self._session is session:
                    self._images[id] = replace(self._images[id], answer=answer)
                    self._drop_answers(self.nbytes - self.limits.session_bytes, last=id)
        return answer.at(threshold)

    def renumbered(self, found: Segmentation) -> Mask:
        """A prediction's labels with the numbers of this page's classes."""
        numbers = {name: j for j, name in enumerate(self._classes, 1)}
        table = np.zeros(256, dtype=np.uint8)
        for j, name in enumerate(found.classes, 1):
            table[j] = numbers.get(name, 0)
        return table[found.labels]

    def labels(self, id: str, threshold: float = 0.5, *, predicted: bool = False) -> Mask:
        """The mask of an image: its own unless ``predicted``, else the predicted one, else an empty one."""
        image = self.image(id)
        own = None if predicted else image.mask
        if own is not None:
            return own
        found = self.segmentation(id, threshold)
        return np.zeros(image.encoded.size, dtype=np.uint8) if found is None else self.renumbered(found)


class Pages:
    """The open pages by token; one that is not used for a while is dropped with all it holds."""

    def __init__(
        self, shared: SharedModel, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.shared, self.limits = shared, limits
        self._clock, self._lock = clock, threading.RLock()
        self._open: dict[str, tuple[PageState, float]] = {}  # with the time of last use

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> tuple[str, PageState]:
        """Opens a page, with its token; a full server drops its longest idle page without images."""
        with self._lock:
            self.sweep()
            if len(self._open) >= self.limits.sessions:
                empty = [(used, token) for token, (page, used) in self._open.items() if page.empty]
                if not empty:
                    raise RequestError(
                        503,
                        f"a server may have {self.limits.sessions} sessions at a time, and all are in use: "
                        "close a different page, or wait until one times out",
                    )
                del self._open[min(empty)[1]]
            token, page = secrets.token_urlsafe(24), PageState(self.shared, self.limits)
            self._open[token] = (page, self._clock())
            return token, page

    def get(self, token: str) -> PageState:
        """The page with a token, whose idle time starts again."""
        with self._lock:
            self.sweep()
            if token not in self._open:
                raise RequestError(401, "the session is unknown or has timed out: load the page again")
            page, _ = self._open[token]
            self._open[token] = (page, self._clock())
            return page

    def close(self, token: str) -> None:
        """Drops a page; an unknown token is ignored."""
        with self._lock:
            self._open.pop(token, None)

    def sweep(self) -> None:
        """Drops pages that have been idle too long."""
        oldest = self._clock() - self.limits.idle_seconds
        with self._lock:
            self._open = {token: entry for token, entry in self._open.items() if entry[1] > oldest}


def _chances(answer: Segmentation, classes: tuple[str, ...]) -> NDArray[np.float32]:
    """A prediction's probabilities (N, h, w) of the page's classes, 0 of those that it lacks."""
    found = dict(zip(answer.classes, probabilities(answer.margins).numpy(), strict=True))
    none = np.zeros(answer.margins.shape[-2:], dtype=np.float32)
    return np.stack([found.get(name, none) for name in classes])


def class_name(name: str, others: tuple[str, ...]) -> str:
    """Checks a new class name against the other classes and returns it as it is stored."""
    name = unicodedata.normalize("NFC", name).strip()
    existing = {other.casefold() for other in others}
    if not 1 <= len(name) <= _LONGEST_CLASS_NAME or not _is_printable(name) or name.casefold() in existing:
        raise ValueError(
            f"a class name must be one line of 1 to {_LONGEST_CLASS_NAME} characters and different from the "
            f"others, got {name[:80]!r}: choose a different one"
        )
    if len(others) >= MAX_CLASSES:
        raise ValueError(f"there can be at most {MAX_CLASSES} classes")
    return name


def clean_name(name: str) -> str:
    """The last part of a file name, printable and not too long."""
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(filter(_is_printable, last)).strip(" .")
    return kept[-_LONGEST_FILE_NAME:].strip(" .") or "image"


def _is_printable(text: str) -> bool:
    return text.isprintable() and not any(unicodedata.category(c) == "Cs" for c in text)


def unused_name(name: str, used: set[str]) -> str:
    """A file name that is not used yet: with a number before its suffix, if necessary."""
    head, tail = splitext(name)
    numbered = (f"{head} ({number}){tail}" for number in count(2))
    return next(found for found in chain([name], numbered) if found not in used)


def jpeg_of(pixels: Tensor, what: str) -> bytes:
    """(3, H, W) uint8 as a JPEG to look at."""
    if max(pixels.shape) > _LONGEST_JPEG_SIDE:
        raise DataError(
            f"a side of an image must be at most {_LONGEST_JPEG_SIDE} pixels, {what} has {pixels.shape[2]} x "
            f"{pixels.shape[1]}: cut it into tiles"
        )
    file = io.BytesIO()
    upright = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    upright.save(file, format="JPEG", quality=92, subsampling=0)
    return file.getvalue()


def class_masks(labels: Tensor, encoded: EncodedImage) -> dict[int, Tensor]:
    """Each class number in (H, W) -> its mask (n, S, S) in {0, 1, 255} in the image's n views."""
    numbers = torch.bincount(labels.flatten(), minlength=256)[1:IGNORE].nonzero().flatten() + 1
    unknown = labels == IGNORE
    return {
        int(j): view_masks((labels == j).to(torch.uint8).masked_fill(unknown, IGNORE), encoded.windows)
        for j in numbers
    }
