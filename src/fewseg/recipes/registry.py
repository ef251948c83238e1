"""Every recipe by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from fewseg.recipes.pascal import pascal_pfenet_resnet50, pascal_scl_pfenet_resnet50
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.voc5i_mini import voc5i_mini_matcher, voc5i_mini_pfenet, voc5i_mini_scl

RECIPES: dict[str, Callable[[], Recipe]] = {
    maker.__name__: maker
    for maker in (
        pascal_pfenet_resnet50,
        pascal_scl_pfenet_resnet50,
        voc5i_mini_matcher,
        voc5i_mini_pfenet,
        voc5i_mini_scl,
    )
}


def recipe(name: str) -> Recipe:
    """Makes a recipe.

    Raises:
        ValueError: no recipe has this name; near names are given.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES) or list(RECIPES)
        raise ValueError(f"unknown recipe {name!r}: did you mean {' or '.join(near)}?")
    return RECIPES[name]()
