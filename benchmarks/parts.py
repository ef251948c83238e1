"""Long campaigns in parts: a file with a line of JSON for each part that was done, and the sums of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def in_memory() -> str | None:
    """A folder for temporary files that no disk slows down; None, the default one, where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def lines_of(log: Path | None) -> list[dict[str, Any]]:
    """The parts that were done; a line that a kill cut off does not count."""
    if log is None or not log.exists():
        return []
    return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1] if line.endswith(b"}")]


def keep(log: Path | None, line: dict[str, Any]) -> None:
    """Prints what a part came to, and adds it to the file."""
    text = json.dumps(line)
    print(text, flush=True)
    if log is not None:
        cut = log.exists() and not log.read_bytes().endswith(b"\n")
        with log.open("a") as file:
            file.write("\n" * cut + text + "\n")
            file.flush()
            os.fsync(file.fileno())


def total(lines: Iterable[dict[str, Any]], most: tuple[str, ...] = ()) -> dict[str, Any]:
    """Sums the numbers of parts of one kind, but for ``most`` the largest; joins lists; texts are kept."""
    found: dict[str, Any] = {}
    for line in lines:
        for key, value in line.items():
            if key not in found or isinstance(value, str):
                found[key] = value
            elif isinstance(value, dict):
                found[key] = total([found[key], value])
            else:
                found[key] = max(found[key], value) if key in most else found[key] + value
    return found
