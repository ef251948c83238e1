"""The rendered set as a source of labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import PIL
import torch
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.data.errors import DataError
from fewseg.data.folds import ClassSplit, even_split
from fewseg.data.synthetic.scene import render
from fewseg.data.synthetic.shapes import FAMILIES
from fewseg.data.synthetic.stream import Stream

_VERSION = 1  # part of every key: a change of what is drawn is a change of this number

SYNTHETIC_CLASSES: Mapping[int, str] = {i + 1: name for i, name in enumerate(FAMILIES)}
"""Class id 1 .. 20 -> name, in alphabetical order within each fold's five."""


def synthetic_5i(fold: int) -> ClassSplit:
    """Returns the split of a fold: fold i tests classes 5i+1 .. 5i+5, as in PASCAL-5i.

    Raises:
        ValueError: the fold is not 0, 1, 2 or 3.
    """
    return even_split(SYNTHETIC_CLASSES, folds=4, fold=fold, name="synthetic-5i")


class SyntheticSource:
    """A few-shot set that is drawn, not stored: twenty classes of objects on cluttered grounds.

    Image i is a function of (split, seed, i) alone, and so is the scene when only the size changes. Its
    largest object is of class i modulo the number of classes, so every class is the subject of the same
    number of images (one more or less); the other objects are of any class of the set. Rendered images
    stay in memory.

    Args:
        images: how many.
        size: height and width, pixels.
        seed: another seed gives another set.
        classes: ids of the classes that are drawn; None draws all twenty. A training set of base classes
            only has never shown a novel class, not even as background, which is stricter than PASCAL-5i.
        split: "train" and "val" of one seed share no image.

    Raises:
        ValueError: no image, a size below 32, no class, or a class outside 1 .. 20.
    """

    def __init__(
        self,
        images: int,
        size: int,
        seed: int = 0,
        classes: Iterable[int] | None = None,
        split: Literal["train", "val"] = "train",
    ) -> None:
        pool = tuple(sorted(set(SYNTHETIC_CLASSES if classes is None else classes)))
        unknown = [c for c in pool if c not in SYNTHETIC_CLASSES]
        if images < 1 or size < 32 or not pool or unknown or split not in ("train", "val"):
            raise ValueError(
                f"a synthetic set needs one image or more, a size of 32 pixels or more, classes of 1..20 and "
                f"the split 'train' or 'val'; got {images} images, size {size}, classes {pool}, {split!r}"
            )
        self.name = f"synthetic-{split}"
        self.class_names: Mapping[int, str] = dict(SYNTHETIC_CLASSES)
        self.ids = tuple(f"{split}-{i:05d}" for i in range(images))
        self.size = size
        self.classes = pool
        self._key = ("synthetic", _VERSION, split, seed)
        self._position = {id: i for i, id in enumerate(self.ids)}
        self._rendered: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns (H, W) in pixels, the same for every image."""
        self._index(id)
        return self.size, self.size

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB.

        Raises:
            DataError: there is no such image.
        """
        return self._pair(id)[0]

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, class ids, and 255 on the pixels that an outline crosses.

        Raises:
            DataError: there is no such image.
        """
        return self._pair(id)[1]

    def digest(self) -> str:
        """Returns a SHA-256 of everything that the pictures depend on."""
        facts = (self._key, len(self.ids), self.size, self.classes, PIL.__version__)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _index(self, id: str) -> int:
        if id not in self._position:
            raise DataError(f"{self.name} has no image {id!r}: it holds {len(self.ids)}, like {self.ids[:3]}")
        return self._position[id]

    def _pair(self, id: str) -> tuple[Tensor, Tensor]:
        if id not in self._rendered:
            i = self._index(id)
            stream = Stream(Draws(*self._key, i).integer())
            picture, labels = render(stream, self.size, self.classes[i % len(self.classes)], self.classes)
            self._rendered[id] = (torch.from_numpy(picture), torch.from_numpy(labels))
        return self._rendered[id]
