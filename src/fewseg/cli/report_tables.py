"""``fewseg report tables``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console


def tables(arguments: Sequence[str], console: Console) -> int | None:
    """Makes the tables."""
    raise NotImplementedError
