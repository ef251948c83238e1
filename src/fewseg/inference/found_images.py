"""The images of a folder, a pattern or a list, and the names their outputs go by."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fewseg.data.errors import DataError
from fewseg.data.image_files import IMAGE_SUFFIXES
from fewseg.inference.formats.image_names import file_safe, output_stems
from fewseg.inference.formats.values import check_name

_MAGIC = "*?["
_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".jp2")
"""Of images; one that this machine cannot read is reported, where leaving it out would pass unnoticed."""
_LONGEST = 255  # bytes of a file's name in nearly all file systems


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
            f"{', '.join(map(str, places))}: no images there; accepted are files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}: give their folder"
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
        return path, [f for f in sorted(path.rglob("*")) if _is_image(f, path)]
    if path.is_file():
        return path.parent, [path]
    fixed = Path(*_before_magic(path))
    if not any(c in place for c in _MAGIC):
        raise DataError(f"{place} does not exist: give a folder of images, a pattern or files")
    found = [Path(f) for f in sorted(glob.glob(place, recursive=True))]
    return fixed, [f for f in found if _is_image(f, fixed)]


def _below(file: Path, folder: Path | None) -> bool:
    return folder is not None and Path(os.path.abspath(folder)) in Path(os.path.abspath(file)).parents


def _before_magic(path: Path) -> list[str]:
    parts = []
    for part in path.parts[:-1]:
        if any(c in part for c in _MAGIC):
            break
        parts.append(part)
    return parts or ["."]


def _is_image(file: Path, root: Path) -> bool:
    """An image by its suffix, a broken link too; not hidden and in no hidden folder below the root."""
    try:
        parts = file.relative_to(root).parts
    except ValueError:
        parts = (file.name,)
    hidden = any(part.startswith(".") for part in parts)
    return file.suffix.lower() in _SUFFIXES and not hidden and (file.is_file() or not file.exists())


def wrong_names(names: Collection[str], ending: int) -> Mapping[str, str]:
    """Finds image names that outputs cannot have.

    Args:
        names: of images.
        ending: bytes of the longest ending that an output puts in the place of the suffix.

    Returns:
        Name to what is wrong with it.
    """
    wrong, stems = {}, output_stems(names)
    for name in names:
        try:
            name.encode()
            check_name(name)
            *folders, last = (len(file_safe(part).encode()) for part in stems[name].split("/"))
            length = max(*folders, last + ending, 0)
            if length > _LONGEST:
                wrong[name] = (
                    f"the file name {name!r} makes an output's name of {length} bytes; accepted are "
                    f"{_LONGEST}: rename the file"
                )
        except UnicodeEncodeError:
            wrong[name] = f"the file name {name!a} is no UTF-8; accepted is UTF-8: rename the file"
        except ValueError as error:
            wrong[name] = str(error)
    return wrong
