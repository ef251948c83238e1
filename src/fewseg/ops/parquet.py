"""Parquet files of anyone: in memory they take what their size allows, and their errors are of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

from fewseg.errors import DataError, first_line

LONGEST = 8192  # characters of a path or a name
_MOST = 2**20  # values and bytes of a column that even a small file may have


@contextmanager
def parquet_errors(what: str, do: str) -> Iterator[None]:
    """Makes a DataError of whatever a broken file leads to: ``what`` it is not, and what to ``do``."""
    from pyarrow import ArrowException

    try:
        yield
    except DataError:
        raise
    except Exception as error:  # pyarrow raises whatever a broken file leads to
        if isinstance(error, MemoryError) and not isinstance(error, ArrowException):
            raise
        raise DataError(f"{what} ({first_line(error)}): {do}") from error


def parquet_file(content: bytes) -> Any:
    """A ParquetFile of these bytes, whose texts are read as dictionaries: equal ones are there once."""
    from pyarrow import parquet

    schema = parquet.ParquetFile(BytesIO(content)).schema
    return parquet.ParquetFile(BytesIO(content), read_dictionary=[column.path for column in schema])


class _Footer(BytesIO):
    """A file of which nothing can be read once its footer was."""

    ended = False

    def read(self, size: int | None = -1) -> bytes:
        if self.ended:
            raise _EndedError
        return super().read(size)


class _EndedError(Exception):
    """More than the footer is asked for."""


def check_size(content: bytes) -> None:
    """Raises an OSError where a footer is broken, a ValueError where its file unpacks to far too much."""
    from pyarrow import parquet

    footer, size = _Footer(content), len(content)
    file = parquet.ParquetFile(footer, pre_buffer=True)
    footer.ended = True
    with suppress(_EndedError):  # what RowGroupMetaData.column ends the process for is an error here
        next(file.iter_batches(), None)
    groups = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
    for k in range(file.metadata.num_columns):
        columns = [group.column(k) for group in groups]
        values, unpacked = sum(c.num_values for c in columns), sum(c.total_uncompressed_size for c in columns)
        if values > _MOST + 4 * size or unpacked > _MOST + 64 * size:
            name = columns[0].path_in_schema
            raise ValueError(f"its column {name} unpacks to {values} values of {unpacked} bytes")


def texts(column: Any) -> list[Any]:
    """The values of a column that was read as a dictionary: texts or None; equal ones are one object."""
    found: list[Any] = []
    for chunk in getattr(column, "chunks", [column]):
        words = getattr(chunk, "dictionary", None)
        if words is None or str(words.type) != "string":
            raise TypeError(f"a column that must hold texts holds {chunk.type}")
        chunk.validate(full=True)
        shared = [*words.to_pylist(), None]
        found += [shared[-1 if k is None else k] for k in chunk.indices.to_pylist()]
    return found
