"""Reduced recipes for the small real set: minutes on one core a fold, not the papers' schedules.

Numbers from them are comparable with each other, never with the papers'.
"""

from __future__ import annotations

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import VOC5I_MINI
from fewseg.data.transforms import TrainView
from fewseg.decoders.prior import PriorMap
from fewseg.engine.optimiser import AdamW
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import CrossGuided, ScoreAverage
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.recipes.datasets import shared_folder, voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe

SIZE = 241
SCALES = (1.0, 0.5, 0.25, 0.133)
DROPOUT = 0.1  # chosen with the learning rate on held-out base classes, see docs/results.md
PRIOR = PriorMap(level="layer3", masked_input=None)


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
        precision="bf16-mixed",
        save_every=250,
    )


def voc5i_mini_pfenet() -> Recipe:
    """PFENet on voc5i-mini: ResNet-50 trunk without layer4 (prior from layer3), 241 px, d = 96."""
    return Recipe(
        name="voc5i_mini_pfenet",
        method=PFENetConfig(backbone=trunk(), channels=96, prior=PRIOR, scales=SCALES, mid_dropout=DROPOUT),
        data=voc5i_mini,
        train=head_training(),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=(Evaluation(shots=1), Evaluation(shots=5), Evaluation(shots=5, fusion=ScoreAverage())),
    )


def voc5i_mini_scl() -> Recipe:
    """SCL on PFENet on voc5i-mini: data, schedule and sizes of ``voc5i_mini_pfenet``."""
    return Recipe(
        name="voc5i_mini_scl",
        method=SCLPFENetConfig(
            backbone=trunk(), channels=96, prior=PRIOR, scales=SCALES, mid_dropout=DROPOUT
        ),
        data=voc5i_mini,
        train=head_training(),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=(
            Evaluation(shots=1, fusion=ScoreAverage()),
            Evaluation(shots=5, fusion=ScoreAverage()),
            Evaluation(shots=5, fusion=CrossGuided()),
        ),
    )
