"""Released state dicts of SD-AANet: their keys and shapes, and the config that they tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.engine.released.family import BatchNorm, Family
from fewseg.engine.released.pfenet import PFENET_FAMILY, merge_channels, released_key, trunk_name
from fewseg.methods.sdaanet import CompoundedGate, PrototypeTeacher, SDAANetConfig

_PARTS = {
    "se_supp.0.": "gate.reduce.",
    "se_supp.2.": "gate.expand.",
    "simple_mask.0.": "attention.conv.",
    "simple_mask.2.bottleneck.0.": "attention.pyramid.bottleneck.",
    "simple_mask.2.bottleneck.1.": "attention.pyramid.bottleneck_norm.",
    "s_cls.": "attention.support_head.",
    "q_maskgeneration.": "attention.query_head.",
}
_IN_STAGE = {"1": "convs", "2": "norms"}


def released_sdaanet_key(key: str, *, deep_stem: bool = False) -> str:
    """Maps a key of the released SD-AANet to ours; its decoder and trunk have PFENet's names.

    Args:
        key: without a ``module.`` prefix, such as "simple_mask.2.stages.0.1.weight".
        deep_stem: see ``released_trunk_key``.
    """
    for theirs, ours in _PARTS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    stage = re.fullmatch(r"simple_mask\.2\.stages\.(\d+)\.([12])\.(\w+)", key)
    if stage:
        return f"attention.pyramid.{_IN_STAGE[stage[2]]}.{stage[1]}.{stage[3]}"
    return released_key(key, deep_stem=deep_stem)


def _config(
    state: Mapping[str, Tensor], label: str, scales: tuple[float, ...], bn: BatchNorm
) -> SDAANetConfig:
    """Reads the sizes off the keys and shapes."""
    name = trunk_name(state, label)
    return SDAANetConfig(
        backbone=BackboneConfig(name=name, weights=None, first_block_dilation="stage", bn=bn),
        channels=merge_channels(state, scales, label),
        scales=scales,
        gate=CompoundedGate(),
        distillation=PrototypeTeacher(),
    )


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our keys; fully connected layers that are 1x1 convolutions there; map before prototype in the merge."""
    deep = "layer0.3.weight" in state
    ours = {released_sdaanet_key(key, deep_stem=deep): value for key, value in state.items()}
    for key, value in ours.items():
        if re.fullmatch(r"gate\.\w+\.weight", key):
            ours[key] = value.flatten(1)
        elif re.fullmatch(r"query\.merge\.convs\.\d+\.weight", key):
            d = value.shape[0]
            ours[key] = torch.cat([value[:, d : 2 * d], value[:, :d], value[:, 2 * d :]], dim=1)
    return ours


SDAANET_FAMILY = Family(
    methods="SD-AANet",
    parts=(*PFENET_FAMILY.parts, "se_supp", "simple_mask"),
    config=_config,
    renamed=_renamed,
)
"""SD-AANet, whose decoder and trunk have PFENet's names."""
