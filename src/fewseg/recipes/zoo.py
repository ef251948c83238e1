"""The systems that stand in the papers' tables or came after, each on PASCAL-5i and, in short, on voc5i-mini.

Recipes of a paper state what of it is not known here under "Deviations".
"""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import HSNET, HSNET_COCO, VOC5I_MINI
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import AdamW, TrainConfig
from fewseg.methods.fusion import Vote
from fewseg.methods.hsnet import HSNetConfig, blocks_of
from fewseg.recipes.datasets import coco, pascal, voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import SIZE, head_training, trunk

_FLOOR = ("pfenet", "matcher")
HSNET_VARIANT = Variant(name="hsnet", label="HSNet", baselines=_FLOOR)
_VOTED = tuple(Evaluation(shots=k, fusion=Vote()) for k in (1, 5))


def _hsnet_training(batch: int) -> TrainConfig:
    view = TrainView(size=401, scale=(1.0, 1.0), rotate=0.0, flip=0.0, blur=0.0, resize="stretch")
    return TrainConfig(
        steps=20_000,
        batch=batch,
        view=view,
        class_first=1.0,
        optimiser=AdamW(lr=1e-3, weight_decay=0.0, power=0.0, warmup=0),
        save_every=1000,
        workers=4,
    )


@register(HSNET_VARIANT)
def pascal_hsnet_resnet50() -> Recipe:
    """HSNet, ResNet-50, PASCAL-5i: HSNet (Min et al. 2021).

    Deviations: 401 px in place of 400, so that sides are 8k + 1; 20 000 steps, as the paper trains until its
    loss on the validation set stands still; the encoder's strides and widths, see ``HSNet``.
    """
    return Recipe(
        method=HSNetConfig(),
        data=pascal,
        train=_hsnet_training(20),
        size=401,
        protocol=HSNET,
        evaluations=_VOTED,
    )


@register(HSNET_VARIANT)
def coco_hsnet_resnet50() -> Recipe:
    """HSNet, ResNet-50, COCO-20i: HSNet (Min et al. 2021).

    Deviations: as ``pascal_hsnet_resnet50``; episodes of 40 a step.
    """
    return Recipe(
        method=HSNetConfig(),
        data=coco,
        train=_hsnet_training(40),
        size=401,
        protocol=HSNET_COCO,
        evaluations=_VOTED,
    )


@register(HSNET_VARIANT)
def voc5i_mini_hsnet() -> Recipe:
    """HSNet on voc5i-mini: every second block of layer2 and layer3, at strides 8 and 16; width 64.

    Every second block, so that an image's kept features take about the space of PFENet's.
    """
    levels = tuple(level for level in blocks_of("resnet50", ("layer2", "layer3")) if int(level[-1]) % 2)
    backbone: BackboneConfig = replace(trunk(levels), output_stride=32)
    return Recipe(
        method=HSNetConfig(backbone=backbone, channels=64),
        data=voc5i_mini,
        train=head_training(),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=_VOTED,
    )
