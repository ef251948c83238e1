"""Checkpoints released by the authors of PFENet, SCL and SD-AANet; importing them runs no code of theirs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig, WeightsReport, load_weights, read_state, released_trunk_key
from fewseg.backbones.weights import as_state, compare_weights, file_sha256, state_sha256
from fewseg.data.folds import ClassSplit
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint, split_json
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import method_name
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig, SelfGuided
from fewseg.methods.sdaanet import CompoundedGate, PrototypeTeacher, SDAANetConfig

logger = logging.getLogger(__name__)

BatchNorm = Literal["eval", "train"]
"""What a frozen backbone's batch-norm does in training, see ``BackboneConfig.bn``."""

State = Mapping[str, Tensor]
ReleasedConfig = PFENetConfig | SCLPFENetConfig | SCLCANetConfig | SDAANetConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """State dicts whose keys name the same parts."""

    methods: str  # whose they are, for messages
    parts: tuple[str, ...]  # first components of the keys that all of them have
    # (state, its name in messages, pyramid scales, backbone) to the config that the state shows
    config: Callable[[State, str, tuple[float, ...], BackboneConfig], ReleasedConfig]
    # (released key, whether the stem is deep) to our key; an unknown key comes back unchanged
    key: Callable[[str, bool], str]


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
_DEEP_STEM = "layer0.3.weight"


def released_key(key: str, deep_stem: bool = True) -> str:
    """Our key for one of the released PFENet or SCL(PFENet)."""
    part, _, rest = key.partition(".")
    if part in _HEAD:
        return f"{_HEAD[part]}.{rest}"
    if part in _MERGES:
        scale, _, rest = rest.partition(".0.")
        return f"{_MERGES[part]}.{scale}.{rest}"
    if re.fullmatch("layer[0-4]", part):
        return f"backbone.trunk.{released_trunk_key(key, deep_stem=deep_stem)}"
    return key


def _pfenet_config(
    state: State, label: str, scales: tuple[float, ...], backbone: BackboneConfig
) -> PFENetConfig | SCLPFENetConfig:
    channels = _merge_channels(state, scales, label)
    if any(key.startswith("supp_init_merge.") for key in state):
        return SCLPFENetConfig(
            backbone=backbone,
            channels=channels,
            scales=scales,
            small_objects="sampled",
            self_guided=RELEASED_SELF_GUIDED,
            fusion=RELEASED_CROSS_GUIDED,
        )
    return PFENetConfig(backbone=backbone, channels=channels, scales=scales, small_objects="sampled")


def _trunk_name(state: State, label: str) -> str:
    """Depth and stem: resnet50s, resnet101s (deep stem), resnet50, ... (7x7 stem)."""
    blocks = {key.split(".")[1] for key in state if re.match(r"layer3\.\d+\.conv3\.weight", key)}
    if len(blocks) not in _DEPTHS:
        raise ValueError(
            f"{label}: its trunk has {len(blocks)} bottleneck blocks in layer3; it must be ResNet-50, 101 "
            "or 152 (6, 23 or 36 blocks), and no VGG"
        )
    return f"resnet{_DEPTHS[len(blocks)]}" + ("s" if _DEEP_STEM in state else "")


def _merge_channels(state: State, scales: tuple[float, ...], label: str) -> int:
    """d; checks that the file has as many merges as there are scales."""
    merges = sum(1 for key in state if re.fullmatch(r"init_merge\.\d+\.0\.weight", key))
    if merges != len(scales):
        raise ValueError(f"{label} has {merges} pyramid scales; {len(scales)} were given: {scales}")
    return _out_channels(state, "down_query.0.weight", label)


def _out_channels(state: State, key: str, label: str) -> int:
    """Of a convolution."""
    shape = tuple(state[key].shape) if key in state else None
    if shape is None or len(shape) != 4 or not shape[0]:
        raise ValueError(f"{label}: {key} must be the weight (D, C, h, w) of a convolution, got {shape}")
    return shape[0]


PFENET_FAMILY = Family(
    methods="PFENet or SCL(PFENet)",
    parts=("init_merge", "down_query", "down_supp", "cls", "layer0"),
    config=_pfenet_config,
    key=released_key,
)


RELEASED_CANET_SELF_GUIDED = SelfGuided(threshold="truncated")
"""SCL(CANet)'s code: prediction + soft mask, truncated to an integer, decides which region a cell is in."""

RELEASED_CANET_CROSS_GUIDED = CrossGuided(iou="foreground", path="support", divisor=5)
"""SCL(CANet)'s code: foreground IoU, supports segmented by the support path, division by 5."""

RELEASED_HISTORY_RESET = 0.9

RELEASED_SCALES = (0.7, 1.0, 1.3)
"""SCL(CANet)'s inference: factors of the query's own size."""

_PREFIX = "FPM_Decoder."
_HEAD_CANET = {
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


def released_canet_key(key: str, deep_stem: bool = False) -> str:
    """Our key for one of the released SCL(CANet), whose stem is never deep."""
    del deep_stem
    if key.startswith("layer5.0."):
        return key.replace("layer5.0.", "mid.0.", 1)
    if re.match(r"(conv1|bn1|layer[1-3])\.", key):
        return f"backbone.trunk.{key}"
    if not key.startswith(_PREFIX):
        return key
    part, _, leaf = key.removeprefix(_PREFIX).rpartition(".")
    block, _, index = part.partition(".")
    if "residule" in block and block in _HEAD_CANET and index in _IN_BLOCK:
        return f"{_HEAD_CANET[block]}.{_IN_BLOCK[index]}.{leaf}"
    return f"{_HEAD_CANET[part]}.{leaf}" if part in _HEAD_CANET else key


def _canet_config(
    state: State, label: str, scales: tuple[float, ...], backbone: BackboneConfig
) -> SCLCANetConfig:
    """A file of CANet has no scales."""
    del scales
    if backbone.name != "resnet50":
        raise ValueError(f"{label}: it must be SCL(CANet)'s ResNet-50 with its head")
    return SCLCANetConfig(
        backbone=replace(backbone, levels=("layer2", "layer3"), stride_on_1x1=True, ceil_pool=True),
        channels=_out_channels(state, "layer5.0.weight", label),
        self_guided=RELEASED_CANET_SELF_GUIDED,
        fusion=RELEASED_CANET_CROSS_GUIDED,
        history_reset=RELEASED_HISTORY_RESET,
        cross_iou_align_corners=False,
        aspp_dropout=0.5,
        initialisation="normal",
        refinement=Refinement(image_scales=RELEASED_SCALES),
        small_objects="sampled",
    )


CANET_FAMILY = Family(
    methods="SCL(CANet)",
    parts=("FPM_Decoder", "layer5", "conv1", "layer3"),
    config=_canet_config,
    key=released_canet_key,
)


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


def released_sdaanet_key(key: str, deep_stem: bool = False) -> str:
    """Our key for one of the released SD-AANet; its decoder and trunk have PFENet's names."""
    for theirs, ours in _PARTS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    stage = re.fullmatch(r"simple_mask\.2\.stages\.(\d+)\.([12])\.(\w+)", key)
    if stage:
        return f"attention.pyramid.{_IN_STAGE[stage[2]]}.{stage[1]}.{stage[3]}"
    return released_key(key, deep_stem)


def _sdaanet_config(
    state: State, label: str, scales: tuple[float, ...], backbone: BackboneConfig
) -> SDAANetConfig:
    return SDAANetConfig(
        backbone=backbone,
        channels=_merge_channels(state, scales, label),
        scales=scales,
        gate=CompoundedGate(),
        distillation=PrototypeTeacher(),
        small_objects="sampled",
    )


SDAANET_FAMILY = Family(
    methods="SD-AANet",
    parts=(*PFENET_FAMILY.parts, "se_supp", "simple_mask"),
    config=_sdaanet_config,
    key=released_sdaanet_key,
)


_NOT_IN_TENSORS = (
    "mid_levels",
    "prior",
    "scales",
    "rounding",
    "small_objects",
    "mid_dropout",
    "head_dropout",
    "aspp_dropout",
    "attention",
    "gate",
    "distillation",
    "self_guided",
    "fusion",
    "cross_iou_align_corners",
    "refinement",
)
"""Options of configs that change no tensor's name or shape."""

_NOT_IN_TENSORS_OF_BACKBONES = ("first_block_dilation", "stride_on_1x1", "ceil_pool")
"""Those of backbones."""

RELEASED_PYRAMID = (60, 30, 15, 8)
"""Pyramid scales of the released models on PASCAL."""

FAMILIES = (PFENET_FAMILY, SDAANET_FAMILY, CANET_FAMILY)


def _renamed(family: Family, state: State) -> dict[str, Tensor]:
    """The state under our keys, in our shapes.

    The gate's 1x1 convolutions of SD-AANet are fully connected layers here, and its merges take the prototype
    before the map, ours after it.
    """
    ours = {family.key(key, _DEEP_STEM in state): value for key, value in state.items()}
    for key, value in ours.items() if family is SDAANET_FAMILY else ():
        if value.ndim != 4:
            continue
        if re.fullmatch(r"gate\.\w+\.weight", key):
            ours[key] = value.flatten(1)
        elif re.fullmatch(r"query\.merge\.convs\.\d+\.weight", key):
            d = value.shape[0]
            ours[key] = torch.cat([value[:, d : 2 * d], value[:, :d], value[:, 2 * d :]], dim=1)
    return ours


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """An imported checkpoint."""

    method: str  # registered name of the method that the keys belong to
    model: FewShotSegmenter  # our model with the weights loaded, in eval mode; its ``config`` rebuilds it
    report: WeightsReport  # what matched; its digest is that of the file
    assumed: Mapping[str, Any]  # options that no tensor shows: those of the released code


def import_released(
    source: str | Path | Mapping[str, Tensor],
    *,
    scales: tuple[float, ...] | None = None,
    bn: BatchNorm = "eval",
) -> ReleasedModel:
    """Turns a released PFENet, SCL or SD-AANet state dict into our method.

    The method, the depth, the stem and the width are read off the keys and shapes. Where the released network
    departs from its paper, the resulting config names it: the dilation of first blocks, SCL's second support
    pass, its regions and its cross-guided weights, SD-AANet's gate and teacher. The weights divide by 5
    whatever K is, which scales the scores of other K and changes no label. Options that no tensor shows are
    those of the released code, and are logged.

    Source: PFENet (Tian et al. 2020), SCL (Zhang et al. 2021) and SD-AANet (Zhao et al. 2022), the state
    dicts of their public code.
    """
    state, label, digest = _read(source)
    family = _family(state, label)
    backbone = BackboneConfig(
        name=_trunk_name(state, label), weights=None, first_block_dilation="stage", bn=bn
    )
    if family is CANET_FAMILY and scales is not None:
        raise ValueError(f"{label} is of SCL(CANet), which has no pyramid: leave scales out")
    config = family.config(state, label, RELEASED_PYRAMID if scales is None else scales, backbone)
    name, renamed = method_name(config), _renamed(family, state)
    with torch.device("meta"):  # before memory is taken for what the shapes in the file ask for
        compare_weights(config.build(), renamed, label, digest)
    model = config.build()
    report = load_weights(model, renamed, name=label, sha256=digest)
    if report.unexpected:
        raise ValueError(
            f"{label} is close to a released {name} checkpoint but holds more: {report.unexpected[:6]}; "
            f"give a state dict of {family.methods}'s public code, unchanged"
        )
    assumed = {
        key: getattr(config, key)
        for key in _NOT_IN_TENSORS
        if key in {f.name for f in fields(config)} and not (key == "scales" and scales is not None)
    }
    assumed |= {f"backbone.{key}": getattr(config.backbone, key) for key in _NOT_IN_TENSORS_OF_BACKBONES}
    logger.warning(
        "%s does not show these options; they are those of %s's released code: %s%s",
        label,
        family.methods,
        ", ".join(f"{key}={value!r}" for key, value in assumed.items()),
        ". Give scales if it was trained with others" if "scales" in assumed else "",
    )
    return ReleasedModel(method=name, model=model.eval(), report=report, assumed=assumed)


def import_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    scales: tuple[float, ...] | None = None,
    class_split: ClassSplit | None = None,
) -> ReleasedModel:
    """Writes a released file as a checkpoint of ours, the backbone's weights included."""
    imported = import_released(source, scales=scales)
    about = Checkpoint(
        config=imported.model.config,
        class_split=split_json(class_split),
        training={
            "imported_from": imported.report.source,
            "sha256": imported.report.sha256,
            "assumed": imported.assumed,
        },
    )
    save_checkpoint(Path(target), imported.model, about, whole=True)
    return imported


def _read(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str, str]:
    """Returns the state dict, what to call it, and its digest."""
    if isinstance(source, Mapping):
        state = as_state(source, "state dict")
        return state, "state dict", state_sha256(state)
    return read_state(source), Path(source).name, file_sha256(source)


def _family(state: Mapping[str, Tensor], label: str) -> Family:
    """Recognises a state dict by the parts that its keys name."""
    parts = {key.partition(".")[0] for key in state}
    nearest = max(FAMILIES, key=lambda family: len(parts & set(family.parts)))
    lacks = sorted(set(nearest.parts) - parts)
    if lacks:
        known = " or ".join(family.methods for family in FAMILIES)
        raise ValueError(
            f"{label} is no released {known} checkpoint: it has {sorted(parts)[:12]} and, to be of "
            f"{nearest.methods}, lacks {lacks}; give a state dict of these methods' public code"
        )
    return nearest
