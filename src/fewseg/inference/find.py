"""Finds images to label; imports no torch, so that the command line reports mistakes at once."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import takewhile
from pathlib import Path, PurePosixPath

from fewseg.annotations.options import IMAGE_SUFFIXES, image_files, is_image, is_image_name
from fewseg.errors import DataError, first_line
from fewseg.ops.places import (
    files_below,
    has_pattern,
    is_local,
    is_remote,
    opened,
    store_errors,
)

_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".jp2")
"""Suffixes of images; files that this machine cannot read are reported rather than left out."""


def find_images(places: Sequence[str | Path], leave_out: Path | None = None) -> Mapping[str, Path]:
    """Finds images to label.

    Args:
        places: folders (all images below them), patterns such as ``photos/**/*.jpg``, or files.
        leave_out: a folder whose files are left out, such as that of the outputs.

    Returns:
        Name to file, sorted by name. A name is the path relative to the common folder of all files, with
        forward slashes.

    Raises:
        DataError: a place does not exist, or there is no image at all.
    """
    if not places:
        raise DataError("no images are given: name a folder, a pattern or files")
    roots: list[Path] = []
    files: dict[Path, None] = {}
    for place in map(str, places):
        root, paths = _files_of(place)
        roots.append(root)
        files.update(dict.fromkeys(path for path in paths if not _below(path, leave_out)))
    if not files:
        raise DataError(
            f"{', '.join(map(str, places))}: found no images there (files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}): give their folder"
        )
    common = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    names = {Path(os.path.abspath(file)).relative_to(common).as_posix(): file for file in files}
    return dict(sorted(names.items()))


def _files_of(place: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files."""
    if not place.strip():
        raise DataError("an empty place is given: name a folder, a pattern or files ('.' is this folder)")
    path = Path(place)
    if path.is_dir():
        return path, image_files(path, _SUFFIXES)
    if path.is_file():
        return path.parent, [path]
    if not glob.has_magic(place):
        raise DataError(f"{place} does not exist: give a folder of images, a pattern or files")
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    return fixed, [
        f for f in map(Path, sorted(glob.glob(place, recursive=True))) if is_image(f, fixed, _SUFFIXES)
    ]


def _below(file: Path, folder: Path | None) -> bool:
    return folder is not None and Path(os.path.abspath(folder)) in Path(os.path.abspath(file)).parents


Place = tuple[str, str]
"""A place that fsspec opens, and the path of a file in it."""


def find_everywhere(places: Sequence[str], leave_out: Path | None = None) -> Mapping[str, Place]:
    """Finds images in local places, as :func:`find_images`, and in all places that fsspec can open.

    Args:
        places: also ``s3://bucket/photos``, archives (``photos.zip``), and lists: a ``.parquet`` with a
            column ``path`` of files or URLs and, where wanted, ``name``.
        leave_out: a local folder whose files are left out.

    Returns:
        Name to place, sorted by name; names are relative to the common folder of all files.

    Raises:
        DataError: there is no image at all, or two images have one name.
        OSError: a place cannot be reached.
    """
    if not any(is_remote(place) or place.endswith((".zip", ".parquet")) for place in places):
        return {name: ("file://", os.path.abspath(f)) for name, f in find_images(places, leave_out).items()}
    listed = [_listed(place if is_remote(place) else os.path.abspath(place)) for place in places]
    common = posixpath.commonpath([root for root, _ in listed])
    images: dict[str, Place] = {}
    for root, files in listed:
        for name, file in files.items():
            full = posixpath.join(root[len(common) :].strip("/"), name)
            if images.setdefault(full, file) != file:
                raise DataError(
                    f"two images have the name {full}: label them in two runs, or rename one of them"
                )
    if not images:
        raise DataError(f"{', '.join(places)}: found no images there ({', '.join(IMAGE_SUFFIXES)})")
    return dict(sorted(images.items()))


def _listed(place: str) -> tuple[str, dict[str, Place]]:
    """A place's folder, and its images by their names in it."""
    if place.endswith(".parquet"):
        return _of_list(place)
    fs, path = opened(place)
    files = files_below(place)
    plain = "/".join(takewhile(lambda part: not has_pattern(part), path.split("/")))
    base = posixpath.dirname(path) if files == [path] else plain
    names = {file[len(base) :].lstrip("/"): (place, file) for file in files}
    kind = place if place.endswith(".zip") else fs.protocol[0] if is_local(fs) else fs.protocol
    images = {name: file for name, file in names.items() if is_image_name(PurePosixPath(name), _SUFFIXES)}
    return f"{kind}/{base.lstrip('/')}", images


def _of_list(place: str) -> tuple[str, dict[str, Place]]:
    """As :func:`_listed`, for the columns ``path`` and, optionally, ``name`` of a Parquet file."""
    from pyarrow import ArrowException, parquet

    fs, path = opened(place)
    with store_errors(place):
        content = fs.cat_file(path)
    try:
        columns = parquet.read_table(BytesIO(content)).to_pydict()
        paths = list(map(str, columns["path"]))
    except (ArrowException, KeyError, TypeError) as error:
        raise DataError(
            f"{place} is not a list of images ({first_line(error)}): give a Parquet file with a column "
            "'path' of files or URLs"
        ) from error
    files = []
    for file in paths:
        if "::" in file:
            raise DataError(f"{place} lists {file}: give plain files and URLs")
        if is_remote(file):
            files.append((file[: file.index("://") + 3], file[file.index("://") + 3 :]))
        else:
            files.append(("file://", os.path.abspath(os.path.join(os.path.dirname(path), file))))
    full = [f"{root.removesuffix('://')}/{file.lstrip('/')}" for root, file in files]
    base = posixpath.commonpath([posixpath.dirname(file) for file in full]) if full else ""
    names = columns.get("name") or [file[len(base) :].lstrip("/") for file in full]
    if len(set(names)) < len(set(files)):
        raise DataError(f"{place} has one name for two images: give each image a different name")
    return base, dict(zip(map(str, names), files, strict=True))
