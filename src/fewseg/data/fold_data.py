"""The data of one fold: what a run trains on and what it is tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fewseg.data.folds import ClassSplit
from fewseg.data.index import Index
from fewseg.data.source import SizedSource, Source
from fewseg.types import DataError


class JoinedSource:
    """Several sources as one; an image that stands in more than one is read from the first.

    Lists of one data set overlap between folds: joined, they share features that are computed once.

    Args:
        name: what messages and results call the whole.
        parts: one source at least, all with the same classes.

    Raises:
        DataError: the parts name different classes.
    """

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        self.name = name
        self.class_names: Mapping[int, str] = parts[0].class_names
        for part in parts[1:]:
            if dict(part.class_names) != dict(self.class_names):
                raise DataError(
                    f"{part.name} and {parts[0].name} name different classes: they cannot be joined into "
                    f"{name}; give all of them one set of class names"
                )
        self._part = {id: part for part in reversed(parts) for id in part.ids}
        self.ids: tuple[str, ...] = tuple(dict.fromkeys(id for part in parts for id in part.ids))
        self._digests = [part.digest() for part in parts]

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns (H, W), without a full read where the part can tell."""
        part = self._part[id]
        if isinstance(part, SizedSource):
            return part.image_size(id)
        image = part.read_image(id)
        return int(image.shape[1]), int(image.shape[2])

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB."""
        return self._part[id].read_image(id)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0 background, class ids, 255 ignore."""
        return self._part[id].read_labels(id)

    def digest(self) -> str:
        """Returns a key that changes when one of the parts does."""
        return hashlib.sha256(" ".join(self._digests).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FoldData:
    """One fold of a data set.

    Attributes:
        dataset: its name in results.
        source: reads every image of both lists.
        split: base and novel classes.
        train: index of the training images.
        test: index of the test images.
    """

    dataset: str
    source: Source
    split: ClassSplit
    train: Index
    test: Index
