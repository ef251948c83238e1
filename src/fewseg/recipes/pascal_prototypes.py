"""The rows of PANet and SRPNet, at the papers' schedules (a GPU's work), and the honest floor."""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import PAPER_SRPNET
from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import StepSGD
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import IterativeInference
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import Alignment, NoAlignment, PANetConfig, PrototypeAlignment
from fewseg.methods.registry import MethodConfig
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.prototypes import Cosine
from fewseg.recipes.datasets import coco_three_parts, pascal
from fewseg.recipes.recipe import Evaluation, Recipe

_SIZE = 417
_PLAIN = (Evaluation(shots=1), Evaluation(shots=5))
_ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))
_ON_SUPPORT = (Evaluation(shots=1, on="support"),)


def _train() -> TrainConfig:
    """PANet's schedule (Sec. 4.1), which SRPNet keeps (Sec. 4.2): 30 000 steps of one episode, flips only."""
    view = TrainView(size=_SIZE, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox")
    return TrainConfig(
        steps=30_000,
        batch=1,
        view=view,
        class_first=1.0,
        min_area=1,
        optimiser=StepSGD(),
        save_every=1000,
        workers=4,
    )


def _recipe(name: str, method: MethodConfig, train: TrainConfig | None, *lines: Evaluation) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        data=pascal,
        train=train,
        size=_SIZE,
        protocol=PAPER_SRPNET,
        evaluations=lines,
    )


def _panet(name: str, backbone: BackboneConfig, alignment: Alignment) -> Recipe:
    two_ways = tuple(Evaluation(ways=2, shots=k) for k in (1, 5))
    method = PANetConfig(backbone=backbone, alignment=alignment)
    return _recipe(name, method, _train(), *_PLAIN, *two_ways)


def _vgg16() -> BackboneConfig:
    return BackboneConfig(name="vgg16", levels=("layer4",), trainable=True, last_relu=False)


def pascal_panet_vgg16() -> Recipe:
    """PANet, VGG-16, PASCAL-5i: SRPNet (Ding et al. 2022), Table 2, row "PANet".

    Published mean mIoU: 48.1 (1-shot), 55.7 (5-shot). The 2-way lines are in no table of the three papers.
    Hardware of the paper: not given.

    Deviations: aspect kept and padded where the paper stretches to a square; maps resized with aligned
    corners; ignored support pixels count nowhere (released code: background).
    """
    return _panet("pascal_panet_vgg16", _vgg16(), PrototypeAlignment())


def pascal_panet_vgg16_no_alignment() -> Recipe:
    """PANet without its alignment loss, VGG-16, PASCAL-5i: the ablation of PANet (Wang et al. 2019), Sec. 4.

    Published mean mIoU: none in the tables of the three papers. Hardware of the paper: not given.

    Deviations: as ``pascal_panet_vgg16``.
    """
    return _panet("pascal_panet_vgg16_no_alignment", _vgg16(), NoAlignment())


def pascal_panet_resnet50() -> Recipe:
    """PANet, ResNet-50, PASCAL-5i: on the backbone of all the others.

    Published mean mIoU: none; on VGG-16 see ``pascal_panet_vgg16``. Hardware of the paper: not given.

    Deviations: as ``pascal_panet_vgg16``, and the backbone.
    """
    backbone = BackboneConfig(levels=("layer4",), trainable=True)
    return _panet("pascal_panet_resnet50", backbone, PrototypeAlignment())


def pascal_srpnet_cos_resnet50() -> Recipe:
    """SRPNet's baseline, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, row "Cos".

    Published mean mIoU: 53.6 (1-shot). Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    method = SRPNetConfig(metric=Cosine(), support_weight=0.0)
    return _recipe("pascal_srpnet_cos_resnet50", method, _train(), *_PLAIN)


def pascal_srpnet_f_resnet50() -> Recipe:
    """SRPNet without SRP, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, "F", "F + IQI" (sup).

    Published mean mIoU: 55.4 (1-shot), 58.0 with IQI, 72.7 on the supports. Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    method = SRPNetConfig(support_weight=0.0)
    return _recipe("pascal_srpnet_f_resnet50", method, _train(), *_PLAIN, *_ITERATED, *_ON_SUPPORT)


def pascal_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Tables 1-3.

    Table 1, "F + SRP" 59.7, "F + SRP + IQI" 61.5, "F+SRP (sup)" 80.2; Table 2 with IQI.
    Published mean mIoU: 61.5 (1-shot), 62.6 (5-shot); Dice 76.2 and 77.0. Hardware of the paper: not given.

    Deviations: aspect kept and padded where the paper stretches to a square; batch-norm in eval mode; the
    pyramid's grid is that of stride 8; alpha and eta, which the paper does not give, are 20 and our choice.
    """
    return _recipe("pascal_srpnet_resnet50", SRPNetConfig(), _train(), *_PLAIN, *_ITERATED, *_ON_SUPPORT)


def coco_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, COCO in 40/20/20 classes: SRPNet (Ding et al. 2022), Table 4, row "SRPNet".

    Published mean mIoU: 35.1 (1-shot), 43.4 (5-shot), with IQI. Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``, whose schedule it has, since the paper gives none for COCO; nor
    does it say which classes and images are in which part: see ``coco_splits.coco_40_20_20``.
    """
    return replace(pascal_srpnet_resnet50(), name="coco_srpnet_resnet50", data=coco_three_parts)


def pascal_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, PASCAL-5i: the floor that every trained method must beat.

    Published mean mIoU: none. Hardware of the paper: none.

    Deviations: no paper has it.
    """
    return _recipe("pascal_matcher_resnet50", MatcherConfig(), None, *_PLAIN, *_ITERATED)
