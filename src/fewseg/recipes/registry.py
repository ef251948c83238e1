"""Every recipe by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from fewseg.recipes import coco, pascal, voc5i_mini
from fewseg.recipes import pascal as pascal_canet
from fewseg.recipes import pascal as pascal_prototypes
from fewseg.recipes import pascal as pascal_sdaanet
from fewseg.recipes import voc5i_mini as voc5i_mini_canet
from fewseg.recipes import voc5i_mini as voc5i_mini_prototypes
from fewseg.recipes import voc5i_mini as voc5i_mini_sdaanet
from fewseg.recipes.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    maker.__name__: maker
    for maker in (
        pascal.pascal_pfenet_resnet50,
        pascal.pascal_scl_pfenet_resnet50,
        pascal_canet.pascal_canet_resnet50,
        pascal_canet.pascal_canet_attention_resnet50,
        pascal_canet.pascal_scl_canet_resnet50,
        pascal_canet.pascal_scl_canet_initial_resnet50,
        pascal_canet.pascal_scl_canet_primary_resnet50,
        pascal_canet.pascal_scl_canet_auxiliary_resnet50,
        pascal_canet.pascal_scl_canet_all_vectors_resnet50,
        pascal_canet.pascal_scl_canet_first_loss_resnet50,
        pascal_canet.pascal_scl_canet_second_loss_resnet50,
        pascal_sdaanet.pascal_sdaanet_baseline_resnet50,
        pascal_sdaanet.pascal_sdaanet_saam_resnet50,
        pascal_sdaanet.pascal_sdaanet_sdpm_resnet50,
        pascal_sdaanet.pascal_sdaanet_resnet50,
        pascal_sdaanet.pascal_sdaanet_integral_resnet50,
        pascal_sdaanet.pascal_sdaanet_separate_resnet50,
        coco.coco_pfenet_resnet101,
        coco.coco_pfenet_473_resnet101,
        coco.coco_scl_pfenet_resnet101,
        coco.coco_sdaanet_baseline_resnet101,
        coco.coco_sdaanet_resnet101,
        coco.coco_sdaanet_separate_resnet101,
        coco.coco_sdaanet_baseline_473_resnet101,
        coco.coco_sdaanet_473_resnet101,
        coco.coco_sdaanet_separate_473_resnet101,
        pascal_prototypes.pascal_panet_vgg16,
        pascal_prototypes.pascal_panet_resnet50,
        pascal_prototypes.pascal_panet_vgg16_no_alignment,
        pascal_prototypes.pascal_srpnet_cos_resnet50,
        pascal_prototypes.pascal_srpnet_f_resnet50,
        pascal_prototypes.pascal_srpnet_resnet50,
        pascal_prototypes.coco_srpnet_resnet50,
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
        ValueError: no recipe has this name; near names are given, three at most.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES)
        meant = f"did you mean {' or '.join(near)}?" if near else "no name is near it."
        raise ValueError(f"unknown recipe {name!r}: {meant} `fewseg train --help` lists all {len(RECIPES)}")
    return RECIPES[name]()
