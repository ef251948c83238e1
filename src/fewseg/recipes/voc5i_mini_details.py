"""Recipes that change one detail of a recipe of ``voc5i_mini``, to measure what the detail is worth."""

from __future__ import annotations

from fewseg.methods.sdaanet import PrintedIntegralTeacher, PrintedSeparateTeachers, SupervisedAttention
from fewseg.recipes.recipe import Recipe, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import five_shot_sdaanet, mini_sdaanet


@register(Variant(name="sdaanet_dropout", label="SD-AANet, dropout 0.1", one_part_less=("sdaanet",)))
def voc5i_mini_sdaanet_dropout() -> Recipe:
    """SD-AANet with the dropout of SAAM's bottleneck that the released code has."""
    return mini_sdaanet(attention=SupervisedAttention())


@register(
    Variant(name="sdaanet_printed_integral", label="SD-AANet, Eq. 7", one_part_less=("sdaanet_integral",))
)
def voc5i_mini_sdaanet_printed_integral() -> Recipe:
    """One teacher for five shots as Eq. 7 prints it: the query's prototype alone."""
    return five_shot_sdaanet(PrintedIntegralTeacher())


@register(
    Variant(name="sdaanet_printed_separate", label="SD-AANet, Eq. 9", one_part_less=("sdaanet_separate",))
)
def voc5i_mini_sdaanet_printed_separate() -> Recipe:
    """Five teachers as Eq. 9 prints them: the query's prototype alone."""
    return five_shot_sdaanet(PrintedSeparateTeachers())
