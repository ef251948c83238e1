"""Names of images: the files that they lead to, and the files that outputs get."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from fewseg.annotations.json_values import shown
from fewseg.annotations.options import IMAGE_SUFFIXES
from fewseg.types import DataError

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts one before an uploaded file's name
_SAFE = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]|^\.|[. ]$')


class ImageFinder:
    """Finds the files of image names (paths, URLs, Label Studio's), never outside its folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [f for f in dict.fromkeys(folders) if f.is_dir()]
        self._named: dict[Path, str] = {}

    @staticmethod
    def beside(annotations: Path, images: Path | None) -> ImageFinder:
        """Looks in ``images``, or else in the annotations' folder and ``images`` in and beside it."""
        if images is not None:
            if not images.is_dir():
                raise DataError(
                    f"the folder of images {images} does not exist: give the folder that holds the images"
                )
            return ImageFinder([images])
        home = annotations if annotations.is_dir() else annotations.parent
        return ImageFinder([home, home / "images", home.parent / "images"])

    def find(self, name: str, where: str) -> Path:
        """Returns the file of an image name."""
        for parts in _candidates(name):
            for folder in self.folders:
                path = folder.joinpath(*parts)
                if not _is_file(path):
                    continue
                earlier = self._named.setdefault(path, name)
                if PurePosixPath(earlier) != PurePosixPath(name):
                    raise DataError(
                        f"{where}: {shown(name)} and {shown(earlier)} both lead to {path}: keep their "
                        "folders in the folder of images"
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
    paths: list[tuple[str, ...]] = []
    for text in texts:
        slashed = text.replace("\\", "/")
        path = PurePosixPath(slashed)
        drive = re.match(r"^[A-Za-z]:", slashed)
        if not path.is_absolute() and not drive:
            paths.append(path.parts)
        paths.append(path.parts[-1:])
        if path.parts and _UPLOAD_PREFIX.match(path.parts[-1]):
            paths.append((_UPLOAD_PREFIX.sub("", path.parts[-1]),))
    clean = (
        p for p in paths if p and not {"..", "/", "\\", "."} & set(p) and not any("\0" in part for part in p)
    )
    return list(dict.fromkeys(clean))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system
        return False


def image_of_stem(stem: Path, annotations: Path) -> Path:
    """Returns the image file of a path without its suffix; the annotations are for the error."""
    near = stem.parent.iterdir() if stem.parent.is_dir() else ()
    files = [f for f in near if f.name.removesuffix(f.suffix) == stem.name]
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
    if len(images) != 1:
        count = len(images) or "none"
        raise DataError(
            f"{annotations} must have one image of its name in {stem.parent}, got {count}: put it there, or "
            "give the folder of images"
        )
    return images[0]


def output_stems(names: Iterable[str]) -> Mapping[str, str]:
    """Returns image name -> name of its outputs, without a suffix where no other image has it (any case)."""
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    while True:
        owners = Counter(stem.casefold() for stem in stems.values())
        alike = [name for name, stem in stems.items() if owners[stem.casefold()] > 1 and stem != name]
        if not alike:
            return stems
        stems.update({name: name for name in alike})


def file_safe(text: str) -> str:
    """Returns a text as a part of a file name: what file systems refuse becomes ``%`` and two hex digits."""
    return _SAFE.sub(lambda match: f"%{ord(match[0]):02X}", text)
