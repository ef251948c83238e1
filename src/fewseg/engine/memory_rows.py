"""Rows of arrays in the memory of one process: where a folder cannot hold them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Values = npt.NDArray[Any]


class MemoryRows:
    """Rows that stay in memory and are gone with the process; stands wherever ``RowFiles`` stands.

    Args:
        names: of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rows: dict[int, dict[str, Values]] = {}
        self._warned = False

    def warn(self, why: str) -> None:
        """Says once why rows stay in memory."""
        if not self._warned:
            logger.warning("features stay in memory and are made again next time: %s", why)
        self._warned = True

    def has(self, row: int) -> bool:
        """Whether a row is there."""
        return row in self._rows

    def cell(self, name: str, row: int) -> Values:
        """One column of one row that is there."""
        return self._rows[row][name]

    def read(self, name: str, rows: Sequence[int]) -> Values:
        """A copy of one column of rows that are there: (n, *shape)."""
        return np.stack([self._rows[row][name] for row in rows])

    def check(self, row: int) -> bool:
        """Whether a row that is there is as it was written: memory does not change by itself."""
        return row in self._rows

    def write(self, row: int, values: Mapping[str, Values]) -> None:
        """Keeps a copy of a row, every column of it."""
        self._rows[row] = {name: np.array(values[name]) for name in self.names}

    @contextmanager
    def claimed(self, rows: Sequence[int], *, wait: bool = False) -> Iterator[list[int]]:
        """All of ``rows``: no other process can make them for this one."""
        yield list(rows)
