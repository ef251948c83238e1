"""Checkpoints that the authors of PFENet and SCL released, turned into this package's methods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from fewseg.backbones import (
    BackboneConfig,
    WeightsReport,
    load_weights,
    read_state,
    released_trunk_key,
)
from fewseg.backbones.weights import as_state, file_sha256, state_sha256
from fewseg.data.folds import ClassSplit
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint, split_json
from fewseg.fusion import CrossGuided
from fewseg.methods.pfenet import PFENet, PFENetConfig
from fewseg.methods.registry import method_name
from fewseg.methods.scl import SCLPFENet, SCLPFENetConfig, SelfGuided

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


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """An imported checkpoint.

    Attributes:
        method: registered name of the method that the keys belong to.
        model: our model with the weights loaded, in eval mode; its ``config`` rebuilds it.
        report: what matched; its digest is that of the file.
    """

    method: str
    model: PFENet | SCLPFENet
    report: WeightsReport


def import_released(
    source: str | Path | Mapping[str, Tensor],
    *,
    scales: tuple[float, ...] = (60, 30, 15, 8),
    bn: Literal["eval", "train"] = "eval",
) -> ReleasedModel:
    """Turns a released PFENet or SCL(PFENet) state dict into our method.

    The method, the depth, the stem and the width are read off the keys and shapes. Everything in which the
    released code departs from its paper is a named part of the resulting config: the dilation of first
    blocks, SCL's second support pass, its regions and its cross-guided weights. The latter divide by 5
    whatever K is, which scales the scores of other K and changes no label.

    Source: PFENet (Tian et al. 2020) and SCL (Zhang et al. 2021), the state dicts of their public code.

    Args:
        source: a .pth, .pt or .safetensors file, or a state dict; bare, under ``state_dict`` or
            ``model``, with or without a ``module.`` prefix. A file is read without running code.
        scales: sides of the pyramid, in cells; they are not in the file.
        bn: "train" to go on training as the released code does, with batch-norm of the frozen backbone
            in training mode.

    Raises:
        ValueError: the file cannot be read, is of another method or of a VGG, or does not fit ``scales``.
    """
    state, label, digest = _read(source)
    config = _config(state, label, scales, bn)
    name, model = method_name(config), config.build()
    deep = config.backbone.name.endswith("s")
    ours = {released_key(key, deep_stem=deep): value for key, value in state.items()}
    report = load_weights(model, ours, name=label, sha256=digest)
    if report.unexpected:
        raise ValueError(
            f"{label} is close to a released {name} checkpoint but holds more: {report.unexpected[:6]}; "
            "accepted are the state dicts of PFENet's and SCL(PFENet)'s public code, unchanged"
        )
    return ReleasedModel(method=name, model=model.eval(), report=report)


def import_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    scales: tuple[float, ...] = (60, 30, 15, 8),
    class_split: ClassSplit | None = None,
) -> ReleasedModel:
    """Imports a released file and writes it as a checkpoint of ours, the backbone's weights included.

    Args:
        source: see ``import_released``.
        target: the ``.safetensors`` file to write.
        scales: see ``import_released``.
        class_split: what it was trained on; no released file says so. With it, a test on classes that
            were trained on is refused.

    Raises:
        ValueError: see ``import_released``.
        OSError: the checkpoint could not be written.
    """
    found = import_released(source, scales=scales)
    about = Checkpoint(
        config=found.model.config,
        class_split=split_json(class_split),
        training={"imported_from": found.report.source, "sha256": found.report.sha256},
    )
    save_checkpoint(Path(target), found.model, about, whole=True)
    return found


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


def _read(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str, str]:
    """Returns the state dict, what to call it, and its digest."""
    if isinstance(source, Mapping):
        state = as_state(source, "state dict")
        return state, "state dict", state_sha256(state)
    return read_state(source), Path(source).name, file_sha256(source)


def _config(
    state: Mapping[str, Tensor], label: str, scales: tuple[float, ...], bn: Literal["eval", "train"]
) -> PFENetConfig | SCLPFENetConfig:
    """Reads method and sizes off the keys and shapes."""
    parts = {key.partition(".")[0] for key in state}
    needed = {"init_merge", "down_query", "down_supp", "cls", "layer0"}
    if not needed <= parts:
        raise ValueError(
            f"{label} is no released PFENet or SCL(PFENet) checkpoint: it has {sorted(parts)[:12]} and lacks "
            f"{sorted(needed - parts)}; accepted are the state dicts of these two methods' public code"
        )
    channels = _channels(state, scales, label)
    trunk = _trunk_name(state, label)
    backbone = BackboneConfig(name=trunk, weights=None, first_block_dilation="stage", bn=bn)
    if "supp_init_merge" in parts:
        return SCLPFENetConfig(
            backbone=backbone,
            channels=channels,
            scales=scales,
            self_guided=RELEASED_SELF_GUIDED,
            fusion=RELEASED_CROSS_GUIDED,
        )
    return PFENetConfig(backbone=backbone, channels=channels, scales=scales)


def _trunk_name(state: Mapping[str, Tensor], label: str) -> str:
    """Reads depth and stem: resnet50s, resnet101s (deep stem), resnet50, ... (7x7 stem)."""
    blocks = {key.split(".")[1] for key in state if re.match(r"layer3\.\d+\.conv3\.weight", key)}
    if len(blocks) not in _DEPTHS:
        raise ValueError(
            f"{label}: its trunk has {len(blocks)} bottleneck blocks in layer3; accepted are ResNet-50, 101 "
            "and 152 (6, 23 and 36 blocks), and no VGG"
        )
    return f"resnet{_DEPTHS[len(blocks)]}" + ("s" if "layer0.3.weight" in state else "")


def _channels(state: Mapping[str, Tensor], scales: tuple[float, ...], label: str) -> int:
    merges = sum(1 for key in state if re.fullmatch(r"init_merge\.\d+\.0\.weight", key))
    if merges != len(scales):
        raise ValueError(f"{label} has {merges} pyramid scales; {len(scales)} were given: {scales}")
    return int(state["down_query.0.weight"].shape[0])
