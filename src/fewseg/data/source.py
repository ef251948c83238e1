"""What a set of labelled images is, and the base of those that lie in files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from fewseg.annotations.image_files import check_labels, image_size, read_mask, read_rgb
from fewseg.types import IGNORE, DataError

T = TypeVar("T")


@runtime_checkable
class Source(Protocol):
    """A set of images whose every pixel has a class; plain attributes will do for the properties."""

    @property
    def name(self) -> str:
        """What messages and results call the set."""
        ...

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class id -> name; ids are 1..254, and 256..65535 where there are more."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """The images, in list order, without repeats."""
        ...

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns (H, W), after checking that the image can be read; a full read is not needed."""
        ...

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, as a viewer shows it (EXIF orientation applied)."""
        ...

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W): 0 background, class ids, 255 ignore; uint8, or int32 where ids exceed 254."""
        ...

    def digest(self) -> str:
        """Returns a key that changes when the set does."""
        ...


def known(source: Source, values: Mapping[str, T], id: str) -> T:
    """Returns what a source holds of an image."""
    if id not in values:
        raise DataError(
            f"{source.name} has no image {id!r}: it holds {len(source.ids)}, like {source.ids[:3]}"
        )
    return values[id]


def read_lines(path: Path, what: str, advice: str) -> list[str]:
    """The lines of a text file; errors call it ``what`` and give the advice."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} cannot be read ({error}): {advice}") from error


@dataclass(frozen=True)
class ImagePair:
    """An image file and the file of its mask."""

    image: Path
    mask: Path


class FileSource:
    """A source whose images and masks lie in files; masks hold class ids."""

    def __init__(
        self, name: str, root: Path, pairs: Mapping[str, ImagePair], class_names: Mapping[int, str]
    ) -> None:
        self.name = name
        self.root = root
        self.pairs = dict(pairs)
        self.class_names = dict(class_names)
        self.ids = tuple(self.pairs)

    def __len__(self) -> int:
        return len(self.ids)

    def pair(self, id: str) -> ImagePair:
        """Returns the files of an image."""
        return known(self, self.pairs, id)

    def image_size(self, id: str) -> tuple[int, int]:
        """Returns the oriented (H, W) of an image after checking that its file is complete."""
        return image_size(self.pair(id).image)

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB, EXIF orientation applied."""
        return read_rgb(self.pair(id).image)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, class ids, 255."""
        path = self.pair(id).mask
        labels = read_mask(path)
        check_labels(labels, self.class_names, str(path))
        return labels

    def digest(self) -> str:
        """Returns a SHA-256 of ids, classes, relative paths, file sizes and modification times."""
        sha = hashlib.sha256(repr((self.name, sorted(self.class_names.items()))).encode())
        for id, pair in self.pairs.items():
            for path in (pair.image, pair.mask):
                stat = path.stat() if path.exists() else None
                where = path.relative_to(self.root) if path.is_relative_to(self.root) else path
                facts = (stat.st_size, stat.st_mtime_ns) if stat else None
                sha.update(repr((id, where.as_posix(), facts)).encode())
        return sha.hexdigest()


class RelabelledSource:
    """A source whose classes have other ids and names."""

    def __init__(self, source: Source, mapping: Mapping[int, int], class_names: Mapping[int, str]) -> None:
        ids = set(mapping.values())
        if set(source.class_names) != set(mapping) or len(ids) != len(mapping) or not ids <= set(class_names):
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
        """Returns (H, W)."""
        return self._source.image_size(id)

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


class JoinedSource:
    """Several sources as one; an image that is in more than one is read from the first."""

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
        """Returns (H, W)."""
        return self._part[id].image_size(id)

    def read_image(self, id: str) -> Tensor:
        """Returns (3, H, W) uint8 RGB."""
        return self._part[id].read_image(id)

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0 background, class ids, 255 ignore."""
        return self._part[id].read_labels(id)

    def digest(self) -> str:
        """Returns a key that changes when one of the parts does."""
        return hashlib.sha256(" ".join(self._digests).encode()).hexdigest()
