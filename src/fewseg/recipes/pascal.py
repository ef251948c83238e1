"""The papers' PASCAL-5i rows, at the papers' schedules (a GPU's work)."""

from __future__ import annotations

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import PAPER_SCL
from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import SGD
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.recipes.datasets import pascal
from fewseg.recipes.recipe import Evaluation, Recipe


def _train() -> TrainConfig:
    """PFENet's schedule, which SCL keeps (SCL, Sec. 5.1): 200 epochs, batch 4, SGD 2.5e-3 poly 0.9."""
    return TrainConfig(
        epochs=200,
        batch=4,
        view=TrainView(size=473, scale=(0.9, 1.1), rotate=10.0, flip=0.5, blur=0.5),
        optimiser=SGD(lr=2.5e-3, momentum=0.9, weight_decay=1e-4, power=0.9),
        save_every=1000,
        workers=4,
    )


def pascal_pfenet_resnet50() -> Recipe:
    """PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "PFENet".

    Published mean mIoU: 60.8 (1-shot), 61.9 (5-shot); FB-IoU 71.4 (Table 3, 1-shot).
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: batch-norm of the frozen trunk stays in eval mode (the released code leaves it in train
    mode); plain stem with the ImageNet weights that timm names (the released model has the deep stem).
    """
    return Recipe(
        name="pascal_pfenet_resnet50",
        method=PFENetConfig(backbone=BackboneConfig()),
        data=pascal,
        train=_train(),
        size=473,
        protocol=PAPER_SCL,
        evaluations=(Evaluation(shots=1), Evaluation(shots=5, fusion=MeanVector())),
    )


def pascal_scl_pfenet_resnet50() -> Recipe:
    """SCL on PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "ours-SCL (PFENet)".

    Published mean mIoU: 61.8 (1-shot), 62.9 (5-shot); FB-IoU 71.9 and 72.8 (Table 3).
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_pfenet_resnet50``; CGM and the second support pass in the paper's form.
    """
    return Recipe(
        name="pascal_scl_pfenet_resnet50",
        method=SCLPFENetConfig(backbone=BackboneConfig()),
        data=pascal,
        train=_train(),
        size=473,
        protocol=PAPER_SCL,
        evaluations=(
            Evaluation(shots=1, fusion=ScoreAverage()),
            Evaluation(shots=5, fusion=ScoreAverage()),
            Evaluation(shots=5, fusion=CrossGuided()),
        ),
    )
