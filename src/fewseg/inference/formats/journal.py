"""A file of JSON lines that grows by one for each image and survives being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from fewseg.data.errors import DataError

_KEY = "name"


def parse(line: bytes, path: Path) -> dict[str, Any]:
    """Returns the JSON object of a line.

    Raises:
        DataError: it is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} has a broken line ({error}): remove the file and run again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a file of this kind: choose another output, or remove it")
    return value


def scan(file: IO[bytes], path: Path) -> tuple[dict[str, Any] | None, dict[str, int], int]:
    """Reads a journal once.

    Returns:
        The first line, or None; name -> place of its last line, in bytes; and where the last whole line ends.

    Raises:
        DataError: a whole line is broken.
    """
    first: dict[str, Any] | None = None
    places: dict[str, int] = {}
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        value = parse(line, path)
        if first is None:
            first = value
        else:
            places[str(value.get(_KEY))] = end
        end += len(line)
    return first, places, end


class Journal:
    """Appends a JSON object for each image; finds those that are there already.

    The first line says what the file is, so that a second run with other classes is refused. A last line that
    a killed run left half is cut off on opening, and one that does not fit on the disk is cut off at once. Of
    two lines of one name the last counts. Memory is a number for each name.

    Args:
        path: the file; made with its folder, or continued.
        header: JSON object of the first line.

    Raises:
        DataError: the file is there with another header, or is not such a file.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._open(dict(header))
        except BaseException:
            self._file.close()
            raise

    def _open(self, header: dict[str, object]) -> None:
        self._file.seek(0)
        found, self._places, end = scan(self._file, self.path)
        if found is not None and found != header:
            raise DataError(
                f"{self.path} was written with {found} and this run has {header}; accepted is the same: "
                "choose another output folder, or remove the file"
            )
        self._file.truncate(end)
        if found is None:
            self._append(header)

    def _append(self, value: Mapping[str, object]) -> int:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        place = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self._cut(place)
            raise OSError(
                error.errno,
                f"could not write {self.path}: {error.strerror}; what was written before is whole. Free "
                "some space and run again: it goes on from there",
            ) from error
        return place

    def _cut(self, place: int) -> None:
        """Ends the file at a place, past its buffer, which the failed line is still in."""
        with suppress(OSError):
            self._file.close()
        os.truncate(self.path, place)
        self._file = self.path.open("a+b")

    def add(self, name: str, value: Mapping[str, object]) -> None:
        """Appends an image's line.

        Raises:
            OSError: the disk is full; the file ends with the line before.
        """
        self._places[name] = self._append({_KEY: name, **value})

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Reads the lines that count one by one, in the order in which their names came first."""
        for place in list(self._places.values()):
            self._file.seek(place)
            yield parse(self._file.readline(), self.path)

    def close(self) -> None:
        """Brings the file to the disk and closes it."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
