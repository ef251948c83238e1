"""From what a user names to a model that is ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewseg.backbones import BackboneConfig
from fewseg.engine.checkpoint import load_checkpoint
from fewseg.engine.config_json import config_from_json
from fewseg.engine.evaluate import Precision
from fewseg.engine.train_config import TrainConfig
from fewseg.inference.model import Model, Views
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import Fusion
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import RECIPES, recipe
from fewseg.recipes.resolve import best_device, build_method

DEFAULT = "pascal_matcher_resnet50"
"""The recipe that needs neither training nor a checkpoint."""

_RELEASED_SIZE = 473  # of the released checkpoints of the PFENet family, which name no recipe


def load_model(
    what: str | Path = DEFAULT,
    *,
    size: int | None = None,
    views: Views | None = None,
    fusion: str | None = None,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
) -> Model:
    """Builds a model from a checkpoint or from a recipe that needs no training.

    Args:
        what: a checkpoint (.safetensors) or the name of a recipe without training; the matcher by default.
        size: side of the network's input in pixels; by default that of the recipe, or of the training.
        views: how images become inputs: whole, or in tiles.
        fusion: how K shots become one answer ("mean", "average", "cross-guided", "iterative"); the config's
            own by default.
        backbone: for a recipe: another timm network.
        backbone_weights: path of the frozen trunk's weights, where it moved.
        device: the first GPU or the CPU by default.
        precision: "fp32", or "bf16" for autocast (see :class:`~fewseg.inference.model.Model`).

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint cannot be used, the recipe is unknown or must be trained first, or the
            method cannot use the fusion.
    """
    path = Path(what)
    if str(what) in RECIPES and not path.exists():
        chosen = _on_backbone(recipe(str(what)), backbone, backbone_weights)
        if chosen.train is not None:
            raise ValueError(
                f"{what} must be trained first (`fewseg train {what}`); then give its checkpoint. {DEFAULT} "
                "needs no training"
            )
        method, config, usual = build_method(chosen).eval(), chosen.method, chosen.size
        name = chosen.name
    else:
        if backbone is not None:
            raise ValueError(f"another backbone is for recipes without training; {what} has one of its own")
        if not path.exists() and not path.suffix:
            recipe(str(what))  # raises, with the near names
        method, about = load_checkpoint(path, backbone_weights=backbone_weights)
        config, name = about.config, path.name
        usual = _trained_size(about.recipe, about.training.get("config"))
    _use_fusion(method, fusion)
    method = method.to(torch.device(device) if device is not None else best_device())
    method = method.to(memory_format=torch.channels_last)
    return Model(method, config, size or usual, views, name, precision=precision)


def _on_backbone(chosen: Recipe, name: str | None, weights: str | None) -> Recipe:
    own = chosen.method.backbone
    new = replace(own, weights=weights or own.weights)
    if name is not None:
        new = BackboneConfig(name=name, weights=weights or "imagenet", levels=own.levels)
    return replace(chosen, method=replace(chosen.method, backbone=new))


def _trained_size(recipe_name: str, stored: Any) -> int:
    """The input size of a checkpoint's recipe, or of its training, or of the released ones."""
    if recipe_name in RECIPES:
        return recipe(recipe_name).size
    trained = config_from_json(stored) if stored is not None else None
    return trained.view.size if isinstance(trained, TrainConfig) else _RELEASED_SIZE


def _use_fusion(method: FewShotSegmenter, name: str | None) -> None:
    if name is None or name == method.fusion.kind:
        return
    kinds: dict[str, Fusion] = {own.kind: own for own in method.fusions}
    if name not in kinds:
        raise ValueError(
            f"{type(method).__name__} cannot use the fusion {name!r}: choose one of {', '.join(kinds)}"
        )
    method.fusion = kinds[name]
