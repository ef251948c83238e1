"""Recipes that change one detail of a recipe of ``voc5i_mini``, to measure what the detail is worth."""

from __future__ import annotations

from dataclasses import replace

from fewseg.engine.train_config import AdamW
from fewseg.methods.fusion import IterativeInference
from fewseg.methods.scl import SCLCANetConfig
from fewseg.methods.sdaanet import PrintedIntegralTeacher, PrintedSeparateTeachers, SupervisedAttention
from fewseg.recipes.recipe import Evaluation, Recipe, joined_by, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import (
    TWO_SIZES,
    five_shot_sdaanet,
    mini_sdaanet,
    mini_srpnet,
    voc5i_mini_scl_canet,
)


@register(Variant(name="sdaanet_dropout", label="SD-AANet, dropout 0.1", one_part_less=("sdaanet",)))
def voc5i_mini_sdaanet_dropout() -> Recipe:
    """SD-AANet with the dropout of SAAM's bottleneck that the released code has; also at two sizes."""
    return mini_sdaanet(Evaluation(shots=1, output_sizes=TWO_SIZES), attention=SupervisedAttention())


@register(
    Variant(name="scl_canet_released", label="SCL (CANet), trained as released", one_part_less=("scl_canet",))
)
def voc5i_mini_scl_canet_released() -> Recipe:
    """SCL on CANet with what only the released code shows of the training.

    Dropout in ASPP, initial weights from N(0, 0.01) and a constant rate. Its inference, at three scales of
    an image's own size with the answer fed back, is ``fewseg evaluate CHECKPOINT --image-scales 0.7 1 1.3``.
    """
    recipe = voc5i_mini_scl_canet()
    assert isinstance(recipe.method, SCLCANetConfig)
    assert recipe.train is not None
    return replace(
        recipe,
        method=replace(recipe.method, aspp_dropout=0.5, initialisation="normal"),
        train=replace(recipe.train, optimiser=AdamW(lr=1e-3, power=0.0)),
    )


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


@register(
    Variant(name="srpnet_f_largest_grid", label="SRPNet, fidelity, stride 4", one_part_less=("srpnet_f",))
)
def voc5i_mini_srpnet_f_largest_grid() -> Recipe:
    """SRPNet without SRP, its pyramid on the largest map's grid (stride 4) as in Sec. 3.2."""
    return mini_srpnet(grid="largest", srp=False)


@register(
    Variant(
        name="srpnet_largest_grid",
        label="SRPNet, stride 4",
        one_part_less=("srpnet", "srpnet_f_largest_grid"),
    )
)
def voc5i_mini_srpnet_largest_grid() -> Recipe:
    """SRPNet in full, its pyramid on the largest map's grid (stride 4) as in Sec. 3.2."""
    return mini_srpnet(grid="largest")


@register(
    Variant(
        name="srpnet_stretched", label="SRPNet, stride 4, stretched", one_part_less=("srpnet_largest_grid",)
    )
)
def voc5i_mini_srpnet_stretched() -> Recipe:
    """``voc5i_mini_srpnet_largest_grid`` on images stretched to the square as in Sec. 4.2."""
    recipe = mini_srpnet(grid="largest")
    assert recipe.train is not None
    return replace(
        recipe,
        train=replace(recipe.train, view=replace(recipe.train.view, resize="stretch")),
        protocol=replace(recipe.protocol, name="voc5i-mini-stretched", aspect="stretched"),
    )


@register(
    Variant(
        name="srpnet_printed_iteration",
        label="SRPNet, stride 4, Eq. 12 as printed",
        one_part_less=("srpnet_largest_grid",),
    )
)
def voc5i_mini_srpnet_printed_iteration() -> Recipe:
    """Iterative inference without the guard, as Eq. 12 prints it.

    Give the checkpoint of ``voc5i_mini_srpnet_largest_grid`` to ``fewseg evaluate --recipe`` with it.
    """
    return replace(mini_srpnet(grid="largest"), evaluations=joined_by(IterativeInference(guard=False)))
