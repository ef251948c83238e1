"""Every method by its name. A method registers itself in its own file, of fewseg or of a different package.

A package outside names the module that registers its methods in the entry point group ``fewseg.methods``; the
recipes that it registers are known too.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args, get_type_hints

from fewseg.methods.base import FewShotSegmenter, MethodConfig

__all__ = [
    "METHODS",
    "MethodConfig",
    "create_method",
    "list_methods",
    "method_config",
    "method_name",
    "part_classes",
    "register_method",
]

logger = logging.getLogger(__name__)

METHODS: dict[str, type[MethodConfig]] = {}
"""Name to config class; ``method_config`` also knows the methods of other packages before their import."""

ENTRY_POINTS = "fewseg.methods"

M = TypeVar("M", bound=FewShotSegmenter)


def register_method(name: str, config: type[MethodConfig]) -> Callable[[type[M]], type[M]]:
    """Registers a method class under a name; its config's ``build`` then makes it.

    Args:
        name: such as "pfenet"; the command line, checkpoints and results use it.
        config: a frozen keyword-only dataclass; the method takes one as its only argument.

    Raises:
        ValueError: a different method has this name, or the config lacks a field that every method needs.
    """

    def register(method: type[M]) -> type[M]:
        known = METHODS.get(name)
        if known is not None and _place(known) != _place(config):
            raise ValueError(f"method {name!r} is {_place(known)} already: choose a different name")
        for other in METHODS.values():
            if other.__name__ == config.__name__ and _place(other) != _place(config):
                raise ValueError(
                    f"a config class {_place(other)} exists already: choose a different class name"
                )
        lacking = {"backbone", "fusion"} - {f.name for f in fields(config)}
        if lacking:
            raise ValueError(
                f"{config.__name__} has no field {' and no '.join(sorted(lacking))}: every method's config "
                "is a dataclass with a backbone and a fusion, whose type names the fusions that it can use"
            )
        METHODS[name] = config
        config.method = method
        return method

    return register


def _place(config: type[MethodConfig]) -> str:
    return f"{config.__module__}.{config.__qualname__}"


@functools.cache
def load_other_packages() -> None:
    """Imports the modules of the entry points, once."""
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception:  # a broken package must not take the others along
            package = f"{entry.name} ({entry.value})"
            logger.warning("the methods and recipes of %s could not be loaded", package, exc_info=True)


def list_methods() -> list[str]:
    """The names of all methods, those of other installed packages included."""
    load_other_packages()
    return sorted(METHODS)


def method_name(config: MethodConfig) -> str:
    """The name under which a config's class is registered."""
    name = next((name for name, kind in METHODS.items() if kind is type(config)), None)
    if name is None:
        raise ValueError(
            f"{type(config).__name__} is not registered: decorate its method with @register_method"
        )
    return name


def method_config(name: str) -> type[MethodConfig]:
    """The config class of a method.

    Raises:
        ValueError: no method has this name; near names are given.
    """
    if name not in list_methods():
        near = difflib.get_close_matches(name, METHODS) or sorted(METHODS)
        raise ValueError(f"unknown method {name!r}: did you mean {' or '.join(near)}?")
    return METHODS[name]


def create_method(name: str, **config: Any) -> FewShotSegmenter:
    """Builds a method with a randomly initialised head.

    Args:
        name: see ``list_methods``.
        config: fields of the method's config, such as ``channels=64`` or
            ``backbone=BackboneConfig(name="resnet101")``; the others keep their defaults.

    Returns:
        The method, in training mode.

    Raises:
        ValueError: no method has this name, its config has no such field, or a value does not fit the field.
    """
    kind = method_config(name)
    assert is_dataclass(kind)
    known = [f.name for f in fields(kind)]
    for field, value in config.items():
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"method {name!r} has no field {field!r}{hint}; it has {', '.join(known)}")
        parts = part_classes(get_type_hints(kind)[field])
        if parts and not isinstance(value, parts):
            names = " or ".join(part.__name__ for part in parts)
            raise ValueError(f"{field} of method {name!r} must be {names}, got {value!r}")
    return kind(**config).build()


def part_classes(hint: Any) -> tuple[type, ...]:
    """The config classes that a field's type hint allows."""
    members = get_args(hint) or (hint,)
    return tuple(member for member in members if isinstance(member, type) and is_dataclass(member))
