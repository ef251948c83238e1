"""A source in the class ids of another: what makes two data sets speak of the same classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.data.source import SizedSource, Source
from fewseg.types import IGNORE


class RelabelledSource:
    """A source whose classes have other ids and names.

    Args:
        source: with class ids 1 .. 254.
        mapping: its class id -> the new one; every class has one, and no two the same.
        class_names: of the new ids; may name more.

    Raises:
        DataError: a class has no new id, two have the same, or a new id has no name.
    """

    def __init__(self, source: Source, mapping: Mapping[int, int], class_names: Mapping[int, str]) -> None:
        wrong = sorted(set(source.class_names) ^ set(mapping))
        if (
            wrong
            or len(set(mapping.values())) != len(mapping)
            or not set(mapping.values()) <= set(class_names)
        ):
            raise DataError(
                f"{source.name} cannot be relabelled: each of its classes {sorted(source.class_names)} needs "
                f"an id of its own out of {min(class_names)} .. {max(class_names)}; got {dict(mapping)}"
            )
        self.name = source.name
        self.class_names = dict(class_names)
        self.ids = tuple(source.ids)
        self._source, self._mapping = source, dict(mapping)
        self._table = torch.zeros(256, dtype=torch.uint8)
        self._table[IGNORE] = IGNORE
        for old, new in mapping.items():
            self._table[old] = new

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns (H, W), without a full read where the source can tell."""
        if isinstance(self._source, SizedSource):
            return self._source.image_size(id)
        image = self._source.read_image(id)
        return int(image.shape[1]), int(image.shape[2])

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB."""
        return self._source.read_image(id)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0 background, the new class ids, 255 ignore."""
        return self._table[self._source.read_labels(id).long()]

    def digest(self) -> str:
        """Returns a key that changes when the source or the mapping does."""
        facts = (self._source.digest(), sorted(self._mapping.items()), sorted(self.class_names.items()))
        return hashlib.sha256(repr(facts).encode()).hexdigest()
