"""Rows of arrays in the files of a folder: whole or absent, shared by processes, checked when read."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.engine.memory_rows import MemoryRows, Values
from fewseg.ops.files import atomic_write_text

try:
    import fcntl
except ImportError:  # Windows has no such lock: one process at a time there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

ROWS_VERSION = 2
"""Of how rows lie in files; a part of a store's key. 1: with sums that did not look at the order of bytes."""

_DONE, _SUMS, _KEY, _CLAIMS = "done.raw", "sums.raw", "key.json", "claims"


@dataclass(frozen=True)
class Column:
    """Shape and type of one row of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class RowFiles:
    """Columns of ``rows`` rows, one memory-mapped file a column, filled in any order.

    A row counts as there when all its columns are written. A killed process leaves no half rows behind;
    several processes may fill one folder at a time; a row that the disk has no room for stays in this
    process's memory; a row whose bytes changed on the disk is found by its sum and counts as missing again.

    Args:
        folder: exists; the caller sees to it that one process at a time makes an object for it.
        key: what the rows are of. A folder of another key is emptied, with a warning.
        columns: name -> row.
        rows: how many.
        memory: takes the rows that the disk does not.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, key: str, columns: Mapping[str, Column], rows: int, memory: MemoryRows
    ) -> None:
        self.folder, self.columns, self.rows = folder, dict(columns), rows
        self._memory = memory
        self._checked = np.zeros(rows, dtype=bool)
        files = {**self.columns, _DONE: Column((), np.dtype(np.uint8))}
        files[_SUMS] = Column((), np.dtype(np.uint64))
        if not self._fits(key, files):
            for name in [*files, _KEY]:  # another process may still read the old ones: new files, not emptied
                (folder / _file(name)).unlink(missing_ok=True)
        self._arrays = {name: self._open(name, column) for name, column in files.items()}
        (folder / _CLAIMS).touch()
        if not (folder / _KEY).exists():
            atomic_write_text(folder / _KEY, key)

    def _fits(self, key: str, files: Mapping[str, Column]) -> bool:
        """Whether the files in the folder are of this key and size."""
        known, paths = self.folder / _KEY, {name: self.folder / _file(name) for name in files}
        if not known.exists() and not any(path.exists() for path in paths.values()):
            return True
        wrong = [
            path.name
            for name, path in paths.items()
            if not path.exists() or path.stat().st_size != self.rows * files[name].row_bytes
        ]
        if not known.exists() or known.read_bytes() != key.encode():
            wrong.insert(0, _KEY)
        if wrong:
            logger.warning(
                "the feature cache %s is damaged or of something else (%s): it is made again",
                self.folder,
                ", ".join(wrong),
            )
        return not wrong

    def _open(self, name: str, column: Column) -> np.memmap[Any, np.dtype[Any]]:
        path, size = self.folder / _file(name), self.rows * column.row_bytes
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)  # a sparse file: rows that are not there take no space
        return np.memmap(path, dtype=column.dtype, mode="r", shape=(self.rows, *column.shape))

    def has(self, row: int) -> bool:
        """Whether a row is there."""
        return self._memory.has(row) or bool(self._arrays[_DONE][row])

    def read(self, name: str, rows: Sequence[int]) -> Values:
        """One column of rows that are there: (n, *shape).

        What is changed in it does not change the file. A single row is the file's own pages, mapped for as
        long as it is used: nothing is copied, and it takes no memory that the system could not have back.
        """
        memory = self._memory
        if len(rows) == 1 and not memory.has(rows[0]):
            return self._mapped(name, rows[0])
        found = [memory.cell(name, r) if memory.has(r) else self._arrays[name][r] for r in rows]
        copy = np.stack(found)
        _release(self._arrays[name])
        return copy

    def _mapped(self, name: str, row: int) -> Values:
        column = self.columns[name]
        path, start = self.folder / _file(name), row * column.row_bytes
        return np.memmap(path, dtype=column.dtype, mode="c", offset=start, shape=(1, *column.shape))

    def check(self, row: int) -> bool:
        """Whether a row that is there has the bytes that were written; looked at once by each object.

        One that has not, or that has no sum, counts as missing from then on, with a warning.
        """
        if self._checked[row] or self._memory.has(row):
            return True
        found = self._sum({name: self._arrays[name][row] for name in self.columns})
        self._checked[row] = int(self._arrays[_SUMS][row]) == found
        if self._checked[row]:
            return True
        logger.warning("row %d of the feature cache %s is damaged: it is made again", row, self.folder)
        self._write(_DONE, row, np.zeros((), np.uint8))
        return False

    def write(self, row: int, values: Mapping[str, Values]) -> None:
        """Writes a row, every column of it; on a full disk it stays in memory, with a warning."""
        columns = {name: np.ascontiguousarray(values[name]) for name in self.columns}
        try:
            for name, value in columns.items():
                self._write(name, row, value)
            self._write(_SUMS, row, np.array(self._sum(columns), np.uint64))
            self._write(_DONE, row, np.ones((), np.uint8))
        except OSError as error:
            self._memory.warn(
                f"the disk of the feature cache {self.folder} is full ({error}). Free some space or set "
                "FEWSEG_CACHE to a folder on another disk"
            )
            self._memory.write(row, columns)
        self._checked[row] = True

    def _write(self, name: str, row: int, value: Values) -> None:
        """Writes by system calls: a full disk is then an error and not the end of the process.

        Raises:
            OSError: the disk is full.
        """
        with (self.folder / _file(name)).open("r+b", buffering=0) as file:
            if os.pwrite(file.fileno(), value.data, row * value.nbytes) != value.nbytes:
                raise OSError(errno.ENOSPC, "no space left")

    def _sum(self, columns: Mapping[str, Values]) -> int:
        """The CRC-32 of a row's bytes, column after column, and bit 32, so that 0 says that there is none."""
        crc = 0
        for name in self.columns:
            crc = zlib.crc32(np.ascontiguousarray(columns[name]).data, crc)
        return 1 << 32 | crc

    @contextmanager
    def claimed(self, rows: Sequence[int], *, wait: bool = False) -> Iterator[list[int]]:
        """Rows of ``rows`` that nobody else is making, for the length of the block.

        Claims are locks of single bytes of a file, so that a killed process holds none.

        Args:
            rows: to be made.
            wait: for those that somebody else is making, until he has made them or is gone.
        """
        if fcntl is None:
            yield list(rows)
            return
        with (self.folder / _CLAIMS).open("a+b") as file:  # closing it gives all claims back
            mine = []
            for row in rows:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, row)
                    mine.append(row)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        raise
            yield mine


def _release(mapped: np.memmap[Any, np.dtype[Any]]) -> None:
    """Takes read pages out of the process's memory; the operating system still has them where it can."""
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _file(name: str) -> str:
    return name if name.endswith((".raw", ".json")) else f"{name}.raw"
