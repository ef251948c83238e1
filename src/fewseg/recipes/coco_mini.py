"""Reduced recipes on a second small real set, 500 COCO photographs; and on VOC's with them to train on.

Method, schedule and sizes are those of ``voc5i_mini``. Never call a number from here COCO-20i.
"""

from __future__ import annotations

from dataclasses import replace

from fewseg.data.protocols import COCO_MINI
from fewseg.recipes import variants
from fewseg.recipes.datasets import coco_mini, coco_mini_contiguous, voc5i_mini_with_coco
from fewseg.recipes.recipe import Recipe, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import (
    voc5i_mini_matcher,
    voc5i_mini_pfenet,
    voc5i_mini_scl,
    voc5i_mini_srpnet,
)


def _on_coco(recipe: Recipe) -> Recipe:
    return replace(recipe, data=coco_mini, protocol=COCO_MINI)


@register(variants.MATCHER)
def coco_mini_matcher() -> Recipe:
    """The training-free matcher on coco-mini, split B."""
    return _on_coco(voc5i_mini_matcher())


@register(variants.MATCHER)
def coco_mini_a_matcher() -> Recipe:
    """The training-free matcher on coco-mini, split A."""
    return replace(coco_mini_matcher(), data=coco_mini_contiguous)


@register(variants.PFENET)
def coco_mini_pfenet() -> Recipe:
    """PFENet on coco-mini, split B."""
    return _on_coco(voc5i_mini_pfenet())


@register(variants.SCL_PFENET)
def coco_mini_scl() -> Recipe:
    """SCL on PFENet on coco-mini, split B."""
    return _on_coco(voc5i_mini_scl())


@register(variants.SRPNET)
def coco_mini_srpnet() -> Recipe:
    """SRPNet on coco-mini, split B."""
    return _on_coco(voc5i_mini_srpnet())


@register(Variant(name="pfenet_75", label="PFENet, 75 base classes", one_part_less=("pfenet",)))
def voc5i_mini_pfenet_with_coco() -> Recipe:
    """PFENet on voc5i-mini, trained on the photographs of coco-mini too: 75 base classes in place of 15."""
    return replace(voc5i_mini_pfenet(), data=voc5i_mini_with_coco)


@register(Variant(name="scl_pfenet_75", label="SCL (PFENet), 75 base classes", one_part_less=("scl_pfenet",)))
def voc5i_mini_scl_with_coco() -> Recipe:
    """SCL on voc5i-mini, trained on the photographs of coco-mini too: 75 base classes in place of 15."""
    return replace(voc5i_mini_scl(), data=voc5i_mini_with_coco)
