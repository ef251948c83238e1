"""``fewseg report site``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console


def site(arguments: Sequence[str], console: Console) -> int | None:
    """Makes the site."""
    raise NotImplementedError
