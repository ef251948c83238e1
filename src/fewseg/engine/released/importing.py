"""State dicts of released code, recognised by their keys and loaded into this package's methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fewseg.backbones import WeightsReport, load_weights, read_state
from fewseg.backbones.weights import as_state, file_sha256, state_sha256
from fewseg.data.folds import ClassSplit
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint, split_json
from fewseg.engine.released.canet import CANET_FAMILY
from fewseg.engine.released.family import BatchNorm, Family, ReleasedMethod
from fewseg.engine.released.pfenet import PFENET_FAMILY
from fewseg.engine.released.sdaanet import SDAANET_FAMILY
from fewseg.methods.registry import method_name

FAMILIES = (PFENET_FAMILY, SDAANET_FAMILY, CANET_FAMILY)
"""Every kind of state dict that is understood."""


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """An imported checkpoint.

    Attributes:
        method: registered name of the method that the keys belong to.
        model: our model with the weights loaded, in eval mode; its ``config`` rebuilds it.
        report: what matched; its digest is that of the file.
    """

    method: str
    model: ReleasedMethod
    report: WeightsReport


def import_released(
    source: str | Path | Mapping[str, Tensor],
    *,
    scales: tuple[float, ...] = (60, 30, 15, 8),
    bn: BatchNorm = "eval",
) -> ReleasedModel:
    """Turns a released PFENet, SCL or SD-AANet state dict into our method.

    The method, the depth, the stem and the width are read off the keys and shapes. Where the released network
    departs from its paper, the resulting config names it: the dilation of first blocks, SCL's second support
    pass, its regions and its cross-guided weights, SD-AANet's gate and teacher. The weights divide by 5
    whatever K is, which scales the scores of other K and changes no label.

    The authors' test procedure of SCL on CANet is not offered: it feeds the fused answer of all shots back,
    at three scales of images of any size (0.7, 1, 1.3). Here every pair is refined on its own, so that its
    score can be shared, on squares of 8k + 1 pixels, where the pooling's rounding makes no difference either.
    The parity tests put that procedure together from the model's parts and find the authors' numbers.

    Source: PFENet (Tian et al. 2020), SCL (Zhang et al. 2021) and SD-AANet (Zhao et al. 2022), the state
    dicts of their public code.

    Args:
        source: a .pth, .pt or .safetensors file, or a state dict; bare, under ``state_dict`` or
            ``model``, with or without a ``module.`` prefix. A file is read without running code.
        scales: sides of PFENet's pyramid, in cells; they are not in the file.
        bn: "train" to go on training as the released code does, with batch-norm of the frozen backbone
            in training mode.

    Raises:
        ValueError: the file cannot be read, is of another method or of a VGG, or does not fit ``scales``.
    """
    state, label, digest = _read(source)
    family = _family(state, label)
    config = family.config(state, label, scales, bn)
    name, model = method_name(config), config.build()
    report = load_weights(model, family.renamed(state), name=label, sha256=digest)
    if report.unexpected:
        raise ValueError(
            f"{label} is close to a released {name} checkpoint but holds more: {report.unexpected[:6]}; "
            f"accepted are the state dicts of {family.methods}'s public code, unchanged"
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
            f"{nearest.methods}, lacks {lacks}; accepted are the state dicts of these methods' public code"
        )
    return nearest
