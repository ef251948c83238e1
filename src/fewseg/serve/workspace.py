"""What one user of the page has: images, classes, masks, and the predictions that follow from them."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace

import numpy as np
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.data.image_files import check_labels, check_same_size, mask_of_bytes, rgb_of_bytes
from fewseg.inference.formats.png import png_bytes
from fewseg.inference.formats.values import Mask
from fewseg.inference.model import Model
from fewseg.inference.segmentation import Segmentation
from fewseg.inference.session import Session
from fewseg.inference.supports import SupportSet
from fewseg.serve.class_names import class_name, other_names
from fewseg.serve.limits import Limits, Refused
from fewseg.serve.room import bytes_of, drop_answers, kept_bytes, make_room
from fewseg.serve.served_image import (
    Held,
    Role,
    ServedImage,
    class_views,
    clean_name,
    jpeg_of,
    unused_name,
    without_class,
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
            (answer,) = session.answer([image.encoded], quality=quality)
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
        return None if held is None else held.session.finish(held.answer, threshold)

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
