"""The state of the open pages: images, classes, masks, and what the model predicts from them."""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, count
from os.path import splitext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from fewseg.annotations.image_files import (
    GREY_MODES,
    check_labels,
    check_same_size,
    is_deep,
    opened,
    read_mask,
    read_rgb,
)
from fewseg.annotations.mask_files import png_bytes
from fewseg.annotations.values import MAX_CLASSES, Mask
from fewseg.errors import first_line
from fewseg.inference.advice import RunSummary
from fewseg.inference.complete import Canvas, Hints, canvas, complete
from fewseg.inference.images import FirstRange
from fewseg.inference.model import EncodedImage, Model, PreparedImage, Window, view_masks
from fewseg.inference.quality import probabilities
from fewseg.inference.segmentation import Segmentation, Session
from fewseg.inference.supports import SupportImage, SupportSet, save_supports
from fewseg.serve.kept import KeptPage, KeptPages
from fewseg.serve.limits import MIB, Budget, Limits, RequestError
from fewseg.types import IGNORE, DataError

logger = logging.getLogger(__name__)

_LONGEST_CLASS_NAME = 60
_LONGEST_FILE_NAME = 200  # bytes: file systems take 255
_LONGEST_JPEG_SIDE = 65_500
_THUMBNAIL = 240  # pixels of its longer side, at most
_MOST_CHANGES = 200  # that can be undone
_MASK_PLANES = 0.25  # memory to show a mask, as a share of that to decode its image
_SHOWABLE = ("JPEG", "PNG", "WEBP")

DEFAULT_CLASS = "object"
"""What the page calls its first class."""

Drawn = Literal["edited", "accepted", "support"]
"""What a person's mask is: not settled yet, accepted, or an example."""
Role = Literal["open", Drawn]
"""What an image's mask is: none yet (it is predicted), or a person's."""


@dataclass(frozen=True)
class SharedModel:
    """A model that all pages use, with its locks, the memory for images and the disk for archives."""

    model: Model
    decoding: Budget = field(default_factory=lambda: Budget(Limits().decoded_pixels))
    unpacking: Budget = field(default_factory=lambda: Budget(Limits().unpacked_bytes))
    network: threading.Lock = field(default_factory=threading.Lock)  # memory is that of one image at a time
    judging: threading.Lock = field(default_factory=threading.Lock)  # takes seconds: masks do not wait for it

    def encode(self, image: PreparedImage, claim: ExitStack) -> EncodedImage:
        """Runs an image through the backbone; gives the claim on it back before, but of tiles."""
        if len(image.windows) == 1:
            claim.close()
        with self.network:
            (encoded,) = self.model.encode([image])
            return encoded

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
    order: int  # of upload
    size: tuple[int, int]  # (H, W), upright
    content: bytes  # the uploaded file
    thumbnail: bytes  # a small JPEG
    encoded: EncodedImage | None = None  # while there is room for it; see PageState._encoded
    role: Role = "open"
    edit: int = 0  # grows with each change of its mask
    mask_png: bytes | None = None  # where the role is not "open"
    class_masks: Mapping[int, Tensor] = field(default_factory=dict)  # of a support: number -> its views' mask
    answer: Segmentation | None = None  # of the present supports

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        answer = self.answer.margins.nbytes if self.answer else 0
        return self.fixed_nbytes + (self.encoded.nbytes if self.encoded else 0) + answer

    @property
    def fixed_nbytes(self) -> int:
        """Bytes of what cannot be computed again: the file and its mask."""
        return len(self.content) + len(self.thumbnail) + self.mask_nbytes

    @property
    def mask_nbytes(self) -> int:
        """Bytes of its mask in both forms."""
        return len(self.mask_png or b"") + sum(mask.nbytes for mask in self.class_masks.values())

    @property
    def mask(self) -> Mask | None:
        """The mask (H, W) uint8 that a person has drawn or accepted: class numbers and 255."""
        if self.mask_png is None:
            return None
        height, width = self.size
        mask: Mask = read_mask(f"of {self.name}", max_pixels=height * width, content=self.mask_png).numpy()
        return mask

    @property
    def bare(self) -> PageImage:
        """The image without what can be computed again."""
        return replace(self, encoded=None, answer=None, class_masks={})

    def reopened(self) -> PageImage:
        """The image without a mask."""
        return replace(self, role="open", mask_png=None, class_masks={})

    def without_class(self, number: int) -> PageImage:
        """The image with one class turned into background and later classes moved down by one.

        A mask of this class alone is dropped: an empty one would state that the image shows no class.
        """
        mask = self.mask
        if mask is None:
            return replace(self)
        others = mask[(mask != 0) & (mask != number) & (mask != IGNORE)]
        if bool((mask == number).any()) and not others.size:
            return self.reopened()
        table = np.arange(256, dtype=np.uint8)
        table[number] = 0
        table[number + 1 : IGNORE] -= 1
        moved = {j - (j > number): own for j, own in self.class_masks.items() if j != number}
        return replace(self, mask_png=png_bytes(table[mask]), class_masks=moved)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an action changed; None where an image does not exist."""

    old_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    old: Mapping[str, PageImage | None]
    new: Mapping[str, PageImage | None]

    @property
    def reverse(self) -> Change:
        """What takes it back."""
        return Change(old_classes=self.new_classes, new_classes=self.old_classes, old=self.new, new=self.old)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The image that is drawn on."""

    id: str
    canvas: Canvas
    classes: tuple[str, ...] = ()  # of the chances
    chances: NDArray[np.float32] | None = None  # (N, h, w) of its prediction, before it had a mask


class PageState:
    """What one open page has; any number of threads may use it.

    A mask has the number j where ``classes[j - 1]`` is shown. Images stay encoded while there is room.
    """

    def __init__(self, shared: SharedModel, limits: Limits, kept: KeptPage | None = None) -> None:
        self.limits, self.kept = limits, kept
        self._shared, self._lock, self._fitting = shared, threading.RLock(), threading.Lock()
        self._images: dict[str, PageImage] = {}
        self._values = FirstRange()
        self._classes: tuple[str, ...] = ()
        self._session: Session | None = None  # of the present supports, made when first needed
        self._before: Session | None = None  # of earlier ones
        self._drawn: Drawing | None = None
        self._summary: RunSummary | None = None  # of the session's judged answers
        self._expected: dict[int, Mapping[str, float]] = {}  # by the number of examples; see advice
        self._renumbered = 0
        self._orders, self._edits = count(), count(1)
        self._done: deque[Change] = deque(maxlen=_MOST_CHANGES)
        self._undone: list[Change] = []
        self.version = 0  # grows when predictions may change

    @classmethod
    def restored(cls, shared: SharedModel, limits: Limits, kept: KeptPage) -> PageState:
        """The page of a server that has ended, without what could be undone there."""
        page, about = cls(shared, limits, kept), kept.read()
        for stored in about["images"]:
            image = PageImage(
                **{key: stored[key] for key in ("id", "name", "order", "role", "edit")},
                size=(stored["size"][0], stored["size"][1]),
                content=kept.file(stored["content"]),
                thumbnail=kept.file(stored["thumbnail"]),
                mask_png=None if stored["mask"] is None else kept.file(stored["mask"]),
            )
            page._images[image.id] = page._with_views(image)
        page._classes, page.version = tuple(about["classes"]), about["version"] + 1
        page._orders, page._edits = count(about["next"][0]), count(about["next"][1])
        page._values.found = about["values"] and (about["values"][0], about["values"][1])
        return page

    def _save(self) -> None:
        """Brings what cannot be computed again to the disk, before a request reports success."""
        if self.kept is None:
            return
        files: dict[str, bytes] = {}
        images = []
        for image in self.images:
            content, thumbnail, mask = f"{image.id}.image", f"{image.id}.jpg", None
            files |= {content: image.content, thumbnail: image.thumbnail}
            if image.mask_png is not None:
                mask = f"{hashlib.sha256(image.mask_png).hexdigest()[:32]}.png"
                files[mask] = image.mask_png
            fields = {key: getattr(image, key) for key in ("id", "name", "order", "role", "edit", "size")}
            images.append({**fields, "content": content, "thumbnail": thumbnail, "mask": mask})
        about = {
            "classes": self._classes,
            "images": images,
            "version": self.version,
            "next": [max((image.order for image in self.images), default=-1) + 1, next(self._edits)],
            "values": self._values.found,
        }
        self.kept.write(about, files)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a mask's 1 is the first."""
        return self._classes

    @property
    def images(self) -> tuple[PageImage, ...]:
        """In the order of upload."""
        with self._lock:
            return tuple(sorted(self._images.values(), key=lambda image: image.order))

    @property
    def undoable(self) -> tuple[bool, bool]:
        """Whether there is something to undo, and to do again."""
        return bool(self._done), bool(self._undone)

    @property
    def empty(self) -> bool:
        """Whether it has no image; never waits for other threads."""
        return not self._images

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        with self._lock:
            changed = [old for change in (*self._done, *self._undone) for old in change.old.values() if old]
            past = sum(old.mask_nbytes if old.id in self._images else old.fixed_nbytes for old in changed)
            return past + sum(image.nbytes for image in self._images.values())

    def image(self, id: str) -> PageImage:
        """The image with an id."""
        with self._lock:
            if id not in self._images:
                raise RequestError(404, "there is no such image in this session: load the page again")
            return self._images[id]

    def add_image(self, name: str, content: bytes) -> PageImage:
        """Decodes an uploaded file, and encodes it where there is room."""
        with self._lock:
            self._make_room(len(content), images=1)
        name = clean_name(name)
        with ExitStack() as claim:
            claim.enter_context(self._shared.decoding.claim(pixel_count(content, self.limits.pixels)))
            pixels = self._pixels(content, name)
            image = PageImage(
                id=secrets.token_urlsafe(9),
                name=name,
                order=next(self._orders),
                size=(int(pixels.shape[1]), int(pixels.shape[2])),
                content=content,
                thumbnail=jpeg_of(pixels, name, _THUMBNAIL),
            )
            with self._lock:
                roomy = self._has_room_to_encode
            prepared = self._shared.model.prepare(pixels) if roomy else None
            del pixels  # the network may be waited for
            encoded = None if prepared is None else self._shared.encode(prepared, claim)
        with self._lock:
            self._make_room(image.fixed_nbytes, images=1)
            image = replace(image, name=unused_name(name, {other.name for other in self._images.values()}))
            self._images[image.id] = image
            self._keep(image.id, encoded)
            self._save()
            return self._images[image.id]

    def _pixels(self, content: bytes, name: str) -> Tensor:
        most = self.limits.pixels
        return read_rgb(name, most, self._values.of(content, most), content)

    def claim(self, image: PageImage, planes: float = 1) -> AbstractContextManager[None]:
        """Claims the memory to work on some planes of an image's size."""
        return self._shared.decoding.claim(round(planes * image.size[0] * image.size[1]))

    def claim_most(self) -> AbstractContextManager[None]:
        """Claims the memory to read an image or mask of unknown size."""
        return self._shared.decoding.claim(self.limits.pixels)

    def claim_unpacked(self, size: int) -> AbstractContextManager[None]:
        """Claims the disk to unpack an archive."""
        return self._shared.unpacking.claim(size)

    def _claim_largest(self) -> AbstractContextManager[None]:
        """Claims the memory for work on the masks of all images, one after the other."""
        sizes = [image.size for image in self.images]
        return self._shared.decoding.claim(max((height * width for height, width in sizes), default=0))

    def _encoded(self, image: PageImage) -> EncodedImage:
        """What the backbone makes of an image; kept while there is room."""
        if image.encoded is not None:
            return image.encoded
        with ExitStack() as claim:
            claim.enter_context(self._shared.decoding.claim(pixel_count(image.content, self.limits.pixels)))
            prepared = self._shared.model.prepare(self._pixels(image.content, image.name))
            encoded = self._shared.encode(prepared, claim)
        with self._lock:
            self._keep(image.id, encoded)
        return encoded

    @property
    def _has_room_to_encode(self) -> bool:
        """Whether an image as the largest encoded one has room, answers apart."""
        known = [image.encoded.nbytes for image in self._images.values() if image.encoded]
        answers = sum(image.answer.margins.nbytes for image in self._images.values() if image.answer)
        return self.nbytes - answers + max(known, default=0) <= self.limits.session_bytes

    def _keep(self, id: str, encoded: EncodedImage | None) -> None:
        """Keeps an encoded image where there is room, for which answers go; a support's always."""
        if encoded is None or id not in self._images:
            return
        most = self.limits.session_bytes - encoded.nbytes
        if self._images[id].role == "support":
            self._drop_encoded(most)
        else:
            self._drop_answers(self.nbytes - most)
        if self._images[id].role == "support" or self.nbytes <= most:
            self._images[id] = replace(self._images[id], encoded=encoded)

    def picture(self, id: str, *, small: bool = False) -> tuple[bytes, str]:
        """An image as browsers show it, upright, with its media type."""
        image = self.image(id)
        if small:
            return image.thumbnail, "image/jpeg"
        shown_as = browser_type(image.content)
        if shown_as:
            return image.content, shown_as
        with self._shared.decoding.claim(pixel_count(image.content, self.limits.pixels)):
            return jpeg_of(self._pixels(image.content, image.name), image.name), "image/jpeg"

    def remove_image(self, id: str) -> None:
        """Removes an image with its mask."""
        self._change({id: None})

    def add_class(self, name: str) -> None:
        """Adds a class, numbered after the others."""
        with self._lock:
            classes = (*self._classes, class_name(name, self._classes))
            if self._classes:
                self._change({}, classes)
            else:  # the first is there from the start
                self._classes = classes
                self._save()

    def rename_class(self, number: int, name: str) -> None:
        """Gives a class a different name; masks stay the same."""
        with self._lock:
            others = self._classes_but(number)
            name = class_name(name, others)
            self._change({}, (*self._classes[: number - 1], name, *self._classes[number:]))

    def remove_class(self, number: int) -> None:
        """Removes a class, from every mask too; later classes move down by one number."""
        with self._claim_largest(), self._lock:
            left = self._classes_but(number)
            drawn = (image for image in self._images.values() if image.mask_png is not None)
            self._change({image.id: image.without_class(number) for image in drawn}, left)

    def _change(
        self,
        images: Mapping[str, PageImage | None],
        classes: tuple[str, ...] | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Puts images in place of present ones, None for none, so that it can be undone."""
        with self._lock:
            old = {id: self.image(id) for id in images}
            change = Change(
                old_classes=self._classes,
                new_classes=self._classes if classes is None else classes,
                old={id: image.bare for id, image in old.items()},
                new={id: image and image.bare for id, image in images.items()},
            )
            last = self._done[-1] if self._done else None
            if again and last and last.new.keys() == change.new.keys() and classes is None:
                self._done[-1] = replace(last, new=change.new)
            else:
                self._done.append(change)
            self._undone.clear()
            self._apply(change)

    def _apply(self, change: Change) -> tuple[str, ...]:
        """Makes a change, and returns the images that it is about."""
        for id, image in change.new.items():
            known = self._images.pop(id, None)
            if image is not None and known is not None:
                edit = next(self._edits)
                image = replace(image, encoded=known.encoded, answer=known.answer, edit=edit)
            if image is not None:
                self._images[id] = self._with_views(image)
        before, after = change.old_classes, change.new_classes
        added = after[: len(before)] == before  # at the end, or none
        if not added and len(after) != len(before):
            self._renumbered += 1
        self._classes = after
        touched = [*change.old.values(), *change.new.values()]
        if not added or any(image and image.role == "support" for image in touched):
            self._supports_changed()
        self._save()
        return tuple(change.new)

    def put_masks(self, masks: Mapping[str, bytes], classes: tuple[str, ...], role: Drawn) -> None:
        """Gives several images their masks (PNGs), and the page its classes, in one change."""
        checked: tuple[str, ...] = ()
        for name in classes:
            checked = (*checked, class_name(name, checked))
        with self._claim_largest(), self._lock:
            new = {id: replace(self.image(id), role=role, mask_png=mask) for id, mask in masks.items()}
            self._make_room(sum(image.mask_nbytes for image in new.values()))
            self._change(new, checked)

    def _with_views(self, image: PageImage) -> PageImage:
        """A support with its classes' masks in the views of the network."""
        mask = image.mask if image.role == "support" else None
        if mask is None:
            return image
        model = self._shared.model
        windows = model.views.windows(image.size, model.size)
        return replace(image, class_masks=class_masks(torch.from_numpy(mask), windows))

    def undo(self) -> tuple[str, ...]:
        """Takes the last change back; returns the images that it was about."""
        with self._claim_largest(), self._lock:
            if not self._done:
                raise RequestError(409, "there is nothing to undo")
            self._undone.append(self._done.pop())
            return self._apply(self._undone[-1].reverse)

    def redo(self) -> tuple[str, ...]:
        """Makes the last change that was undone again; returns the images that it was about."""
        with self._claim_largest(), self._lock:
            if not self._undone:
                raise RequestError(409, "there is nothing to do again")
            self._done.append(self._undone.pop())
            return self._apply(self._done[-1])

    def _classes_but(self, number: int) -> tuple[str, ...]:
        names = self._classes
        if not 1 <= number <= len(names):
            raise RequestError(404, f"there is no class {number}: there are {len(names)} classes")
        return (*names[: number - 1], *names[number:])

    def set_mask(
        self, id: str, role: Drawn, content: bytes, *, again: bool = False, edit: int | None = None
    ) -> PageImage:
        """Gives an image a PNG of class numbers, at its size, as its mask; 255 is unknown.

        One that is sent ``again`` is undone together with the last change, if that was about the same image.
        Of an image that has changed since ``edit``, such as in another tab, it is refused.
        """
        with self._lock:
            image, classes, deleted = self.image(id), self._classes, self._renumbered
        what = f"of {image.name}"
        with self._shared.decoding.claim(pixel_count(content, self.limits.pixels)):
            mask = read_mask(what, GREY_MODES, self.limits.pixels, content)
            check_same_size(f"the mask {what}", image.size, (int(mask.shape[0]), int(mask.shape[1])))
            if not classes:
                raise DataError("there is no class yet: add one before drawing")
            check_labels(mask, dict(enumerate(classes, 1)), what)
            new = self._with_views(replace(image, role=role, mask_png=png_bytes(mask.numpy())))
            with self._lock:
                if self._renumbered != deleted:
                    raise RequestError(
                        409, f"a class was deleted while the mask {what} was sent: draw it again"
                    )
                old = self.image(id)
                if edit not in (None, old.edit):
                    if (old.role, old.mask_png) == (role, new.mask_png):
                        self._save()
                        return old  # sent twice, as its first answer was lost
                    raise RequestError(
                        409,
                        f"{image.name} was changed in another tab, and your mask is not saved: accept it "
                        'to replace the other, or choose "Predict again"',
                    )
                self._make_room(new.mask_nbytes - old.mask_nbytes)
                self._change({id: new}, again=again)
                return self._images[id]

    def complete(self, id: str, content: bytes) -> bytes:
        """Completes what is painted: a PNG of twice the image's height, labels above and hints below.

        A model's prediction helps where it has been computed; an image that is not encoded is encoded first.
        """
        with self._lock:
            image, classes = self.image(id), self._classes
        (height, width), what = image.size, f"of strokes on {image.name}"
        drawn = self._drawn
        encoded = None if drawn is not None and drawn.id == id else self._encoded(image)
        with self._shared.decoding.claim(pixel_count(content, 2 * self.limits.pixels)):
            planes = read_mask(what, GREY_MODES, 2 * self.limits.pixels, content)
            sent = (int(planes.shape[0]), int(planes.shape[1]))
            check_same_size(f"the mask {what}", (2 * height, width), sent)
            check_labels(planes[:height], dict(enumerate(classes, 1)), what)
            hints = Hints(labels=planes[:height].numpy(), kind=planes[height:].numpy())
            if int(hints.kind.max()) > 1 + len(classes):
                raise DataError(f"hints {what} must be 0 to {1 + len(classes)}, got {int(hints.kind.max())}")
            if drawn is None or encoded is not None:
                drawn = Drawing(id=id, canvas=canvas(self._pixels(image.content, image.name), encoded))
            if image.role == "open" or drawn.classes != classes:
                answer = image.answer if image.role == "open" else None
                chances = None if answer is None else _chances(answer, classes)
                drawn = replace(drawn, classes=classes, chances=chances)
            self._drawn = drawn
            return png_bytes(complete(drawn.canvas, hints, drawn.chances))

    def reopen(self, id: str) -> PageImage:
        """Drops the mask of an image: it is predicted again."""
        with self._lock:
            if self.image(id).role != "open":
                self._change({id: self.image(id).reopened()})
            return self._images[id]

    def _supports_changed(self) -> None:
        self._before, self._session = self._session or self._before, None
        self._images = {id: replace(image, answer=None) for id, image in self._images.items()}
        self.version += 1

    def _make_room(self, nbytes: int = 0, images: int = 0) -> None:
        """Drops answers, then encoded images, then what could be undone, until there is room for more."""
        most = self.limits.session_bytes - nbytes
        self._drop_encoded(most)
        while self.nbytes > most and (self._done or self._undone):
            if self._done:
                self._done.popleft()
            else:
                self._undone.clear()
        used = self.nbytes
        if len(self._images) + images > self.limits.images or used > most:
            raise RequestError(
                413,
                f"a session may hold {self.limits.images} images and {self.limits.session_bytes / MIB:.0f} "
                f"MiB, this one has {len(self._images)} images and {used / MIB:.0f} MiB: download and remove "
                "some, or start the server with --session-mib",
            )

    def _drop_encoded(self, most: int) -> None:
        """Drops answers, then encoded images but supports, until so many bytes at most are used."""
        self._drop_answers(self.nbytes - most)
        excess = self.nbytes - most
        for id, image in reversed(self._images.items()):
            if excess > 0 and image.encoded and image.role != "support":
                excess -= image.encoded.nbytes
                self._images[id] = replace(image, encoded=None)

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
                version, before, supports = (
                    self.version,
                    self._before,
                    SupportSet(value_range=self._values.found),
                )
                if self._session is not None:
                    return self._session
                images, classes = [image for image in self.images if image.role == "support"], self._classes
            for image in images:
                masks = {classes[j - 1]: mask for j, mask in image.class_masks.items()}
                supports = supports.added(SupportImage(image=self._encoded(image), masks=masks))
            session = self._shared.session(supports, before)
            with self._lock:
                if self.version == version:
                    self._session, self._before = session, None
                    self._summary = RunSummary(session) if session else None
                else:
                    self._before = session or before
            return session

    def segmentation(self, id: str, threshold: float = 0.5, *, quality: bool = False) -> Segmentation | None:
        """The prediction of an image from the present supports; None without supports."""
        session, image = self._encoded_supports(), self.image(id)
        if session is None:
            return None
        answer = image.answer
        if answer is None or (quality and answer.quality is None):
            encoded = self._encoded(image)
            with self._shared.judging if quality else self._shared.network:
                (answer,) = session.segment_all([encoded], quality=quality)
            with self._lock:
                if id in self._images and self._session is session:
                    if self._summary is not None:
                        self._summary.add(id, encoded, answer)
                    self._images[id] = replace(self._images[id], answer=answer)
                    self._drop_answers(self.nbytes - self.limits.session_bytes, last=id)
        return answer.at(threshold)

    def save_supports(self, path: Path) -> None:
        """Writes the examples, encoded, for ``fewseg label``."""
        session = self._encoded_supports()
        if session is None:
            raise RequestError(409, "there is no example yet: annotate an image of a class first")
        save_supports(path, session.supports, self._shared.model)

    def advice(self) -> dict[str, Any]:
        """What to annotate next, and the IoU to expect of each class by the number of examples.

        It takes seconds where new supports are compared first.
        """
        session = self._encoded_supports()  # never within the lock, which a fit takes at its end
        with self._lock:
            summary = self._summary if self._session is session else None
        if session is None or summary is None:
            return {"next": [], "expected": []}
        with self._shared.judging:
            expected = session.expected
        with self._lock:
            self._expected[len(session.supports.images)] = expected
            settled = {image.id for image in self._images.values() if image.role != "open"}
            known = sorted(self._expected.items())
            return {
                "next": [id for id in summary.next(but=settled) if id in self._images],
                "expected": [each for each in known if each[0] <= len(session.supports.images)],
            }

    def renumbered(self, answer: Segmentation) -> Mask:
        """A prediction's labels with the numbers of this page's classes."""
        numbers = {name: j for j, name in enumerate(self._classes, 1)}
        table = np.zeros(256, dtype=np.uint8)
        for j, name in enumerate(answer.classes, 1):
            table[j] = numbers.get(name, 0)
        return table[answer.labels]

    def labels_png(
        self, id: str, threshold: float = 0.5, *, predicted: bool = False, small: bool = False
    ) -> bytes:
        """The mask of an image: its own unless ``predicted``, else the predicted one, else an empty one.

        A small one, of the thumbnail's size, has one pixel of each block.
        """
        image = self.image(id)
        settled = not predicted and image.mask_png is not None
        answer = None if settled else self.segmentation(id, threshold)
        step = -(-max(image.size) // _THUMBNAIL) if small else 1
        with self.claim(image, _MASK_PLANES):
            labels = image.mask if settled else None
            if labels is None:
                labels = np.zeros(image.size, dtype=np.uint8) if answer is None else self.renumbered(answer)
            return png_bytes(np.ascontiguousarray(labels[::step, ::step]))


class Pages:
    """The open pages by token; one that is not used for a while is dropped with all it holds."""

    def __init__(
        self,
        shared: SharedModel,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        kept: KeptPages | None = None,
    ) -> None:
        self.shared, self.limits, self.kept = shared, limits, kept
        self._clock, self._lock = clock, threading.RLock()
        self._open: dict[str, tuple[PageState, float]] = {}  # with the time of last use

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> tuple[str, PageState]:
        """Opens a page, with its token; a full server drops its longest idle page without images."""
        with self._lock:
            self._make_room()
            token = secrets.token_urlsafe(24)
            page = PageState(self.shared, self.limits, None if self.kept is None else self.kept.page(token))
            self._open[token] = (page, self._clock())
            return token, page

    def _make_room(self) -> None:
        self.sweep()
        if len(self._open) >= self.limits.sessions:
            empty = [(used, token) for token, (page, used) in self._open.items() if page.empty]
            if not empty:
                raise RequestError(
                    503,
                    f"a server may have {self.limits.sessions} sessions at a time, and all are in use: "
                    "close a different page, or wait until one times out",
                )
            self.close(min(empty)[1])

    def get(self, token: str) -> PageState:
        """The page with a token, whose idle time starts again; one of before this server is opened again."""
        with self._lock:
            self.sweep()
            page = self._open[token][0] if token in self._open else self._restored(token)
            self._open[token] = (page, self._clock())
        if page.kept is not None:
            page.kept.used()
        return page

    def _restored(self, token: str) -> PageState:
        unknown = RequestError(401, "the session is unknown or has timed out: load the page again")
        if self.kept is None or not token:
            raise unknown
        kept = self.kept.page(token)
        try:
            page = PageState.restored(self.shared, self.limits, kept)
        except FileNotFoundError:
            raise unknown from None
        except (OSError, ValueError, TypeError, LookupError) as error:
            logger.error("the page in %s cannot be opened again: %s", kept.folder, first_line(error))
            raise unknown from error
        self._make_room()
        return page

    def close(self, token: str) -> None:
        """Drops a page; an unknown token is ignored."""
        with self._lock:
            self._open.pop(token, None)
            if self.kept is not None:
                self.kept.page(token).remove()

    def sweep(self) -> None:
        """Drops pages that have been idle too long."""
        oldest = self._clock() - self.limits.idle_seconds
        with self._lock:
            for token in [token for token, entry in self._open.items() if entry[1] <= oldest]:
                self.close(token)

    def sweep_kept(self) -> None:
        """Drops pages of before this server that have been idle too long."""
        if self.kept is not None:
            with self._lock:
                self.kept.sweep(self.limits.idle_seconds, self._open)


def _chances(answer: Segmentation, classes: tuple[str, ...]) -> NDArray[np.float32]:
    """A prediction's probabilities (N, h, w) of the page's classes, 0 of those that it lacks."""
    known = dict(zip(answer.classes, probabilities(answer.margins).numpy(), strict=True))
    none = np.zeros(answer.margins.shape[-2:], dtype=np.float32)
    return np.stack([known.get(name, none) for name in classes])


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
    name = "".join(filter(_is_printable, last)).strip(" .")
    return name.encode()[-_LONGEST_FILE_NAME:].decode(errors="ignore").strip(" .") or "image"


def _is_printable(text: str) -> bool:
    return text.isprintable() and not any(unicodedata.category(c) == "Cs" for c in text)


def unused_name(name: str, used: set[str]) -> str:
    """A file name that is not used yet: with a number before its suffix, if necessary."""
    head, tail = splitext(name)
    numbered = (f"{head} ({number}){tail}" for number in count(2))
    return next(found for found in chain([name], numbered) if found not in used)


def pixel_count(content: bytes, limit: int) -> int:
    """Pixels to claim for decoding a file, twice those of one of 16 bits; 0 of one that cannot be read."""
    with suppress(DataError), opened("image", "image", limit, content) as file:
        return file.width * file.height * (2 if is_deep(file) else 1)
    return 0


def browser_type(content: bytes) -> str | None:
    """The media type of an image file that browsers show as it is read here; None where they may not."""
    with Image.open(io.BytesIO(content)) as file:
        plain = file.mode in ("L", "RGB") and "transparency" not in file.info
        upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return Image.MIME[file.format] if file.format in _SHOWABLE and plain and upright else None


def jpeg_of(pixels: Tensor, what: str, side: int = _LONGEST_JPEG_SIDE) -> bytes:
    """(3, H, W) uint8 as a JPEG to look at; by means of blocks, where its longer side is above ``side``."""
    longest = max(pixels.shape)
    if longest > _LONGEST_JPEG_SIDE:
        raise DataError(
            f"a side of an image must be at most {_LONGEST_JPEG_SIDE} pixels, {what} has {pixels.shape[2]} x "
            f"{pixels.shape[1]}: cut it into tiles"
        )
    file = io.BytesIO()
    upright = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    upright.reduce(-(-longest // side)).save(file, format="JPEG", quality=92, subsampling=0)
    return file.getvalue()


def class_masks(labels: Tensor, windows: Sequence[Window]) -> dict[int, Tensor]:
    """Each class number in (H, W) -> its mask (n, S, S) in {0, 1, 255} in the image's n views."""
    numbers = torch.bincount(labels.flatten(), minlength=256)[1:IGNORE].nonzero().flatten() + 1
    unknown = labels == IGNORE
    return {
        int(j): view_masks((labels == j).to(torch.uint8).masked_fill(unknown, IGNORE), windows)
        for j in numbers
    }
