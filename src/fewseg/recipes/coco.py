"""The COCO-20i rows of SCL (Table 2) and SD-AANet (Table II), at the papers' schedules (a GPU's work).

A row with a dagger in Table II scores the same model on labels at 473 x 473: train the recipe without
``_473`` and give its checkpoint to ``fewseg evaluate --recipe`` with it.
"""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import (
    PAPER_SCL,
    PAPER_SDAANET_COCO,
    PAPER_SDAANET_COCO_473,
    PFENET_COCO_473,
    Protocol,
)
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import SGD, TrainConfig
from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig, SeparateTeachers
from fewseg.recipes import variants
from fewseg.recipes.datasets import coco
from fewseg.recipes.pascal import VIEW
from fewseg.recipes.recipe import Evaluation, Recipe, register

_ONE = Evaluation(shots=1)
_FIVE = Evaluation(shots=5)


def _trunk() -> BackboneConfig:
    return BackboneConfig(name="resnet101")


def _training(view: TrainView, lr: float, shots: int = 1) -> TrainConfig:
    """50 epochs with batch 8: PFENet's schedule on COCO, and SD-AANet's (Sec. IV-A2)."""
    return TrainConfig(
        epochs=50,
        batch=8,
        shots=shots,
        view=view,
        optimiser=SGD(lr=lr, momentum=0.9, weight_decay=1e-4, power=0.9),
        save_every=1000,
        workers=8,
    )


def _scl(method: MethodConfig, *lines: Evaluation) -> Recipe:
    view = TrainView(size=473, scale=(0.8, 1.25), rotate=10.0, flip=0.5, blur=0.5)
    return Recipe(
        method=method,
        data=coco,
        train=_training(view, lr=5e-3),
        size=473,
        protocol=PAPER_SCL,
        evaluations=lines,
    )


@register(variants.PFENET)
def coco_pfenet_resnet101() -> Recipe:
    """PFENet, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "PFENet".

    Published mean mIoU: 32.4 (1-shot), 37.4 (5-shot). Hardware of the paper: one RTX 2080 Ti.

    Deviations: SCL's 200 epochs and batch 4 are PASCAL's; on COCO it keeps PFENet's settings, 50 epochs,
    batch 8, SGD 5e-3, scale 0.8 to 1.25. Input 473 as on PASCAL. Batch-norm of the frozen trunk stays in eval
    mode; plain stem with the ImageNet weights that timm names. 5 x 1000 episodes, as SCL's own row; the
    quoted row is of 20 000 in one run.
    """
    method = PFENetConfig(backbone=_trunk())
    return _scl(method, _ONE, Evaluation(shots=5, fusion=MeanVector()))


@register(variants.PFENET_473)
def coco_pfenet_473_resnet101() -> Recipe:
    """``coco_pfenet_resnet101`` on labels at 473 x 473: SD-AANet, Table II, row "PFENet" with a dagger.

    Published mean mIoU: 38.5 (1-shot), 42.7 (5-shot). Hardware of the paper: not given.

    Deviations: as ``coco_pfenet_resnet101``, but with PFENet's own protocol, 20 000 episodes in one run.
    """
    return replace(coco_pfenet_resnet101(), protocol=PFENET_COCO_473)


@register(variants.SCL_PFENET)
def coco_scl_pfenet_resnet101() -> Recipe:
    """SCL on PFENet, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "ours-SCL (PFENet)".

    Published mean mIoU: 37.0 (1-shot), 39.9 (5-shot, CGM). Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``coco_pfenet_resnet101``; CGM and the second support pass in the paper's form.
    """
    return _scl(
        SCLPFENetConfig(backbone=_trunk()),
        Evaluation(shots=1, fusion=ScoreAverage()),
        Evaluation(shots=5, fusion=ScoreAverage()),
        Evaluation(shots=5, fusion=CrossGuided()),
    )


def _sdaanet(
    method: MethodConfig,
    *lines: Evaluation,
    train_shots: int = 1,
    protocol: Protocol = PAPER_SDAANET_COCO,
) -> Recipe:
    return Recipe(
        method=method,
        data=coco,
        train=_training(VIEW, lr=5e-4, shots=train_shots),
        size=VIEW.size,
        protocol=protocol,
        evaluations=lines,
    )


def _baseline(protocol: Protocol) -> Recipe:
    return _sdaanet(PFENetConfig(backbone=_trunk()), _ONE, _FIVE, protocol=protocol)


def _full(protocol: Protocol) -> Recipe:
    return _sdaanet(SDAANetConfig(backbone=_trunk()), _ONE, protocol=protocol)


def _separate(protocol: Protocol) -> Recipe:
    method = SDAANetConfig(backbone=_trunk(), distillation=SeparateTeachers())
    return _sdaanet(method, _FIVE, train_shots=5, protocol=protocol)


@register(variants.SDAANET_BASELINE)
def coco_sdaanet_baseline_resnet101() -> Recipe:
    """SD-AANet's baseline, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "Baseline".

    Published mean mIoU: 37.7 (1-shot), 43.9 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_baseline_resnet50``. The rate is the paper's 5e-4; the released config
    says 5e-3.
    """
    return _baseline(PAPER_SDAANET_COCO)


@register(variants.SDAANET)
def coco_sdaanet_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 1-shot.

    Published mean mIoU: 39.5 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``, also for the weight 50 of L_KD. The rate is the paper's 5e-4;
    the released config says 5e-3.
    """
    return _full(PAPER_SDAANET_COCO)


@register(variants.SDAANET_SEPARATE)
def coco_sdaanet_separate_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 5-shot.

    Published mean mIoU: 46.9 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``coco_sdaanet_resnet101``; trained on 5-shot episodes with a teacher for each shot.
    """
    return _separate(PAPER_SDAANET_COCO)


@register(variants.SDAANET_BASELINE_473)
def coco_sdaanet_baseline_473_resnet101() -> Recipe:
    """``coco_sdaanet_baseline_resnet101`` on labels at 473 x 473: Table II, "Baseline" with a dagger.

    Published mean mIoU: 38.5 (1-shot), 45.0 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``coco_sdaanet_baseline_resnet101``.
    """
    return _baseline(PAPER_SDAANET_COCO_473)


@register(variants.SDAANET_473)
def coco_sdaanet_473_resnet101() -> Recipe:
    """``coco_sdaanet_resnet101`` on labels at 473 x 473: Table II, "SD-AANet" with a dagger, 1-shot.

    Published mean mIoU: 39.6 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``coco_sdaanet_resnet101``.
    """
    return _full(PAPER_SDAANET_COCO_473)


@register(variants.SDAANET_SEPARATE_473)
def coco_sdaanet_separate_473_resnet101() -> Recipe:
    """``coco_sdaanet_separate_resnet101`` on labels at 473 x 473: Table II, "SD-AANet" with a dagger, 5-shot.

    Published mean mIoU: 47.4 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``coco_sdaanet_separate_resnet101``.
    """
    return _separate(PAPER_SDAANET_COCO_473)
