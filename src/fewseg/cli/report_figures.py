"""``fewseg report figures``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console


def figures(arguments: Sequence[str], console: Console) -> int | None:
    """Makes the figures."""
    raise NotImplementedError
