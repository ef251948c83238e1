"""From what a user names, a checkpoint or a recipe without training, to a method that is ready."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fewseg.backbones import BackboneConfig
from fewseg.data.draws import Draws
from fewseg.engine.checkpoint import Checkpoint, config_of, load_checkpoint, read_checkpoint
from fewseg.engine.config_json import config_from_json
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import RECIPES, recipe


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a name stands for; nothing but headers has been read."""

    name: str  # what the user named
    # with the checkpoint's own config and training; None for a checkpoint that names no recipe
    recipe: Recipe | None
    # the checkpoint's header; of a recipe without training its config alone, without a digest
    about: Checkpoint

    @property
    def known_recipe(self) -> Recipe:
        """The recipe."""
        if self.recipe is None:
            if self.about.recipe:
                recipe(self.about.recipe)  # raises, with the near names
            raise ValueError(
                f"{self.name} does not name its recipe: give --recipe, one of {', '.join(RECIPES)}"
            )
        return self.recipe

    def load(self, *, backbone_weights: str | None = None) -> FewShotSegmenter:
        """Builds the method in eval mode, with a checkpoint's weights."""
        if self.about.digest:
            return load_checkpoint(Path(self.name), backbone_weights=backbone_weights)[0]
        return build_method(self.known_recipe).eval()


def resolve(
    what: str,
    *,
    recipe_name: str | None = None,
    backbone: str | None = None,
    backbone_weights: str | None = None,
) -> Resolved:
    """Finds a checkpoint or a recipe without training, whose ``backbone`` may be a different timm network."""
    if what in RECIPES and not Path(what).is_file():
        chosen = recipe(what)
        if chosen.train is not None:
            raise ValueError(
                f"{what} must be trained first (`fewseg train {what}`); then give its checkpoint"
            )
        chosen = _on_backbone(chosen, backbone, backbone_weights)
        return Resolved(name=what, recipe=chosen, about=Checkpoint(config=chosen.method))
    if not Path(what).exists() and not Path(what).suffix:
        recipe(what)  # raises, with the near names
    if backbone is not None:
        raise ValueError(f"--backbone is for recipes without training; {what} has a backbone of its own")
    about = read_checkpoint(Path(what))
    name = recipe_name or about.recipe
    trained = _training(what, about)
    if not name or (name not in RECIPES and recipe_name is None):
        return Resolved(name=what, recipe=None, about=about)
    chosen = recipe(name)
    if type(chosen.method) is not type(about.config):
        raise ValueError(
            f"{what} is a checkpoint of {type(about.config).__name__}, but {name} is a recipe of "
            f"{type(chosen.method).__name__}: give the recipe it belongs to"
        )
    chosen = replace(chosen, method=about.config, train=chosen.train if trained is None else trained)
    return Resolved(name=what, recipe=chosen, about=about)


def _training(what: str, about: Checkpoint) -> TrainConfig | None:
    stored = about.training.get("config")
    with config_of(Path(what)):
        trained = None if stored is None else config_from_json(stored)
    if not isinstance(trained, TrainConfig | None):
        raise ValueError(f"{what} has a header without a valid training config: it was edited")
    return trained


def _on_backbone(chosen: Recipe, name: str | None, weights: str | None) -> Recipe:
    current = chosen.method.backbone
    if name is None:
        method = replace(chosen.method, backbone=replace(current, weights=weights or current.weights))
        return replace(chosen, method=method)
    backbone = BackboneConfig(name=name, weights=weights or "imagenet", levels=current.levels)
    return replace(chosen, name=f"{chosen.name}_{name}", method=replace(chosen.method, backbone=backbone))


def build_method(recipe: Recipe) -> FewShotSegmenter:
    """Builds a recipe's method; initial weights depend on the training seed alone."""
    seed = recipe.train.seed if recipe.train else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draws("initial weights", seed).below(2**63))
        method: FewShotSegmenter = recipe.method.build()
    return method.to(memory_format=torch.channels_last)


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
