"""Files at any place that fsspec knows: folders, object stores (``s3://``, ``gs://``), zip archives."""

from __future__ import annotations

import errno
import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewseg.errors import DataError, first_line
from fewseg.ops.files import atomic_write_bytes

_URL = re.compile(r"^([a-z][a-z0-9+.-]+):/(?=[^/])")


def as_url(place: str | Path) -> str:
    """A place as text; of a URL that was a Path, with the slash that Path takes away."""
    return _URL.sub(r"\1://", str(place))


def is_remote(place: str | Path) -> bool:
    """Whether a place is no path of this machine's file systems."""
    return "://" in as_url(place)


@lru_cache(maxsize=32)
def opened(place: str) -> tuple[Any, str]:
    """The file system of a place (of an archive ``.zip``, that within it) and the path there."""
    from fsspec.core import url_to_fs

    with store_errors(place):
        fs, path = url_to_fs(f"zip://::{place}" if place.endswith(".zip") else place)
        return fs, str(path)


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Makes an OSError of one line of whatever a store's client raises."""
    try:
        yield
    except (MemoryError, FileNotFoundError, DataError):
        raise
    except ImportError as error:
        raise OSError(f"{place}: {first_line(error)}") from error
    except Exception as error:  # each store's client has errors of its own
        advice = "check the path, its rights and that the file is whole"
        if is_remote(place) and not place.startswith("file:"):
            advice = "check the address, the network and the credentials, which all machines need"
        raise OSError(f"{place} cannot be reached ({first_line(error)}): {advice}") from error


def files_in(folder: str) -> list[str]:
    """The paths of what lies in a folder, by name; none where there is no such."""
    fs, path = opened(folder)
    with store_errors(folder):
        fs.invalidate_cache()
        try:
            return sorted(map(str, fs.ls(path, detail=False)))
        except FileNotFoundError:
            return []


def exists(folder: str, name: str) -> bool:
    """Whether there is a file in a folder."""
    fs, path = opened(folder)
    with store_errors(folder):
        return bool(fs.exists(posixpath.join(path, name)))


def has_pattern(path: str) -> bool:
    """Whether a path is a pattern."""
    return any(letter in path for letter in "*?[")


def read_bytes(place: str, path: str, most: int) -> bytes:
    """The first ``most`` bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        DataError: that file is broken, and others need not be.
        PermissionError: it may not be read; whether others may is not known.
        OSError: the place cannot be reached.
    """
    fs, _ = opened(place)
    refused: PermissionError | None = None
    with store_errors(path if is_local(fs) else place):
        try:
            content: bytes = fs.cat_file(path, start=0, end=most)
            return content
        except PermissionError as error:
            refused = error
        except Exception as error:
            if _of_one_file(fs.protocol == "zip", error):
                raise DataError(f"{path} of {place} cannot be read ({first_line(error)})") from error
            raise
    raise PermissionError(
        f"{path} of {place} cannot be read ({first_line(refused)}): check its rights and the credentials, "
        "which all machines need"
    ) from refused


BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""What ``zipfile`` raises of a broken archive; a RuntimeError of an encrypted file or an unknown method."""


def _of_one_file(packed: bool, error: Exception) -> bool:
    """Whether an error is of a file (``packed`` in an archive), rather than of the disk or the network."""
    if type(error) is OSError:  # bz2 has no number
        return error.errno in ((None, errno.EINVAL) if packed else (errno.ENAMETOOLONG, errno.ELOOP))
    kinds = (IsADirectoryError, NotADirectoryError, ValueError)
    return isinstance(error, (*kinds, *BROKEN_ARCHIVE) if packed else kinds)


def write_bytes(folder: str, name: str, content: bytes) -> None:
    """Writes a file in one step."""
    fs, path = opened(folder)
    target = posixpath.join(path, name)
    if is_local(fs):
        atomic_write_bytes(target, content)
        return
    try:
        with store_errors(folder):
            fs.pipe_file(target, content)
    except FileNotFoundError as error:
        raise OSError(f"could not write into {folder} ({first_line(error)}): is the bucket gone?") from error


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))
