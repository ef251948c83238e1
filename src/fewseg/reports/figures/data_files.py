"""The numbers behind a picture, as files beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewseg.ops.files import atomic_write_text

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Writes rows as CSV, the columns in the order in which they first occur; what a row lacks stays empty.

    Raises:
        OSError: the file could not be written; an older one is still there.
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError(f"there is nothing to write into {path}: no row")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(path, text.getvalue())
    return path
