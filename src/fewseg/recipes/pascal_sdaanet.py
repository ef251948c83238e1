"""SD-AANet's PASCAL-5i rows (Tables I and III-V), at the paper's schedule (a GPU's work)."""

from __future__ import annotations

from fewseg.data.paper_protocols import PAPER_SDAANET
from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import SGD
from fewseg.engine.train_config import TrainConfig
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
from fewseg.recipes.datasets import pascal
from fewseg.recipes.recipe import Evaluation, Recipe

SIZE = 321
VIEW = TrainView(size=SIZE, scale=(1.0, 1.0), rotate=10.0, flip=0.5, blur=0.0)
"""A mirror, a rotation, and a crop of the image at its own scale (Sec. IV-A2)."""

_ONE = Evaluation(shots=1)
_FIVE = Evaluation(shots=5)


def _recipe(name: str, method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    """SD-AANet's schedule (Sec. IV-A2): 200 epochs, batch 4, SGD 2.5e-3 poly 0.9, weight decay 1e-4."""
    train = TrainConfig(
        epochs=200,
        batch=4,
        shots=train_shots,
        view=VIEW,
        optimiser=SGD(lr=2.5e-3, momentum=0.9, weight_decay=1e-4, power=0.9),
        save_every=1000,
        workers=4,
    )
    return Recipe(
        name=name,
        method=method,
        data=pascal,
        train=train,
        size=SIZE,
        protocol=PAPER_SDAANET,
        evaluations=lines,
    )


def pascal_sdaanet_baseline_resnet50() -> Recipe:
    """SD-AANet's baseline, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and III, "Baseline".

    Table I and Table III (1-shot). Published mean mIoU: 60.4 (1-shot), 62.2 (5-shot).
    Hardware of the paper: one GeForce RTX 3060.

    Deviations: batch-norm of the frozen trunk stays in eval mode (the released code leaves it in train mode).
    PFENet at 321 pixels; the paper does not say whether the 5-shot figure has a training of its own, here it
    is the 1-shot model with mean vectors, as PFENet's.
    """
    return _recipe("pascal_sdaanet_baseline_resnet50", PFENetConfig(), _ONE, _FIVE)


def pascal_sdaanet_saam_resnet50() -> Recipe:
    """The baseline with SAAM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, second row.

    Published mean mIoU: 60.8 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    method = SDAANetConfig(gate=NoGate(), distillation=NoDistillation())
    return _recipe("pascal_sdaanet_saam_resnet50", method, _ONE)


def pascal_sdaanet_sdpm_resnet50() -> Recipe:
    """The baseline with SDPM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, third row.

    Published mean mIoU: 61.4 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    return _recipe("pascal_sdaanet_sdpm_resnet50", SDAANetConfig(attention=NoAttention()), _ONE)


def pascal_sdaanet_resnet50() -> Recipe:
    """SD-AANet, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I, III and IV, "SD-AANet".

    Table I, Table III (last row) and Table IV (multi-scale: inputs of 321 and 473 pixels, 62.2).
    Published mean mIoU: 61.9 (1-shot). The 5-shot row is ``pascal_sdaanet_separate_resnet50``.
    Hardware of the paper: one GeForce RTX 3060.

    Deviations: batch-norm of the frozen trunk stays in eval mode (the released code leaves it in train mode).
    Equations as printed, so the weight 50 of L_KD (Eq. 12) multiplies a sum over channels (Eq. 5) where the
    released code has a mean: it may be far too much, see ``SDAANetConfig.distillation_weight``.
    """
    scales = Evaluation(shots=1, sizes=(SIZE, 473))
    return _recipe("pascal_sdaanet_resnet50", SDAANetConfig(), _ONE, scales)


def pascal_sdaanet_integral_resnet50() -> Recipe:
    """SD-AANet, one teacher for five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table V, "Integral".

    Table V, row "Integral Strategy". Published mean mIoU: 63.9 (5-shot).
    Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_separate_resnet50``.
    """
    method = SDAANetConfig(distillation=IntegralTeacher())
    return _recipe("pascal_sdaanet_integral_resnet50", method, _FIVE, train_shots=5)


def pascal_sdaanet_separate_resnet50() -> Recipe:
    """SD-AANet, a teacher for each of five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and V.

    Table V, row "Separate Strategy", which is the 5-shot figure of Table I: with SAAM, though the caption
    names SDPM alone. Published mean mIoU: 64.4 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``; trained on 5-shot episodes, whose schedule the paper does not
    tell apart from that of one shot.
    """
    method = SDAANetConfig(distillation=SeparateTeachers())
    return _recipe("pascal_sdaanet_separate_resnet50", method, _FIVE, train_shots=5)
