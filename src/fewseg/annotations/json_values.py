"""Values of JSON files, checked: every error names the file, the place and the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fewseg.annotations.shapes import check_points
from fewseg.ops.files import parse_json
from fewseg.types import DataError

T = TypeVar("T")

_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true/false",
}


def read_annotations(path: Path, most: int = -1) -> bytes:
    """Returns the content of a file, or its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): check the path and its rights"
        ) from error


def load_json(path: Path) -> Any:
    """Returns the value in a JSON file (UTF-8, with or without a byte-order mark)."""
    try:
        text = read_annotations(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): export it again") from error
    if not text.strip():
        raise DataError(f"{path} is empty: export it again")
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); is it cut off? Export it again") from error


def field(value: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    """Returns ``value[key]`` after checking its type."""
    if key not in value:
        raise DataError(f"{where} must have {key!r}, {_KINDS[kind]}, got none: export the file again")
    return typed(value[key], kind, f"{where}: {key!r}")


def typed(value: object, kind: type[T], what: str) -> T:
    """Returns the value after checking its type; a bool is no whole number."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(f"{what} must be {_KINDS[kind]}, got {shown(value)}: correct it or export it again")
    return value


def size_field(value: Mapping[str, Any], height: str, width: str, where: str) -> tuple[int, int]:
    """Returns (H, W) of two positive whole numbers."""
    sides = []
    for key in (height, width):
        side = number(value[key], f"{where}: {key!r}") if key in value else field(value, key, int, where)
        if side < 1 or side != int(side):
            raise DataError(f"{where}: {key!r} must be 1 pixel or more, got {shown(value[key])}: correct it")
        sides.append(int(side))
    return sides[0], sides[1]


def number(value: object, what: str) -> float:
    """Returns a finite number as a float."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise DataError(f"{what} must be a finite number, got {shown(value)}: correct it or export it again")


def points_of(value: object, what: str) -> list[tuple[float, float]]:
    """Returns the (x, y) of a list of pairs."""
    points: list[tuple[float, float]] = []
    pairs = typed(value, list, what)
    check_points(len(pairs), what)
    for k, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{what}: point {k} must be a pair [x, y], got {shown(pair)}: export it again")
        x, y = (number(v, f"{what}: {side} of point {k}") for side, v in zip("xy", pair, strict=True))
        points.append((x, y))
    return points


def shown(value: object) -> str:
    """Returns a value as a short piece of one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
