"""What the readers give and the writers take."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from fewseg.types import IGNORE, DataError

Mask = NDArray[np.uint8]
"""(H, W) uint8: 0 background, 1 foreground, 255 ignore or unknown."""

MAX_CLASSES = 254
"""Classes of an 8-bit index map: 0 is background and 255 unknown."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image with the masks of the classes that were annotated on it.

    Attributes:
        image: its file.
        size: (H, W) as a viewer shows it (EXIF orientation applied).
        masks: class name -> (H, W) uint8 in {0, 1, 255}. A negative (an image without the thing) has an empty
            mapping or a mask without a 1.
        weak: the classes whose mask comes, in part, from rectangles, ellipses' boxes or scribbles.
    """

    image: Path
    size: tuple[int, int]
    masks: Mapping[str, Mask]
    weak: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Problem:
    """An image, or an annotation file of one image, that cannot be used.

    Attributes:
        where: the file, or the image's name in its annotation file.
        error: what is wrong and what to do.
    """

    where: str
    error: DataError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A segmented image, on its way to a file.

    Attributes:
        name: the image's name relative to the folder of images, with forward slashes: ``a/b.jpg``. It is the
            key by which writers know what is done.
        labels: (H, W) uint8: 0 background, j = 1 .. N the classes in order, 255 unknown.
        classes: the N names.
        scores: one number in [0, 1] for each class.
        probability: (N, H, W), float in [0, 1] or uint8 where 255 is 1; None where it was not kept.
        facts: further JSON values of the image (quality and its parts), kept by the formats that have a
            place.
        settled: a person drew or accepted the labels.

    Raises:
        ValueError: sizes, counts or ranges do not fit, or the name is absolute or leaves the folder.
    """

    name: str
    labels: Mask
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    probability: NDArray[np.uint8] | NDArray[np.floating] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    settled: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        check_classes(self.classes)
        n = len(self.classes)
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8 or 0 in self.labels.shape:
            raise ValueError(
                f"labels of {self.name!r} are {self.labels.dtype} {self.labels.shape}; accepted is uint8 "
                "(H, W): convert them"
            )
        used = np.flatnonzero(np.bincount(self.labels.ravel(), minlength=256)[1:255]) + 1
        if used.size and used[-1] > n:
            raise ValueError(
                f"labels of {self.name!r} hold {used[-1]}; accepted are 0 .. {n} and 255: name the classes"
            )
        if len(self.scores) != n or not all(0 <= s <= 1 for s in self.scores):
            raise ValueError(
                f"scores of {self.name!r} are {self.scores}; accepted are {n} numbers in [0, 1], one a class"
            )
        if self.probability is not None and self.probability.shape != (n, *self.size):
            raise ValueError(
                f"probability of {self.name!r} has shape {self.probability.shape}; accepted is "
                f"{(n, *self.size)}: one map a class at the image's size"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    @property
    def unknown(self) -> Mask:
        """(H, W) uint8 in {0, 1}: where it is not known what there is."""
        mask: Mask = (self.labels == IGNORE).astype(np.uint8)
        return mask

    def mask(self, j: int) -> Mask:
        """Returns (H, W) uint8 in {0, 1}, contiguous: where class j = 1 .. N is."""
        mask: Mask = (self.labels == j).astype(np.uint8)
        return mask


def check_classes(classes: tuple[str, ...]) -> None:
    """Checks a list of class names.

    Raises:
        ValueError: none, more than 254, an empty one, one that is no text, or one twice.
    """
    named = all(isinstance(name, str) and name for name in classes)
    if not 1 <= len(classes) <= MAX_CLASSES or not named or len(set(classes)) != len(classes):
        raise ValueError(
            f"classes are {list(classes[:8])} ({len(classes)}); accepted are 1 .. {MAX_CLASSES} different "
            "names, texts that are not empty: rename or part them"
        )


def check_name(name: str) -> None:
    """Checks that an image's name is relative, in clean form, and stays in its folder.

    Raises:
        ValueError: it does not.
    """
    path = PurePosixPath(name)
    clean = name == path.as_posix() and not path.is_absolute() and path.parts
    if not clean or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(
            f"the image name {name!r} is not accepted: give a path relative to the folder of images with "
            "forward slashes and without '..'"
        )


T = TypeVar("T")

_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true/false",
}


def load_json(path: Path) -> Any:
    """Returns the value in a JSON file (UTF-8, with or without a byte-order mark).

    Raises:
        DataError: the file is missing, empty, not text, not JSON, or nested too deeply.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): check the path and its rights"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error}); accepted is JSON in UTF-8: export it again"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty; accepted is JSON: export it again")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file: export it again") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); is it cut off? Export it again") from error


def json_field(value: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    """Returns ``value[key]`` after checking its type.

    Raises:
        DataError: the key is missing or its value of another type.
    """
    if key not in value:
        raise DataError(f"{where} has no {key!r}; accepted there is {_KINDS[kind]}: export the file again")
    return typed(value[key], kind, f"{where}: {key!r}")


def typed(value: object, kind: type[T], what: str) -> T:
    """Returns the value after checking its type; a bool is no whole number.

    Raises:
        DataError: it is of another type.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            f"{what} is {shown(value)}; accepted is {_KINDS[kind]}: correct it or export the file again"
        )
    return value


def size_field(value: Mapping[str, Any], height: str, width: str, where: str) -> tuple[int, int]:
    """Returns (H, W) of two positive whole numbers.

    Raises:
        DataError: one is missing or not a positive whole number.
    """
    sides = []
    for key in (height, width):
        side = number(value[key], f"{where}: {key!r}") if key in value else json_field(value, key, int, where)
        if side < 1 or side != int(side):
            raise DataError(
                f"{where}: {key!r} is {shown(value[key])}; accepted are whole numbers of pixels from 1 on"
            )
        sides.append(int(side))
    return sides[0], sides[1]


def number(value: object, what: str) -> float:
    """Returns a finite number as a float.

    Raises:
        DataError: it is none.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise DataError(
        f"{what} is {shown(value)}; accepted is a finite number: correct it or export the file again"
    )


def points_of(value: object, what: str) -> list[tuple[float, float]]:
    """Returns the (x, y) of a list of pairs.

    Raises:
        DataError: it is not a list of pairs of finite numbers.
    """
    found = []
    for k, pair in enumerate(typed(value, list, what)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(
                f"{what}: point {k} is {shown(pair)}; accepted are pairs [x, y]: export the file again"
            )
        found.append((number(pair[0], f"{what}: x of point {k}"), number(pair[1], f"{what}: y of point {k}")))
    return found


def shown(value: object) -> str:
    """Returns a value as a short piece of one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts one before an uploaded file's name
_SAFE = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]|^\.|[. ]$')


class ImageFinder:
    """Finds the files of image names.

    A name may be a relative path, an absolute one, one with backslashes, a URL, or Label Studio's
    ``/data/local-files/?d=<path>`` and ``/data/upload/<n>/<8 hex digits>-<name>``. Tried in turn, in each
    folder: the path as written where it is relative and has no ``..``; then its last part alone. What a name
        says is never
    followed out of the folders (links that lie in them are: whoever put them there chose so).

    Two different names that come down to one file are an error: the same name in two folders is two images.

    Args:
        folders: where to look, in order; those that do not exist are left out.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [f for f in dict.fromkeys(folders) if f.is_dir()]
        self._named: dict[Path, str] = {}

    @staticmethod
    def beside(annotations: Path, images: Path | None) -> ImageFinder:
        """Returns a finder for an annotation file.

        It looks in ``images``, or by default in the file's folder, ``images`` in it and ``images`` beside it.

        Raises:
            DataError: ``images`` is given and is no folder.
        """
        if images is not None:
            if not images.is_dir():
                raise DataError(
                    f"the folder of images {images} does not exist: give the folder that holds the images"
                )
            return ImageFinder([images])
        home = annotations if annotations.is_dir() else annotations.parent
        return ImageFinder([home, home / "images", home.parent / "images"])

    def find(self, name: str, where: str) -> Path:
        """Returns the file of an image name.

        Args:
            name: as the annotation file gives it.
            where: what errors call the place of the name.

        Raises:
            DataError: there is no such file in the folders, or another name led to the same file.
        """
        for parts in _candidates(name):
            for folder in self.folders:
                path = folder.joinpath(*parts)
                if not _is_file(path):
                    continue
                earlier = self._named.setdefault(path, name)
                if PurePosixPath(earlier) != PurePosixPath(name):
                    raise DataError(
                        f"{where}: {shown(name)} and {shown(earlier)} both come down to {path}; accepted is "
                        "a file for each: keep their folders in the folder of images"
                    )
                return path
        places = ", ".join(str(f) for f in self.folders) or "no folder"
        raise DataError(
            f"{where}: the image {shown(name)} is not in {places}: put it there, or give the folder of images"
        )


def _candidates(name: str) -> list[tuple[str, ...]]:
    """Returns relative paths that a name may stand for, none of which leaves a folder."""
    texts = [name]
    url = urlsplit(name) if "/" in name and "\0" not in name and "[" not in name else None
    if url is not None and (url.scheme in ("http", "https", "s3", "gs", "file", "azure-blob") or url.query):
        texts = [unquote(t) for t in (*parse_qs(url.query).get("d", []), url.path)]
    elif "%" in name:
        texts.append(unquote(name))
    found: list[tuple[str, ...]] = []
    for text in texts:
        slashed = text.replace("\\", "/")
        path = PurePosixPath(slashed)
        drive = re.match(r"^[A-Za-z]:", slashed)
        if not path.is_absolute() and not drive and ".." not in path.parts:
            found.append(path.parts)
        found.append(path.parts[-1:])
        if path.parts and _UPLOAD_PREFIX.match(path.parts[-1]):
            found.append((_UPLOAD_PREFIX.sub("", path.parts[-1]),))
    clean = (
        p for p in found if p and not {"..", "/", "\\", "."} & set(p) and not any("\0" in part for part in p)
    )
    return list(dict.fromkeys(clean))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system
        return False


def output_stems(names: Iterable[str]) -> Mapping[str, str]:
    """Returns image name -> name of its outputs without a suffix, no two alike.

    ``a/x.jpg`` becomes ``a/x``; where ``a/x.png`` is there too, both keep their suffix: ``a/x.jpg`` and
    ``a/x.png``. Case does not count, for the file systems where it does not.
    """
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    while True:
        owners = Counter(stem.casefold() for stem in stems.values())
        alike = [name for name, stem in stems.items() if owners[stem.casefold()] > 1 and stem != name]
        if not alike:
            return stems
        stems.update({name: name for name in alike})


def file_safe(text: str) -> str:
    """Returns a text as a part of a file name: what file systems refuse becomes ``%`` and two hex digits."""
    return _SAFE.sub(lambda found: f"%{ord(found[0]):02X}", text)
