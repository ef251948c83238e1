"""The class names of a workspace: a mask's number j is the j-th of them."""

from __future__ import annotations

import unicodedata

from fewseg.inference.formats.values import MAX_CLASSES
from fewseg.serve.limits import Refused

_LONGEST_NAME = 60


def class_name(name: str, others: tuple[str, ...]) -> str:
    """Returns a name as it is kept, beside the others.

    Raises:
        ValueError: it is empty, too long, or there already, or there are too many.
    """
    name = unicodedata.normalize("NFC", name).strip()
    printable = name.isprintable() and not any(unicodedata.category(c) == "Cs" for c in name)
    alike = {other.casefold() for other in others}
    if not name or len(name) > _LONGEST_NAME or not printable or name.casefold() in alike:
        raise ValueError(
            f"the class name is {name[:80]!r}; accepted are names of 1 to {_LONGEST_NAME} letters on one "
            "line that no other class has: choose another"
        )
    if len(others) >= MAX_CLASSES:
        raise ValueError(f"there are {len(others)} classes; accepted are {MAX_CLASSES}")
    return name


def other_names(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Returns the names without that of a number.

    Raises:
        Refused: 404, there is no such number.
    """
    if not 1 <= number <= len(names):
        raise Refused(404, f"there is no class {number}; there are {len(names)}")
    return (*names[: number - 1], *names[number:])
