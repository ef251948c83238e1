"""The mean of several methods that share one backbone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import Backbone, BackboneConfig
from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.fusion import JointFit
from fewseg.types import EncodedShots, Features, State


@dataclass(frozen=True, kw_only=True)
class MeanConfig(MethodConfig):
    """Methods without trained parameters that read the maps of one backbone.

    Attributes:
        backbone: of all members.
        members: their configs.
        fusion: how K shots become one answer; that is the members' matter.
    """

    members: tuple[MethodConfig, ...]
    fusion: JointFit = field(default_factory=JointFit)


@dataclass(frozen=True, kw_only=True)
class MeanState(State):
    """The states of all members."""

    states: tuple[State, ...]


class MeanOfMethods(FewShotSegmenter):
    """The mean of the members' log-odds of each class against background."""

    fusions = (JointFit(),)
    compares_background = True
    fits_head = True

    def __init__(self, config: MeanConfig) -> None:
        super().__init__(config)
        self.members = nn.ModuleList(on_backbone(member, self.backbone) for member in config.members)

    def encode_support(self, support: EncodedShots) -> MeanState:
        """Encodes the support set for each member."""
        return MeanState(states=tuple(member.encode_support(support) for member in self._members))

    def segment(self, query: Features, state: MeanState) -> Tensor:
        """Logits (B, 1 + N, H, W) of which the background's are 0."""
        members = zip(self._members, state.states, strict=True)
        logits = torch.stack([member.segment(query, its_state).float() for member, its_state in members])
        return F.pad((logits[:, :, 1:] - logits[:, :, :1]).mean(dim=0), (0, 0, 0, 0, 1, 0))

    @property
    def _members(self) -> list[Any]:
        return list(self.members)


MeanConfig.method = MeanOfMethods


@dataclass(frozen=True, kw_only=True)
class _Built(BackboneConfig):
    """Of a network that exists already."""

    network: Backbone

    def build(self) -> Backbone:
        return self.network


def on_backbone(config: MethodConfig, backbone: Backbone) -> FewShotSegmenter:
    """Builds a method without parameters of its own on a backbone that other methods use too."""
    settings = {f.name: getattr(config.backbone, f.name) for f in fields(config.backbone)}
    method: Any = replace(config, backbone=_Built(**settings, network=backbone)).build()
    method.config = config
    built: FewShotSegmenter = method.eval()
    return built
