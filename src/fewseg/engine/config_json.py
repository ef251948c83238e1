"""Configs from JSON, the inverse of ``results.as_json``: only classes that the configs' type hints name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fewseg.engine.train_config import TrainConfig
from fewseg.methods.registry import METHODS, list_methods, part_classes
from fewseg.types import value_before


def config_from_json(value: Any, *kinds: type) -> Any:
    """Rebuilds a config from its JSON."""
    if not kinds:
        list_methods()  # those of other packages too
        kinds = (*METHODS.values(), TrainConfig)
    return _rebuilt(value, kinds)


def _rebuilt(value: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(value, list):
        return tuple(_rebuilt(item, kinds) for item in value)
    if not isinstance(value, dict) or "type" not in value:
        return value
    name = value["type"]
    kind = next((kind for kind in kinds if kind.__name__ == name), None)
    if kind is None:
        raise ValueError(
            f"config names the class {name!r}; this version of fewseg knows, in its place, "
            f"{sorted(k.__name__ for k in kinds)}: the file is of a newer version or of another program"
        )
    assert is_dataclass(kind)
    known, hints = {f.name for f in fields(kind)}, get_type_hints(kind)
    given = {key: item for key, item in value.items() if key != "type"}
    if not set(given) <= known:
        raise ValueError(
            f"config of {name} has unknown fields {sorted(set(given) - known)}; known: {sorted(known)}"
        )
    parts = {f.name: value_before(f) for f in fields(kind) if value_before(f) is not MISSING}
    parts |= {key: _rebuilt(item, part_classes(hints[key])) for key, item in given.items()}
    wrong = [key for key, item in parts.items() if not _fits(item, hints[key])]
    if wrong:
        expected = getattr(hints[wrong[0]], "__name__", hints[wrong[0]])
        raise ValueError(
            f"config of {name} has {wrong[0]} {given.get(wrong[0])!r:.60}, expected {expected}: the file was "
            "edited, or is of a newer version or of another program"
        )
    try:
        return kind(**parts)
    except TypeError as error:
        raise ValueError(f"config of {name} is not complete: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; numbers are finite, and an int counts as a float."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(type(value) is type(member) and value == member for member in members)
    if origin in (UnionType, Union):
        return any(_fits(value, member) for member in members)
    if origin is tuple and isinstance(value, tuple):
        kinds = members[:1] * len(value) if members[1:] == (...,) else members
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        return type(value) in {int, hint} and math.isfinite(value)
    return hint is Any or isinstance(value, origin or hint)


def with_parts(configs: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Puts default parts, each written ``name.field...=Class``, in the place of others in some configs."""
    changed = dict(configs)
    for part in parts:
        path, _, name = part.partition("=")
        first, *names = path.split(".")
        if not name or not names or first not in changed:
            raise ValueError(
                f"part {part!r} must be written NAME=CLASS, such as method.prior=NoPrior; "
                f"names begin with {' or '.join(changed)}"
            )
        changed[first] = _replaced(changed[first], names, name, part)
    return changed


def _replaced(config: Any, names: Sequence[str], name: str, part: str) -> Any:
    known = {f.name for f in fields(config)} if is_dataclass(config) else set()
    if names[0] not in known:
        raise ValueError(
            f"part {part!r}: {type(config).__name__} has no field {names[0]!r}; it has {sorted(known)}"
        )
    if names[1:]:
        return replace(config, **{names[0]: _replaced(getattr(config, names[0]), names[1:], name, part)})
    parts = {kind.__name__: kind for kind in part_classes(get_type_hints(type(config))[names[0]])}
    if not parts:
        raise ValueError(f"part {part!r}: {names[0]!r} holds no part; set it by its own option")
    if name not in parts:
        raise ValueError(f"part {part!r}: {names[0]!r} takes {' or '.join(parts)}, not {name!r}")
    return replace(config, **{names[0]: parts[name]()})
