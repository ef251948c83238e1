"""``fewseg data check``."""

from __future__ import annotations

from rich.console import Console

from fewseg.data.check import check as check_data
from fewseg.data.options import CheckOptions


def check(options: CheckOptions, console: Console) -> None:
    """Prints what a data set holds; raises a ValueError where it cannot be used."""
    lines = check_data(options)
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if any(line.startswith("WRONG") for line in lines):
        raise ValueError("the data set cannot be used: see the lines marked WRONG")
