"""Released state dicts of SCL on CANet: their keys, and the config that they tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.engine.released.family import BatchNorm, Family
from fewseg.fusion import CrossGuided
from fewseg.methods.scl import SCLCANetConfig, SelfGuided

RELEASED_CANET_SELF_GUIDED = SelfGuided(threshold="truncated")
"""SCL(CANet)'s code: prediction + soft mask, truncated to an integer, says which region a cell is in."""

RELEASED_CANET_CROSS_GUIDED = CrossGuided(iou="foreground", path="support", divisor=5)
"""SCL(CANet)'s code: foreground IoU, supports segmented by the support path, division by 5."""

RELEASED_HISTORY_RESET = 0.9

_PREFIX = "FPM_Decoder."
_HEAD = {
    "layer55.0": "comparison.conv",
    "layer6_0.0": "trunk.aspp.branches.0",
    "layer6_1.0": "trunk.aspp.branches.1",
    "layer6_2.0": "trunk.aspp.branches.2",
    "layer6_3.0": "trunk.aspp.branches.3",
    "layer6_4.0": "trunk.aspp.branches.4",
    "layer7.0": "trunk.classifier.0",
    "layer9": "trunk.classifier.3",
    "residule1": "trunk.entry",
    "supp_residule1": "support_entry",
    "residule2": "trunk.blocks.0",
    "residule3": "trunk.blocks.1",
}
_IN_BLOCK = {"1": "first", "3": "second"}


def released_canet_key(key: str) -> str:
    """Maps a key of the released SCL(CANet) to ours; an unknown key comes back unchanged.

    Args:
        key: without a ``module.`` prefix, such as "FPM_Decoder.residule1.1.weight".
    """
    if key.startswith("layer5.0."):
        return key.replace("layer5.0.", "mid.0.", 1)
    if re.match(r"(conv1|bn1|layer[1-3])\.", key):
        return f"backbone.trunk.{key}"
    if not key.startswith(_PREFIX):
        return key
    part, _, leaf = key.removeprefix(_PREFIX).rpartition(".")
    block, _, index = part.partition(".")
    if "residule" in block and block in _HEAD and index in _IN_BLOCK:
        return f"{_HEAD[block]}.{_IN_BLOCK[index]}.{leaf}"
    return f"{_HEAD[part]}.{leaf}" if part in _HEAD else key


def _config(
    state: Mapping[str, Tensor], label: str, scales: tuple[float, ...], bn: BatchNorm
) -> SCLCANetConfig:
    """Reads the sizes off the shapes; a file of CANet has no scales.

    Raises:
        ValueError: the trunk is no ResNet-50, the only one that was released.
    """
    del scales
    blocks = {key.split(".")[1] for key in state if re.match(r"layer3\.\d+\.conv3\.weight", key)}
    if len(blocks) != 6 or "layer5.0.weight" not in state:
        raise ValueError(
            f"{label}: its trunk has {len(blocks)} bottleneck blocks in layer3; accepted is SCL(CANet)'s "
            "ResNet-50 (6 blocks) with its head"
        )
    return SCLCANetConfig(
        backbone=BackboneConfig(
            name="resnet50",
            weights=None,
            levels=("layer2", "layer3"),
            first_block_dilation="stage",
            stride_on_1x1=True,
            bn=bn,
        ),
        channels=int(state["layer5.0.weight"].shape[0]),
        self_guided=RELEASED_CANET_SELF_GUIDED,
        fusion=RELEASED_CANET_CROSS_GUIDED,
        history_reset=RELEASED_HISTORY_RESET,
    )


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {released_canet_key(key): value for key, value in state.items()}


CANET_FAMILY = Family(
    methods="SCL(CANet)",
    parts=("FPM_Decoder", "layer5", "conv1", "layer3"),
    config=_config,
    renamed=_renamed,
)
"""SCL on CANet."""
