"""The layout of a result file: plain values in, checked plain values out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 3
"""1: without ``on``; it was the query then. 2: without the seal."""

SEALED = 3
"""The first schema with a seal."""

SEAL: dict[str, tuple[type, ...]] = {"counts_sha256": (str,), "digest": (str,)}
"""Keys of a result file that are about the file; see ``result_seal``."""

_NUMBER = (int, float)
_KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "method": (str,),
    "recipe": (str,),
    "dataset": (str,),
    "fold": (int,),
    "ways": (int,),
    "shots": (int,),
    "fusion": (str,),
    "on": (str,),
    "protocol": (dict,),
    "protocol_digest": (str,),
    "seeds": (list,),
    "miou_mean": _NUMBER,
    "miou_std": (int, float, type(None)),
    "miou_ci95": (list,),
    "fb_iou_mean": _NUMBER,
    "dice_mean": _NUMBER,
    "config": (dict,),
    "class_split": (dict,),
    "versions": (dict,),
    "hardware": (str,),
    "wall_seconds": _NUMBER,
    "training": (dict,),
}
_SEED_KEYS: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "episodes": (int,),
    "miou": _NUMBER,
    "fb_iou": _NUMBER,
    "dice": _NUMBER,
    "per_class": (dict,),
}


def as_json(value: Any) -> Any:
    """Turns configs into what JSON gives back: mappings, lists, strings, numbers, booleans, None.

    A dataclass becomes its fields and ``type``, its class name, so that a part without fields is still told
    from another. Keys become strings; sets are sorted.

    Raises:
        ValueError: a value of another type, or a number that is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__} | parts
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [as_json(item) for item in items]
    return _plain(value)


def _plain(value: Any) -> str | int | float | None:
    """Turns a single value into one that JSON has; raises as :func:`as_json`."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{value} cannot be stored in a result file: only finite numbers can")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"a {type(value).__name__} ({value!r:.80}) cannot be stored in a result file: use numbers, text, "
        "lists, mappings or dataclasses of them"
    )


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value's JSON with sorted keys.

    Raises:
        ValueError: as :func:`as_json`.
    """
    text = json.dumps(as_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_checked(path: Path) -> dict[str, Any]:
    """Reads the JSON of a result file and checks its keys, types and ranges.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole JSON file, of a newer schema, or keys or values are missing or wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no result file {path}: give the .json that `fewseg evaluate` wrote"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole JSON file ({error}): evaluate again or restore it"
        ) from error
    if not isinstance(found, dict) or "schema" not in found:
        raise ValueError(
            f"{path} is not a result file: it has no 'schema'; give the .json of `fewseg evaluate`"
        )
    if not isinstance(found["schema"], int) or found["schema"] > SCHEMA:
        raise ValueError(
            f"{path} has schema {found['schema']!r}; this fewseg reads schemas up to {SCHEMA}: update fewseg"
        )
    found = _upgraded(found)
    _check_keys(found, _KEYS | SEAL if found["schema"] >= SEALED else _KEYS, str(path))
    if not found["seeds"]:
        raise ValueError(f"{path} has no seeds: evaluate again")
    for i, seed in enumerate(found["seeds"]):
        where = f"{path}, seeds[{i}]"
        _check_keys(seed, _SEED_KEYS, where)
        _check_fractions([seed["miou"], seed["fb_iou"], seed["dice"], *seed["per_class"].values()], where)
        if not all(key.isdecimal() for key in seed["per_class"]):
            raise ValueError(f"{where}: per_class has keys {sorted(seed['per_class'])}; they are class ids")
        if set(seed["per_class"]) != set(found["seeds"][0]["per_class"]) or not seed["per_class"]:
            raise ValueError(
                f"{where} has classes {sorted(seed['per_class'])}, unlike seeds[0]: evaluate again"
            )
    if len(found["miou_ci95"]) != 2:
        raise ValueError(
            f"{path}: miou_ci95 has {len(found['miou_ci95'])} ends; an interval has 2: evaluate again"
        )
    _check_fractions(
        [found["miou_mean"], found["fb_iou_mean"], found["dice_mean"], *found["miou_ci95"]], str(path)
    )
    return found


def _upgraded(found: dict[str, Any]) -> dict[str, Any]:
    """A result of an older schema as one of this."""
    return {**found, "on": "query"} if found["schema"] == 1 else found


def _check_keys(found: Any, expected: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is a {type(found).__name__} and should be a mapping: evaluate again")
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{where}: missing keys {missing}, unknown keys {unknown}: the file was edited or is no "
            "result file; evaluate again"
        )
    for key, types in expected.items():
        if not isinstance(found[key], types) or isinstance(found[key], bool):
            names = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{where}: {key} is {found[key]!r:.60} and should be {names}: evaluate again")


def _check_fractions(values: list[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(
                f"{where}: the score {value!r} is not a fraction in [0, 1] (percent?): evaluate again"
            )
