"""What the importer must know of one kind of released state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fewseg.methods.pfenet import PFENet, PFENetConfig
from fewseg.methods.scl import SCLCANet, SCLCANetConfig, SCLPFENet, SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANet, SDAANetConfig

BatchNorm = Literal["eval", "train"]
"""What a frozen backbone's batch-norm does in training, see ``BackboneConfig.bn``."""

State = Mapping[str, Tensor]
ReleasedConfig = PFENetConfig | SCLPFENetConfig | SCLCANetConfig | SDAANetConfig
ReleasedMethod = PFENet | SCLPFENet | SCLCANet | SDAANet


@dataclass(frozen=True, kw_only=True)
class Family:
    """State dicts whose keys name the same parts.

    Attributes:
        methods: whose they are, for messages.
        parts: first components of the keys that all of them have.
        config: (state, what to call it, pyramid scales, batch-norm) to the config that the state dict tells.
        renamed: the state dict under our keys, in our shapes.
    """

    methods: str
    parts: tuple[str, ...]
    config: Callable[[State, str, tuple[float, ...], BatchNorm], ReleasedConfig]
    renamed: Callable[[State], dict[str, Tensor]]
