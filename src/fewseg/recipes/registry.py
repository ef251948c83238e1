"""Every recipe by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from fewseg.recipes import (
    pascal,
    pascal_prototypes,
    voc5i_mini,
    voc5i_mini_canet,
    voc5i_mini_prototypes,
    voc5i_mini_sdaanet,
)
from fewseg.recipes.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    maker.__name__: maker
    for maker in (
        pascal.pascal_pfenet_resnet50,
        pascal.pascal_scl_pfenet_resnet50,
        pascal_prototypes.pascal_panet_vgg16,
        pascal_prototypes.pascal_panet_resnet50,
        pascal_prototypes.pascal_panet_vgg16_no_alignment,
        pascal_prototypes.pascal_srpnet_cos_resnet50,
        pascal_prototypes.pascal_srpnet_f_resnet50,
        pascal_prototypes.pascal_srpnet_resnet50,
        pascal_prototypes.pascal_matcher_resnet50,
        voc5i_mini.voc5i_mini_pfenet,
        voc5i_mini.voc5i_mini_scl,
        voc5i_mini_canet.voc5i_mini_canet,
        voc5i_mini_canet.voc5i_mini_scl_canet,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet_baseline,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet_saam,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet_sdpm,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet_integral,
        voc5i_mini_sdaanet.voc5i_mini_sdaanet_separate,
        voc5i_mini_prototypes.voc5i_mini_matcher,
        voc5i_mini_prototypes.voc5i_mini_matcher_fidelity,
        voc5i_mini_prototypes.voc5i_mini_panet,
        voc5i_mini_prototypes.voc5i_mini_panet_no_alignment,
        voc5i_mini_prototypes.voc5i_mini_srpnet,
        voc5i_mini_prototypes.voc5i_mini_srpnet_cos,
        voc5i_mini_prototypes.voc5i_mini_srpnet_f,
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
