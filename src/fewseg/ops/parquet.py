"""Parquet files of anyone: in memory they take what their size allows, and their errors are of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from fewseg.errors import DataError, first_line


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
