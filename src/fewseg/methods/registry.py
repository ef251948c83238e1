"""Every method by its name."""

from __future__ import annotations

import difflib

from fewseg.methods.canet import CANetConfig
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import PANetConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig
from fewseg.methods.srpnet import SRPNetConfig

MethodConfig = (
    CANetConfig
    | MatcherConfig
    | PANetConfig
    | PFENetConfig
    | SCLCANetConfig
    | SCLPFENetConfig
    | SDAANetConfig
    | SRPNetConfig
)

METHODS: dict[str, type[MethodConfig]] = {
    "canet": CANetConfig,
    "matcher": MatcherConfig,
    "panet": PANetConfig,
    "pfenet": PFENetConfig,
    "scl-canet": SCLCANetConfig,
    "scl-pfenet": SCLPFENetConfig,
    "sdaanet": SDAANetConfig,
    "srpnet": SRPNetConfig,
}


def method_name(config: MethodConfig) -> str:
    """The name under which a config's class is registered."""
    return next(name for name, kind in METHODS.items() if kind is type(config))


def method_config(name: str) -> type[MethodConfig]:
    """The config class of a method.

    Raises:
        ValueError: no method has this name; near names are given.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS) or sorted(METHODS)
        raise ValueError(f"unknown method {name!r}: did you mean {' or '.join(near)}?")
    return METHODS[name]
