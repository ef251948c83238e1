"""Recipes that change one detail of a recipe of ``voc5i_mini``, to measure what the detail is worth."""

from __future__ import annotations

from dataclasses import replace

from fewseg.engine.train_config import AdamW
from fewseg.methods.fusion import IterativeInference
from fewseg.methods.scl import SCLCANetConfig
from fewseg.methods.sdaanet import (
    DistillationConfig,
    PrintedIntegralTeacher,
    PrintedSeparateTeachers,
    PrototypeTeacher,
    SDAANetConfig,
    SeparateTeachers,
    SupervisedAttention,
    UnitTeachers,
)
from fewseg.recipes.recipe import PLAIN, Evaluation, Recipe, joined_by, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import (
    TWO_SIZES,
    five_shot_sdaanet,
    mini_sdaanet,
    mini_srpnet,
    voc5i_mini_pfenet,
    voc5i_mini_scl,
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


def _teacher(name: str, label: str) -> Variant:
    return Variant(
        name=f"sdaanet_{name}", label=f"SD-AANet, {label}", one_part_less=("sdaanet_saam", "sdaanet")
    )


def _taught_by(teacher: DistillationConfig) -> Recipe:
    return replace(mini_sdaanet(distillation=teacher), evaluations=PLAIN)


@register(_teacher("printed", "query alone"))
def voc5i_mini_sdaanet_printed() -> Recipe:
    """SD-AANet, taught by the query's prototype alone, as Eq. 9 prints it."""
    return _taught_by(PrintedSeparateTeachers())


@register(_teacher("detached", "detached"))
def voc5i_mini_sdaanet_detached() -> Recipe:
    """SD-AANet, no gradient going through the teacher."""
    return _taught_by(SeparateTeachers(detach=True))


@register(_teacher("unit", "unit length"))
def voc5i_mini_sdaanet_unit() -> Recipe:
    """SD-AANet, every prototype scaled to one length before its softmax."""
    return _taught_by(UnitTeachers())


@register(_teacher("released", "released teacher"))
def voc5i_mini_sdaanet_released() -> Recipe:
    """SD-AANet with the released code's distillation, and its weight of 50 for a mean over channels."""
    recipe = _taught_by(PrototypeTeacher())
    assert isinstance(recipe.method, SDAANetConfig)
    return replace(recipe, method=replace(recipe.method, distillation_weight=50.0))


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


def _novel_ignored(recipe: Recipe) -> Recipe:
    assert recipe.train is not None
    return replace(recipe, train=replace(recipe.train, novel_pixels="ignored"))


def _novel_left_out(recipe: Recipe) -> Recipe:
    assert recipe.train is not None
    return replace(recipe, train=replace(recipe.train, drop_novel=True))


@register(
    Variant(name="pfenet_novel_ignored", label="PFENet, novel pixels ignored", one_part_less=("pfenet",))
)
def voc5i_mini_pfenet_novel_ignored() -> Recipe:
    """PFENet, trained with the pixels of novel classes ignored in place of called background."""
    return _novel_ignored(voc5i_mini_pfenet())


@register(
    Variant(name="pfenet_novel_left_out", label="PFENet, novel images left out", one_part_less=("pfenet",))
)
def voc5i_mini_pfenet_novel_left_out() -> Recipe:
    """PFENet, trained without the images that show a novel class, as BAM is."""
    return _novel_left_out(voc5i_mini_pfenet())


@register(
    Variant(
        name="scl_pfenet_novel_ignored",
        label="SCL (PFENet), novel pixels ignored",
        one_part_less=("scl_pfenet",),
    )
)
def voc5i_mini_scl_novel_ignored() -> Recipe:
    """SCL on PFENet, trained with the pixels of novel classes ignored in place of called background."""
    return _novel_ignored(voc5i_mini_scl())


@register(
    Variant(
        name="scl_pfenet_novel_left_out",
        label="SCL (PFENet), novel images left out",
        one_part_less=("scl_pfenet",),
    )
)
def voc5i_mini_scl_novel_left_out() -> Recipe:
    """SCL on PFENet, trained without the images that show a novel class, as BAM is."""
    return _novel_left_out(voc5i_mini_scl())
