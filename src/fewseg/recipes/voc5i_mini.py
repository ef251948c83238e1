"""Reduced recipes for the small real set: minutes on one core a fold, not the papers' schedules.

Numbers from them are comparable with each other, never with the papers'.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import VOC5I_MINI
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import AdamW, StepSGD, TrainConfig
from fewseg.methods.canet import CANetConfig, Refinement
from fewseg.methods.fusion import ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import Alignment, NoAlignment, PANetConfig, PrototypeAlignment
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.prototypical import Cosine, Fidelity, Metric
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig
from fewseg.methods.sdaanet import (
    DistillationConfig,
    IntegralTeacher,
    NoAttention,
    NoDistillation,
    NoGate,
    SDAANetConfig,
    SeparateTeachers,
    SupervisedAttention,
)
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.recipes import variants
from fewseg.recipes.datasets import shared_folder, voc5i_mini
from fewseg.recipes.recipe import (
    AVERAGED,
    CROSS_GUIDED,
    ITERATED,
    ON_SUPPORT,
    PLAIN,
    Evaluation,
    Recipe,
    register,
)

SIZE = 241
TWO_SIZES = (SIZE, 353)  # the larger is to the smaller as 473 to 321
STEPS = 750
STEPS_OF_FIVE_SHOTS = 375  # 24 pictures a step instead of 8
_DROPOUT = 0.1  # chosen with the learning rate on held-out base classes, see docs/studies
_RESET = 0.3  # 35 to 48 % of the draws have been seen before: 30 % of them then bring a history, as p_r means
_KD_WEIGHT = 5.0  # of 0.6, 5 and the paper's 50, on held-out base classes, see docs/studies
_LEVELS = ("layer1", "layer2", "layer3")


def trunk(levels: tuple[str, ...] = ("layer2", "layer3"), *, trainable: bool = False) -> BackboneConfig:
    """The ResNet-50 v1 trunk of the small real set: ImageNet weights, no layer4."""
    return BackboneConfig(
        name="resnet50",
        weights=str(shared_folder() / "weights" / "resnet50-v1-trunk.safetensors"),
        levels=levels,
        stride_on_1x1=True,
        bn_eps=1.001e-5,
        trainable=trainable,
    )


def head_training(steps: int = 1500, shots: int = 1) -> TrainConfig:
    """Trains a head on cached features of the frozen trunk."""
    return TrainConfig(
        steps=steps,
        batch=4,
        shots=shots,
        view=TrainView(size=SIZE, scale=(0.9, 1.4), flip=1.0, resize="letterbox"),
        cached_views=1,
        class_first=0.5,
        optimiser=AdamW(lr=1e-3),
        precision="auto",
        save_every=250,
    )


def end_to_end_training() -> TrainConfig:
    """The papers' training in short: end to end, batch 1, flips only; 500 steps in place of 30 000."""
    return TrainConfig(
        steps=500,
        batch=1,
        view=TrainView(size=SIZE, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox"),
        class_first=0.5,
        optimiser=StepSGD(lr=3e-4, every=350),  # chosen on held-out base classes, see docs/studies
        precision="auto",
        save_every=200,
        workers=0,
    )


def _recipe(method: MethodConfig, train: TrainConfig | None, *lines: Evaluation) -> Recipe:
    return Recipe(
        method=method, data=voc5i_mini, train=train, size=SIZE, protocol=VOC5I_MINI, evaluations=lines
    )


def pfenet_parts() -> dict[str, Any]:
    """What PFENet and the networks on it share: no layer4, so the prior is from layer3."""
    return {
        "backbone": trunk(),
        "channels": 96,
        "prior": PriorMap(level="layer3", masked_input=None),
        "scales": (1.0, 0.5, 0.25, 0.133),
        "rounding": "nearest",  # what the committed results were trained with
        "mid_dropout": _DROPOUT,
    }


def _canet_parts() -> dict[str, Any]:
    """What CANet and SCL on it share."""
    return {
        "backbone": trunk(),
        "channels": 96,
        "refinement": Refinement(stop_early=True),
        "history_reset": _RESET,
        "mid_dropout": _DROPOUT,
        "head_dropout": _DROPOUT,
    }


@register(variants.PFENET)
def voc5i_mini_pfenet() -> Recipe:
    """PFENet on voc5i-mini: ResNet-50 trunk without layer4 (prior from layer3), 241 px, d = 96."""
    return _recipe(PFENetConfig(**pfenet_parts()), head_training(), *PLAIN, AVERAGED[1])


@register(variants.SCL_PFENET)
def voc5i_mini_scl() -> Recipe:
    """SCL on PFENet on voc5i-mini: data, schedule and sizes of ``voc5i_mini_pfenet``."""
    return _recipe(SCLPFENetConfig(**pfenet_parts()), head_training(), *CROSS_GUIDED)


@register(variants.CANET)
def voc5i_mini_canet() -> Recipe:
    """CANet on voc5i-mini: d = 96; a pair is refined until its mask stands still, four times at most."""
    return _recipe(CANetConfig(**_canet_parts(), fusion=ScoreAverage()), head_training(STEPS), *AVERAGED)


@register(variants.SCL_CANET)
def voc5i_mini_scl_canet() -> Recipe:
    """SCL on CANet on voc5i-mini: sizes and schedule of ``voc5i_mini_canet``."""
    return _recipe(SCLCANetConfig(**_canet_parts()), head_training(STEPS), *CROSS_GUIDED)


def mini_srpnet(*, grid: str = "layer3", metric: Metric | None = None, srp: bool = True) -> Recipe:
    """SRPNet of the small set: layer1 to layer3, as these weights have no layer4; no stem, for speed."""
    method = SRPNetConfig(
        backbone=trunk(_LEVELS, trainable=True),
        levels=_LEVELS,
        grid=grid,
        metric=metric or Fidelity(),
        support_weight=float(srp),
    )
    more = () if metric else (*ITERATED, *ON_SUPPORT)
    return _recipe(method, end_to_end_training(), *PLAIN, *more)


@register(variants.SRPNET_COS)
def voc5i_mini_srpnet_cos() -> Recipe:
    """SRPNet's baseline with the cosine on voc5i-mini (Table 1, row "Cos")."""
    return mini_srpnet(metric=Cosine(), srp=False)


@register(variants.SRPNET_F)
def voc5i_mini_srpnet_f() -> Recipe:
    """SRPNet with fidelity, without SRP, on voc5i-mini (Table 1, rows "F", "F + IQI" and "F (sup)")."""
    return mini_srpnet(srp=False)


@register(variants.SRPNET)
def voc5i_mini_srpnet() -> Recipe:
    """SRPNet in full on voc5i-mini (Table 1, rows "F + SRP", "F + SRP + IQI" and "F+SRP (sup)")."""
    return mini_srpnet()


def _panet(alignment: Alignment) -> Recipe:
    method = PANetConfig(backbone=trunk(("layer3",), trainable=True), level="layer3", alignment=alignment)
    return _recipe(method, end_to_end_training(), *PLAIN)


@register(variants.PANET)
def voc5i_mini_panet() -> Recipe:
    """PANet on voc5i-mini: ResNet-50 without layer4 in place of VGG-16, trained end to end."""
    return _panet(PrototypeAlignment())


@register(variants.PANET_NO_ALIGNMENT)
def voc5i_mini_panet_no_alignment() -> Recipe:
    """PANet without the alignment loss on voc5i-mini: all else as ``voc5i_mini_panet``."""
    return _panet(NoAlignment())


@register(variants.MATCHER)
def voc5i_mini_matcher() -> Recipe:
    """The training-free matcher on voc5i-mini: cosine to each prototype, with and without IQI."""
    return _recipe(MatcherConfig(backbone=trunk(), metric=Cosine()), None, *PLAIN, *ITERATED)


@register(variants.MATCHER_FIDELITY)
def voc5i_mini_matcher_fidelity() -> Recipe:
    """The training-free matcher on voc5i-mini: fidelity to each prototype, with and without IQI.

    The features come out of ReLUs, so that no cosine is below 0 and its square keeps every cell's order:
    without IQI this is ``voc5i_mini_matcher`` but for the resizing.
    """
    return _recipe(MatcherConfig(backbone=trunk(), metric=Fidelity()), None, *PLAIN, *ITERATED)


@register(variants.SDAANET_BASELINE)
def voc5i_mini_sdaanet_baseline() -> Recipe:
    """PFENet as SD-AANet's baseline on voc5i-mini (Table III, row "Baseline")."""
    return _recipe(PFENetConfig(**pfenet_parts()), head_training(STEPS), *PLAIN)


def mini_sdaanet(*more: Evaluation, **parts: Any) -> Recipe:
    """SD-AANet of the small set with parts of its own."""
    # the committed results were trained without the attention's dropout
    parts = {"attention": SupervisedAttention(dropout=0.0)} | parts
    method = SDAANetConfig(**pfenet_parts(), distillation_weight=_KD_WEIGHT, **parts)
    return _recipe(method, head_training(STEPS), *PLAIN, *more)


@register(variants.SDAANET_SAAM)
def voc5i_mini_sdaanet_saam() -> Recipe:
    """The baseline with SAAM on voc5i-mini (Table III, row "Baseline + SAAM")."""
    return mini_sdaanet(gate=NoGate(), distillation=NoDistillation())


@register(variants.SDAANET_SDPM)
def voc5i_mini_sdaanet_sdpm() -> Recipe:
    """The baseline with SDPM on voc5i-mini (Table III, row "Baseline + SDPM")."""
    return mini_sdaanet(attention=NoAttention())


@register(variants.SDAANET)
def voc5i_mini_sdaanet() -> Recipe:
    """SD-AANet in full on voc5i-mini (Table III, last row, and Table IV: the larger size is 473 / 321).

    Two input sizes beside it, which no paper prints.
    """
    return mini_sdaanet(Evaluation(shots=1, output_sizes=TWO_SIZES), Evaluation(shots=1, sizes=TWO_SIZES))


def five_shot_sdaanet(distillation: DistillationConfig) -> Recipe:
    """SD-AANet with SAAM, trained on 5-shot episodes; the attention has the dropout of the released code."""
    recipe = mini_sdaanet(attention=SupervisedAttention(), distillation=distillation)
    return replace(recipe, train=head_training(STEPS_OF_FIVE_SHOTS, 5), evaluations=PLAIN[1:])


@register(variants.SDAANET_INTEGRAL)
def voc5i_mini_sdaanet_integral() -> Recipe:
    """SD-AANet trained on 5-shot episodes with one teacher for all (Table V, "Integral")."""
    return five_shot_sdaanet(IntegralTeacher())


@register(variants.SDAANET_SEPARATE)
def voc5i_mini_sdaanet_separate() -> Recipe:
    """SD-AANet trained on 5-shot episodes with a teacher for each shot (Table V, "Separate")."""
    return five_shot_sdaanet(SeparateTeachers())
