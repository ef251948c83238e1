"""Finds images to label; imports no torch, so that the command line reports mistakes at once."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from fewseg.annotations.options import IMAGE_SUFFIXES, image_files, is_image, is_image_name
from fewseg.errors import DataError
from fewseg.ops.parquet import LONGEST, parquet_errors, parquet_file, texts
from fewseg.ops.places import as_url, has_pattern, is_remote, opened, store_errors

_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".jp2")
"""Suffixes of images; files that this machine cannot read are reported rather than left out."""

_ROWS = 2**16  # of a list that are in memory at once


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

Named = list[tuple[Place, str]]
"""Files and their names."""


def find_everywhere(places: Sequence[str], leave_out: str | Path | None = None) -> Mapping[str, Place]:
    """Finds images in local places, as :func:`find_images`, and in all places that fsspec can open.

    Args:
        places: also ``s3://bucket/photos``, archives (``photos.zip``), and lists: a ``.parquet`` with a
            column ``path`` of files or URLs and, where wanted, ``name``.
        leave_out: a folder of any kind whose files are left out.

    Returns:
        Name to place, sorted by name; names are relative to the common folder of all files. A file that
        several places lead to is there once.

    Raises:
        DataError: a place does not exist, a list is broken, two images have one name or one has two, or
            there is no image at all.
        OSError: a place cannot be reached.
    """
    out = None if leave_out is None else as_url(leave_out)
    if not any(is_remote(place) or place.endswith((".zip", ".parquet")) for place in places):
        folder = None if out is None or is_remote(out) else Path(out)
        return {name: ("file://", os.path.abspath(f)) for name, f in find_images(places, folder).items()}
    listed = [_listed(place) for place in places]
    common = posixpath.commonpath([root for root, files in listed if files] or [""])
    names: dict[tuple[str, str], str] = {}  # of a path in a store
    images: dict[str, Place] = {}
    for given, (root, files) in zip(places, listed, strict=True):
        for (place, path), below in files:
            store = _store(place)
            if out is not None and store == _store(out) and path.startswith(f"{opened(out)[1]}/"):
                continue
            name = posixpath.join(root[len(common) :].strip("/"), below)
            if (other := names.setdefault((store, path), name)) != name:
                raise DataError(f"{given}: {path} is given twice, as {other} and as {name}: give it once")
            images.setdefault(name, (place, path))
            if len(images) < len(names):
                raise DataError(
                    f"{given}: two images have the name {name}: label them in two runs, or rename one of them"
                )
    if not images:
        raise DataError(f"{', '.join(places)}: found no images there ({', '.join(IMAGE_SUFFIXES)})")
    return dict(sorted(images.items()))


def _store(place: str) -> str:
    """The store that a place is in; of fsspec, file systems of two threads are never equal."""
    fs, _ = opened(place)
    return repr((type(fs), fs.storage_args, fs.storage_options))


def _listed(place: str) -> tuple[str, Named]:
    """A place's folder, and its images by their names in it."""
    if not is_remote(place) and (os.path.isdir(place) or not place.endswith((".zip", ".parquet"))):
        folder, files = _files_of(place)
        local = [("file://", os.path.abspath(path)) for path in (folder, *files)]
        return _named(local[1:], local[0])
    place = as_url(place) if is_remote(place) else os.path.abspath(place)
    wanted = "give folders, patterns, files, archives (.zip), lists (.parquet) or URLs (s3://bucket/photos)"
    if is_remote(place) and "::" in place:
        raise DataError(f"{place} must be one place, without '::': {wanted}")
    try:
        if place.endswith(".parquet"):
            return _of_list(place)
        fs, path = opened(place)
        with store_errors(place):
            fs.invalidate_cache()
            pattern = has_pattern(path) and not fs.exists(path)
            paths = fs.glob(path) if pattern else fs.find(path)
    except FileNotFoundError as error:
        raise DataError(f"{place} does not exist: {wanted}") from error
    base = posixpath.dirname(path) if paths == [path] else path
    if pattern:
        base = "/".join(takewhile(lambda part: not has_pattern(part), path.split("/")))
    root, found = _named([(place, str(path)) for path in paths], (place, base))
    return root, [(file, name) for file, name in found if is_image_name(PurePosixPath(name), _SUFFIXES)]


def _named(files: Sequence[Place], folder: Place | None = None) -> tuple[str, Named]:
    """A folder, that of all files by default, and the files by their names in it."""
    keys = [_key(*file) for file in files]
    root = _key(*folder) if folder else posixpath.commonpath(list(map(posixpath.dirname, keys)) or [""])
    return root, [(file, key[len(root) :].lstrip("/")) for file, key in zip(files, keys, strict=True)]


def _key(place: str, path: str) -> str:
    """Where a file is, as one path that begins with the kind of its store."""
    fs, _ = opened(place)
    kind = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    if place.endswith(".zip"):
        kind = place if is_remote(place) else f"file/{place}"
    return "/".join(part for part in f"{kind}/{path}".replace("://", "/").split("/") if part)


def _of_list(place: str) -> tuple[str, Named]:
    """As :func:`_listed`, for the columns ``path`` and, optionally, ``name`` of a Parquet file."""
    names: dict[Place, str | None] = {}
    for row, given in enumerate(_rows(place), 1):
        shown = ", ".join(str(text)[:80] for text in given)
        whole = all(text and len(text) <= LONGEST for text in given)
        if not whole or (is_remote(given[0]) and "::" in given[0]):
            raise DataError(
                f"{place}, row {row} must have the path of a file or a URL, without '::', and a name where "
                f"there are names, of up to {LONGEST} characters, got {shown}: correct it or remove the row"
            )
        try:
            file, name = _place_beside(place, given[0]), given[1] if len(given) > 1 else None
        except OSError as error:  # a store of an unknown kind, say
            raise DataError(f"{place}, row {row}: {error}") from error
        if (other := names.setdefault(file, name)) != name:
            raise DataError(f"{place}, row {row} gives {shown}, which is {other} too: give each image once")
    root, found = _named(list(names))
    return root, [(file, names[file] or name) for file, name in found]


def _place_beside(place: str, path: str) -> Place:
    """A file or URL that may be relative to the folder of a place."""
    path = as_url(path if is_remote(path) else posixpath.join(posixpath.dirname(place), path))
    if not is_remote(path):
        return "file://", os.path.abspath(path)
    store = "/".join(path.split("/")[:3])
    return store, str(opened(store)[0]._strip_protocol(path))


def _rows(place: str) -> Iterator[tuple[str, ...]]:
    """The rows of a list, by its path and, where there is one, its name."""
    fs, path = opened(place)
    with store_errors(place):
        content = fs.cat_file(path)
    give = "give a Parquet file with a column 'path' of files or URLs, as texts"
    with parquet_errors(f"{place} is not a list of images", give):
        file = parquet_file(content)
        columns = [name for name in ("path", "name") if name == "path" or name in file.schema_arrow.names]
        for batch in file.iter_batches(_ROWS, columns=columns):
            yield from zip(*(texts(batch[name]) for name in columns), strict=True)
