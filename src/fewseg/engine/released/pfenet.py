"""Released state dicts of PFENet and its descendants: their keys, and the config that they tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from fewseg.backbones import BackboneConfig, released_trunk_key
from fewseg.engine.released.family import BatchNorm, Family
from fewseg.fusion import CrossGuided
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig, SelfGuided

RELEASED_SELF_GUIDED = SelfGuided(second_pass="released", threshold=1.0)
"""SCL(PFENet)'s code: the second support pass takes the first one's levels; soft cells are in no region."""

RELEASED_CROSS_GUIDED = CrossGuided(iou="mean", path="support", divisor=5)
"""SCL(PFENet)'s code: mean of both IoUs, supports segmented by the support path, division by 5."""

_HEAD = {
    "cls": "trunk.classifier",
    "inner_cls": "trunk.inner",
    "beta_conv": "trunk.refine",
    "alpha_conv": "trunk.top_down",
    "res1": "trunk.reduce",
    "res2": "trunk.residual",
    "down_query": "query.mid",
    "down_supp": "mid_support",
}
_MERGES = {"init_merge": "query.merge.convs", "supp_init_merge": "merge_support.convs"}
_DEPTHS = {6: "50", 23: "101", 36: "152"}


def released_key(key: str, *, deep_stem: bool = True) -> str:
    """Maps a key of the released PFENet or SCL(PFENet) to ours; an unknown key comes back unchanged.

    Args:
        key: without a ``module.`` prefix, such as "init_merge.0.0.weight".
        deep_stem: see ``released_trunk_key``.
    """
    part, _, rest = key.partition(".")
    if part in _HEAD:
        return f"{_HEAD[part]}.{rest}"
    if part in _MERGES:
        scale, _, rest = rest.partition(".0.")
        return f"{_MERGES[part]}.{scale}.{rest}"
    if re.fullmatch("layer[0-4]", part):
        return f"backbone.trunk.{released_trunk_key(key, deep_stem=deep_stem)}"
    return key


def _config(
    state: Mapping[str, Tensor], label: str, scales: tuple[float, ...], bn: BatchNorm
) -> PFENetConfig | SCLPFENetConfig:
    """Reads method and sizes off the keys and shapes."""
    channels = merge_channels(state, scales, label)
    trunk = trunk_name(state, label)
    backbone = BackboneConfig(name=trunk, weights=None, first_block_dilation="stage", bn=bn)
    if any(key.startswith("supp_init_merge.") for key in state):
        return SCLPFENetConfig(
            backbone=backbone,
            channels=channels,
            scales=scales,
            self_guided=RELEASED_SELF_GUIDED,
            fusion=RELEASED_CROSS_GUIDED,
        )
    return PFENetConfig(backbone=backbone, channels=channels, scales=scales)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    deep = "layer0.3.weight" in state
    return {released_key(key, deep_stem=deep): value for key, value in state.items()}


def trunk_name(state: Mapping[str, Tensor], label: str) -> str:
    """Reads depth and stem: resnet50s, resnet101s (deep stem), resnet50, ... (7x7 stem).

    Raises:
        ValueError: the trunk is none of these.
    """
    blocks = {key.split(".")[1] for key in state if re.match(r"layer3\.\d+\.conv3\.weight", key)}
    if len(blocks) not in _DEPTHS:
        raise ValueError(
            f"{label}: its trunk has {len(blocks)} bottleneck blocks in layer3; accepted are ResNet-50, 101 "
            "and 152 (6, 23 and 36 blocks), and no VGG"
        )
    return f"resnet{_DEPTHS[len(blocks)]}" + ("s" if "layer0.3.weight" in state else "")


def merge_channels(state: Mapping[str, Tensor], scales: tuple[float, ...], label: str) -> int:
    """Reads d, and checks that the file has as many merges as there are scales.

    Raises:
        ValueError: it has more or fewer.
    """
    merges = sum(1 for key in state if re.fullmatch(r"init_merge\.\d+\.0\.weight", key))
    if merges != len(scales):
        raise ValueError(f"{label} has {merges} pyramid scales; {len(scales)} were given: {scales}")
    return int(state["down_query.0.weight"].shape[0])


PFENET_FAMILY = Family(
    methods="PFENet or SCL(PFENet)",
    parts=("init_merge", "down_query", "down_supp", "cls", "layer0"),
    config=_config,
    renamed=_renamed,
)
"""PFENet and SCL on PFENet, whose heads share their names."""
