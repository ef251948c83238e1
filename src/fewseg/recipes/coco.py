"""The COCO-20i rows of SCL (Table 2) and SD-AANet (Table II), at the papers' schedules (a GPU's work).

A row with a dagger in Table II scores the same model on labels at 473 x 473: train the recipe without
``_473`` and give its checkpoint to ``fewseg evaluate --recipe`` with it. Hardware of the papers and the
deviation in batch-norm are as in ``pascal``.
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
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig, SeparateTeachers
from fewseg.recipes import variants
from fewseg.recipes.datasets import coco
from fewseg.recipes.pascal import VIEW, poly_training
from fewseg.recipes.recipe import CROSS_GUIDED, PLAIN, Evaluation, Recipe, register

_RESNET101 = BackboneConfig(name="resnet101")
_SCALES = (1.0, 0.5, 0.25, 0.125)
_ONE, _FIVE = PLAIN


def _recipe(
    method: MethodConfig,
    view: TrainView,
    protocol: Protocol,
    *lines: Evaluation,
    lr: float,
    train_shots: int = 1,
) -> Recipe:
    """50 epochs with batch 8: PFENet's schedule on COCO, and SD-AANet's (Sec. IV-A2)."""
    return Recipe(
        method=method,
        data=coco,
        train=poly_training(view, epochs=50, batch=8, lr=lr, shots=train_shots),
        size=view.size,
        protocol=protocol,
        evaluations=lines,
    )


def _scl(method: MethodConfig, *lines: Evaluation) -> Recipe:
    view = TrainView(size=641, scale=(0.8, 1.25), rotate=10.0, rotate_probability=0.5, flip=0.5, blur=0.5)
    return _recipe(method, view, PAPER_SCL, *lines, lr=5e-3)


@register(variants.PFENET)
def coco_pfenet_resnet101() -> Recipe:
    """PFENet, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "PFENet".

    Deviations: SCL's 200 epochs and batch 4 are PASCAL's; on COCO it keeps PFENet's settings, 50 epochs,
    batch 8, SGD 5e-3, scale 0.8 to 1.25. Input 641 and pyramid scales 1, 0.5, 0.25, 0.125 are shown by the
    released code alone; plain stem with the ImageNet weights that
    timm names. 5 x 1000 episodes, as SCL's own row; the quoted row is of 20 000 in one run.
    """
    return _scl(PFENetConfig(backbone=_RESNET101, scales=_SCALES), *PLAIN)


@register(variants.PFENET_473)
def coco_pfenet_473_resnet101() -> Recipe:
    """SD-AANet (Zhao et al. 2022), Table II, row "PFENet" with a dagger: labels at 473 x 473.

    Deviations: as ``coco_pfenet_resnet101``, but with PFENet's own protocol, 20 000 episodes in one run.
    """
    return replace(coco_pfenet_resnet101(), protocol=PFENET_COCO_473)


@register(variants.SCL_PFENET)
def coco_scl_pfenet_resnet101() -> Recipe:
    """SCL on PFENet, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "ours-SCL (PFENet)".

    Deviations: as ``coco_pfenet_resnet101``; CGM and the second support pass in the paper's form.
    """
    return _scl(SCLPFENetConfig(backbone=_RESNET101, scales=_SCALES), *CROSS_GUIDED)


def _sdaanet(method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    return _recipe(method, VIEW, PAPER_SDAANET_COCO, *lines, lr=5e-4, train_shots=train_shots)


@register(variants.SDAANET_BASELINE)
def coco_sdaanet_baseline_resnet101() -> Recipe:
    """SD-AANet's baseline, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "Baseline".

    Deviations: as ``pascal_sdaanet_baseline_resnet50``. The rate is the paper's 5e-4; the released config
    says 5e-3.
    """
    return _sdaanet(PFENetConfig(backbone=_RESNET101), _ONE, _FIVE)


@register(variants.SDAANET)
def coco_sdaanet_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 1-shot.

    Deviations: as ``pascal_sdaanet_resnet50``, also for the weight 50 of L_KD. The rate is the paper's 5e-4;
    the released config says 5e-3.
    """
    return _sdaanet(SDAANetConfig(backbone=_RESNET101), _ONE)


@register(variants.SDAANET_SEPARATE)
def coco_sdaanet_separate_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 5-shot.

    Deviations: as ``coco_sdaanet_resnet101``; trained on 5-shot episodes with a teacher for each shot.
    """
    method = SDAANetConfig(backbone=_RESNET101, distillation=SeparateTeachers())
    return _sdaanet(method, _FIVE, train_shots=5)


@register(variants.SDAANET_BASELINE_473)
def coco_sdaanet_baseline_473_resnet101() -> Recipe:
    """SD-AANet (Zhao et al. 2022), Table II, "Baseline" with a dagger: labels at 473 x 473.

    Deviations: as ``coco_sdaanet_baseline_resnet101``.
    """
    return replace(coco_sdaanet_baseline_resnet101(), protocol=PAPER_SDAANET_COCO_473)


@register(variants.SDAANET_473)
def coco_sdaanet_473_resnet101() -> Recipe:
    """SD-AANet (Zhao et al. 2022), Table II, "SD-AANet" with a dagger, 1-shot: labels at 473 x 473.

    Deviations: as ``coco_sdaanet_resnet101``.
    """
    return replace(coco_sdaanet_resnet101(), protocol=PAPER_SDAANET_COCO_473)


@register(variants.SDAANET_SEPARATE_473)
def coco_sdaanet_separate_473_resnet101() -> Recipe:
    """SD-AANet (Zhao et al. 2022), Table II, "SD-AANet" with a dagger, 5-shot: labels at 473 x 473.

    Deviations: as ``coco_sdaanet_separate_resnet101``.
    """
    return replace(coco_sdaanet_separate_resnet101(), protocol=PAPER_SDAANET_COCO_473)
