"""Finding images to label; free of torch, so that a command line finds a mistake at once."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from fewseg.annotations.options import IMAGE_SUFFIXES, image_files, is_image
from fewseg.errors import DataError

_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".jp2")
"""Of images; one that this machine cannot read is reported, where leaving it out would pass unnoticed."""


def find_images(places: Sequence[str | Path], leave_out: Path | None = None) -> Mapping[str, Path]:
    """Finds images to label.

    Args:
        places: folders (all images below them), patterns such as ``photos/**/*.jpg``, or files.
        leave_out: a folder whose files are none of them: that of the outputs, which may lie below.

    Returns:
        Name to file, by name. A name is the path relative to the folder that all files have in common, with
        forward slashes, so that the same file name in two folders is two names.

    Raises:
        DataError: a place does not exist, or there is no image at all.
    """
    if not places:
        raise DataError("no images are given: name a folder, a pattern or files")
    roots: list[Path] = []
    files: dict[Path, None] = {}
    for place in map(str, places):
        root, found = _files_of(place)
        roots.append(root)
        files.update(dict.fromkeys(f for f in found if not _below(f, leave_out)))
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
