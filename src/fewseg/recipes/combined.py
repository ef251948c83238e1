"""Recipes of fewseg's combined model on the small real sets, with one part less, and with other training.

Data, schedule and sizes are those of ``voc5i_mini_scl``. Choose parts on base classes (``--train.held-out``
and ``fewseg evaluate --classes held-out``), never on novel ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewseg.data.protocols import COCO_MINI
from fewseg.methods.combined import CombinedConfig, NoPrototypeScore
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.scl import SelfGuided
from fewseg.methods.sdaanet import NoAttention
from fewseg.recipes.datasets import coco_mini, voc5i_mini_with_coco
from fewseg.recipes.recipe import CROSS_GUIDED, Evaluation, Recipe, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import TWO_SIZES, pfenet_parts, voc5i_mini_scl

_TWO_SIZES = (
    Evaluation(shots=1, fusion=ScoreAverage(), sizes=TWO_SIZES),
    Evaluation(shots=5, fusion=CrossGuided(), sizes=TWO_SIZES),
)

COMBINED = Variant(
    name="combined",
    label="fewseg",
    baselines=("scl_pfenet", "pfenet", "matcher"),
    one_part_less=("combined_no_attention", "combined_no_prototypes", "combined_no_self_guidance"),
)


def _combined(**parts: Any) -> Recipe:
    method = CombinedConfig(**pfenet_parts(), **parts)
    return replace(voc5i_mini_scl(), method=method, evaluations=(*CROSS_GUIDED, *_TWO_SIZES))


@register(COMBINED)
def voc5i_mini_fewseg() -> Recipe:
    """The combined model on voc5i-mini: self-guidance, attention, prototype score; also at two sizes."""
    return _combined()


@register(COMBINED)
def coco_mini_fewseg() -> Recipe:
    """The combined model on coco-mini, split B."""
    return replace(_combined(), data=coco_mini, protocol=COCO_MINI)


@register(Variant(name="combined_no_attention", label="fewseg, no attention"))
def voc5i_mini_fewseg_no_attention() -> Recipe:
    """The combined model without SD-AANet's attention."""
    return _combined(attention=NoAttention())


@register(Variant(name="combined_no_prototypes", label="fewseg, no prototype score"))
def voc5i_mini_fewseg_no_prototypes() -> Recipe:
    """The combined model without the prototype score."""
    return _combined(prototypes=NoPrototypeScore())


@register(Variant(name="combined_no_self_guidance", label="fewseg, no self-guidance"))
def voc5i_mini_fewseg_no_self_guidance() -> Recipe:
    """The combined model with the plain support vector, as in the first row of SCL's Table 5."""
    return _combined(self_guided=SelfGuided(vectors=("initial",), losses=("first",)))


@register(
    Variant(name="combined_novel_ignored", label="fewseg, novel pixels ignored", one_part_less=("combined",))
)
def voc5i_mini_fewseg_novel_ignored() -> Recipe:
    """The combined model, trained with the pixels of novel classes ignored."""
    recipe = _combined()
    assert recipe.train is not None
    return replace(recipe, train=replace(recipe.train, novel_pixels="ignored"))


@register(Variant(name="combined_75", label="fewseg, 75 base classes", one_part_less=("combined",)))
def voc5i_mini_fewseg_with_coco() -> Recipe:
    """The combined model, trained on the photographs of coco-mini too: 75 base classes in place of 15."""
    return replace(_combined(), data=voc5i_mini_with_coco)
