"""SD-AANet's Tables III and V on the small real set; half of the steps of ``voc5i_mini_pfenet``."""

from __future__ import annotations

from dataclasses import replace

from fewseg.data.protocols import VOC5I_MINI
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.sdaanet import (
    IntegralTeacher,
    NoAttention,
    NoDistillation,
    NoGate,
    SDAANetConfig,
    SeparateTeachers,
)
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.voc5i_mini import DROPOUT, PRIOR, SCALES, SIZE, head_training, trunk

STEPS = 750
STEPS_OF_FIVE_SHOTS = 375  # 24 pictures a step instead of 8
_KD_WEIGHT = 5.0  # of 0.6, 5 and the paper's 50, on held-out base classes, see docs/results.md


def _recipe(name: str, method: MethodConfig, *more: Evaluation, train_shots: int = 1) -> Recipe:
    shots = (1, 5) if train_shots == 1 else (train_shots,)
    return Recipe(
        name=name,
        method=method,
        data=voc5i_mini,
        train=head_training(STEPS if train_shots == 1 else STEPS_OF_FIVE_SHOTS, train_shots),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=(*(Evaluation(shots=k) for k in shots), *more),
    )


def voc5i_mini_sdaanet_baseline() -> Recipe:
    """PFENet as SD-AANet's baseline on voc5i-mini (Table III, row "Baseline")."""
    method = PFENetConfig(backbone=trunk(), channels=96, prior=PRIOR, scales=SCALES, mid_dropout=DROPOUT)
    return _recipe("voc5i_mini_sdaanet_baseline", method)


def _full() -> SDAANetConfig:
    return SDAANetConfig(
        backbone=trunk(),
        channels=96,
        prior=PRIOR,
        scales=SCALES,
        mid_dropout=DROPOUT,
        distillation_weight=_KD_WEIGHT,
    )


def voc5i_mini_sdaanet_saam() -> Recipe:
    """The baseline with SAAM on voc5i-mini (Table III, row "Baseline + SAAM")."""
    return _recipe("voc5i_mini_sdaanet_saam", replace(_full(), gate=NoGate(), distillation=NoDistillation()))


def voc5i_mini_sdaanet_sdpm() -> Recipe:
    """The baseline with SDPM on voc5i-mini (Table III, row "Baseline + SDPM")."""
    return _recipe("voc5i_mini_sdaanet_sdpm", replace(_full(), attention=NoAttention()))


def voc5i_mini_sdaanet() -> Recipe:
    """SD-AANet in full on voc5i-mini (Table III, last row, and Table IV: the larger size is 473 / 321)."""
    return _recipe("voc5i_mini_sdaanet", _full(), Evaluation(shots=1, sizes=(SIZE, 353)))


def voc5i_mini_sdaanet_integral() -> Recipe:
    """SDPM trained on 5-shot episodes with one teacher for all (Table V, "Integral"); without SAAM."""
    method = replace(_full(), attention=NoAttention(), distillation=IntegralTeacher())
    return _recipe("voc5i_mini_sdaanet_integral", method, train_shots=5)


def voc5i_mini_sdaanet_separate() -> Recipe:
    """SDPM trained on 5-shot episodes with a teacher for each shot (Table V, "Separate"); without SAAM."""
    method = replace(_full(), attention=NoAttention(), distillation=SeparateTeachers())
    return _recipe("voc5i_mini_sdaanet_separate", method, train_shots=5)
