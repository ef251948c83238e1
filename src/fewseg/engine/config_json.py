"""Configs from JSON: the inverse of ``result_schema.as_json``, for known classes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView, TrainView
from fewseg.engine.train_config import SGD, AdamW, StepSGD, TrainConfig
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided, IterativeInference, MeanVector, ScoreAverage, ShotAttention
from fewseg.methods.layers import NoPrior, PriorMap
from fewseg.methods.panet import NoAlignment, PrototypeAlignment
from fewseg.methods.prototypes import Cosine, Fidelity, SquaredEuclidean
from fewseg.methods.registry import METHODS
from fewseg.methods.scl import SelfGuided
from fewseg.methods.sdaanet import (
    CompoundedGate,
    IntegralTeacher,
    MeanGate,
    NoAttention,
    NoDistillation,
    NoGate,
    PrototypeTeacher,
    SeparateTeachers,
    SupervisedAttention,
)

_PARTS = (
    BackboneConfig,
    ResNetShape,
    PriorMap,
    NoPrior,
    MeanVector,
    ScoreAverage,
    CrossGuided,
    ShotAttention,
    IterativeInference,
    Refinement,
    SelfGuided,
    MeanGate,
    CompoundedGate,
    NoGate,
    SeparateTeachers,
    IntegralTeacher,
    PrototypeTeacher,
    NoDistillation,
    SupervisedAttention,
    NoAttention,
    PrototypeAlignment,
    NoAlignment,
    Cosine,
    Fidelity,
    SquaredEuclidean,
    EvalView,
    TrainView,
    Protocol,
    SGD,
    StepSGD,
    AdamW,
    TrainConfig,
)
_KNOWN: dict[str, type] = {kind.__name__: kind for kind in (*_PARTS, *METHODS.values())}


def config_from_json(value: Any) -> Any:
    """Rebuilds configs from their JSON.

    Args:
        value: what ``as_json`` made: objects with a ``type`` become the config class of that name, lists
            become tuples. No other class is ever made.

    Raises:
        ValueError: a class is not known, or a field is unknown or missing.
    """
    if isinstance(value, list):
        return tuple(config_from_json(item) for item in value)
    if not isinstance(value, dict) or "type" not in value:
        return value
    name = value["type"]
    if not isinstance(name, str) or name not in _KNOWN:
        raise ValueError(
            f"config names the class {name!r}; this version of fewseg knows {sorted(_KNOWN)}: "
            "the file is of a newer version or of another program"
        )
    kind = _KNOWN[name]
    given = {key: config_from_json(item) for key, item in value.items() if key != "type"}
    assert is_dataclass(kind)
    known = {f.name for f in fields(kind)}
    if not set(given) <= known:
        raise ValueError(
            f"config of {name} has unknown fields {sorted(set(given) - known)}; known: {sorted(known)}"
        )
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"config of {name} is not complete: {error}") from error


def with_parts(configs: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Puts parts in the place of others.

    Args:
        configs: name to config.
        parts: ``name.field...=Class`` each; the class takes its default values.

    Returns:
        The configs with the parts changed.

    Raises:
        ValueError: a part is not written so, or names an unknown field or a class that its
            field does not take.
    """
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
    accepted = _accepted(type(config), names[0])
    if not accepted:
        raise ValueError(f"part {part!r}: {names[0]!r} holds no part; set it by its own option")
    if name not in accepted:
        raise ValueError(f"part {part!r}: {names[0]!r} takes {' or '.join(accepted)}, not {name!r}")
    return replace(config, **{names[0]: config_from_json({"type": name})})


def _accepted(kind: type, field: str) -> list[str]:
    """Names of the config classes that a field's type allows."""
    hint = get_type_hints(kind)[field]
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [member.__name__ for member in members if is_dataclass(member) and isinstance(member, type)]
