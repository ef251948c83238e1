"""Every recipe by its name, of fewseg and of installed packages, and every variant that they are of."""

from __future__ import annotations

from functools import lru_cache

from fewseg.methods.registry import load_other_packages
from fewseg.recipes import (  # noqa: F401  # they register
    coco_mini,
    combined,
    fitted,
    papers,
    sgone,
    voc5i_mini,
    voc5i_mini_details,
    voc5i_mini_layer4,
    zoo,
)
from fewseg.recipes.names import unknown_recipe
from fewseg.recipes.recipe import RECIPES, Recipe
from fewseg.recipes.variants import Variant

__all__ = ["RECIPES", "recipe", "variant", "variants"]


def recipe(name: str) -> Recipe:
    """Makes the recipe of a name."""
    if name not in RECIPES:
        raise unknown_recipe(name, RECIPES)
    return RECIPES[name]()


@lru_cache(maxsize=1)
def variants() -> dict[str, Variant]:
    """Every variant that a recipe declares, by its name."""
    return {built.variant.name: built.variant for built in (make() for make in RECIPES.values())}


def variant(name: str) -> Variant:
    """The variant of a name; of an unknown one nothing but the name."""
    return variants().get(name, Variant(name=name))


load_other_packages()  # at the end: their modules may import this one
