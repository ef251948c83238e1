"""The papers' PASCAL-5i rows, at the papers' schedules (a GPU's work)."""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import PAPER_SCL, PAPER_SDAANET, PAPER_SRPNET
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import SGD, StepSGD, TrainConfig
from fewseg.methods.canet import CANetConfig
from fewseg.methods.fusion import CrossGuided, IterativeInference, MeanVector, ScoreAverage, ShotAttention
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import Alignment, NoAlignment, PANetConfig, PrototypeAlignment
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.prototypes import Cosine
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig, SelfGuided
from fewseg.methods.sdaanet import (
    IntegralTeacher,
    NoAttention,
    NoDistillation,
    NoGate,
    SDAANetConfig,
    SeparateTeachers,
)
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.recipes import variants
from fewseg.recipes.datasets import coco_three_parts, pascal
from fewseg.recipes.recipe import Evaluation, Recipe, register


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


@register(variants.PFENET)
def pascal_pfenet_resnet50() -> Recipe:
    """PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "PFENet".

    Published mean mIoU: 60.8 (1-shot), 61.9 (5-shot); FB-IoU 71.4 (Table 3, 1-shot).
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: batch-norm of the frozen trunk stays in eval mode (the released code leaves it in train
    mode); plain stem with the ImageNet weights that timm names (the released model has the deep stem).
    """
    return Recipe(
        method=PFENetConfig(backbone=BackboneConfig()),
        data=pascal,
        train=_train(),
        size=473,
        protocol=PAPER_SCL,
        evaluations=(Evaluation(shots=1), Evaluation(shots=5, fusion=MeanVector())),
    )


@register(variants.SCL_PFENET)
def pascal_scl_pfenet_resnet50() -> Recipe:
    """SCL on PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "ours-SCL (PFENet)".

    Published mean mIoU: 61.8 (1-shot), 62.9 (5-shot); FB-IoU 71.9 and 72.8 (Table 3).
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_pfenet_resnet50``; CGM and the second support pass in the paper's form.
    """
    return Recipe(
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


_SIZE = 321
_ONE = Evaluation(shots=1, fusion=ScoreAverage())
_LINES = (
    _ONE,
    Evaluation(shots=5, fusion=ScoreAverage()),
    Evaluation(shots=5, fusion=CrossGuided()),
)


def _train_pascal_canet(shots: int = 1) -> TrainConfig:
    """CANet's schedule, which SCL keeps (SCL, Sec. 5.1): 200 epochs, batch 4, SGD, weight decay 5e-4.

    The paper's rate is 2.5e-4, and new layers learn 10 times as fast; with a frozen backbone all layers that
    learn are new, hence 2.5e-3. The paper gives neither momentum nor a course of the rate: here 0.9 and
    poly 0.9, as for its other baseline. It gives no augmentation: here a mirror, and the image scaled to
    1 to 1.5 times what fits the square, so that training sees objects of about the test's size.
    """
    view = TrainView(size=_SIZE, scale=(1.0, 1.5), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox")
    return TrainConfig(
        epochs=200,
        batch=4,
        shots=shots,
        view=view,
        optimiser=SGD(lr=2.5e-3, momentum=0.9, weight_decay=5e-4, power=0.9),
        save_every=1000,
        workers=4,
    )


def _recipe(method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    return Recipe(
        method=method,
        data=pascal,
        train=_train_pascal_canet(train_shots),
        size=_SIZE,
        protocol=PAPER_SCL,
        evaluations=lines,
    )


@register(variants.CANET)
def pascal_canet_resnet50() -> Recipe:
    """CANet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "CANet"; Table 4, rows of "base.".

    Published mean mIoU: 55.4 (1-shot), 55.9 (5-shot, averaged), 56.9 (5-shot, CGM); FB-IoU 66.2, 66.7 and
    69.7. The 57.1 of Table 1 (5-shot) is of ``pascal_canet_attention_resnet50``.
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: momentum, course of the rate and augmentation are ours, the paper gives none; batch-norm of
    the frozen trunk stays in eval mode.
    """
    method = CANetConfig(fusion=ScoreAverage())
    return _recipe(method, *_LINES)


@register(variants.CANET_ATTENTION)
def pascal_canet_attention_resnet50() -> Recipe:
    """CANet with its attention over shots, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, "CANet".

    Published mean mIoU: 57.1 (5-shot); FB-IoU 69.6 (Table 3). Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_canet_resnet50``; the attention is trained with the rest, on 5-shot episodes, for
    the 200 epochs of the 1-shot model: SCL quotes the row and does not say how it was trained.
    """
    method = CANetConfig(fusion=ShotAttention())
    line = Evaluation(shots=5, fusion=ShotAttention())
    return _recipe(method, line, train_shots=5)


@register(variants.SCL_CANET)
def pascal_scl_canet_resnet50() -> Recipe:
    """SCL on CANet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "ours-SCL (CANet)".

    Published mean mIoU: 57.5 (1-shot), 59.2 (5-shot, CGM), 58.7 (5-shot, averaged; Table 4); FB-IoU 70.3,
    70.7 (Table 3) and 70.3. The last rows of Tables 5 and 6 are the same model.
    Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_canet_resnet50``; CGM in the paper's form.
    """
    return _recipe(SCLCANetConfig(), *_LINES)


def _ablation(parts: SelfGuided) -> Recipe:
    return _recipe(SCLCANetConfig(self_guided=parts), _ONE)


@register(variants.SCL_CANET_INITIAL)
def pascal_scl_canet_initial_resnet50() -> Recipe:
    """SGM with v_s alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_s".

    Published mean mIoU: 55.6 (1-shot); FB-IoU 67.3. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``. The support path learns from L_s1 alone, as the caption
    says; v_s enters twice, so that the decoder is as wide as with two vectors.
    """
    parts = SelfGuided(vectors=("initial",), losses=("first",))
    return _ablation(parts)


@register(variants.SCL_CANET_PRIMARY)
def pascal_scl_canet_primary_resnet50() -> Recipe:
    """SGM with v_pri alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_pri".

    Published mean mIoU: 56.6 (1-shot); FB-IoU 69.5. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``; v_pri enters twice, see ``SelfGuided``.
    """
    return _ablation(SelfGuided(vectors=("primary",)))


@register(variants.SCL_CANET_AUXILIARY)
def pascal_scl_canet_auxiliary_resnet50() -> Recipe:
    """SGM with v_aux alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_aux".

    Published mean mIoU: 51.4 (1-shot); FB-IoU 65.2. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``; v_aux enters twice, see ``SelfGuided``.
    """
    return _ablation(SelfGuided(vectors=("auxiliary",)))


@register(variants.SCL_CANET_ALL_VECTORS)
def pascal_scl_canet_all_vectors_resnet50() -> Recipe:
    """SGM with all three vectors (4d), on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, fourth row.

    Published mean mIoU: 57.1 (1-shot); FB-IoU 69.9. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``; the support path is 4d wide too, v_s enters its first pass
    three times.
    """
    parts = SelfGuided(vectors=("initial", "primary", "auxiliary"))
    return _ablation(parts)


@register(variants.SCL_CANET_FIRST_LOSS)
def pascal_scl_canet_first_loss_resnet50() -> Recipe:
    """SGM trained by L_s1 without L_s2, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 6, first row.

    Published mean mIoU: 55.6 (1-shot); FB-IoU 67.3. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``. Both figures are also those of Table 5's row "v_s", which
    may be the same model; here v_pri and v_aux guide the query, as the table's caption has it.
    """
    return _ablation(SelfGuided(losses=("first",)))


@register(variants.SCL_CANET_SECOND_LOSS)
def pascal_scl_canet_second_loss_resnet50() -> Recipe:
    """SGM trained by L_s2 without L_s1, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 6, second row.

    Published mean mIoU: 56.8 (1-shot); FB-IoU 69.6. Hardware of the paper: one RTX 2080 Ti.

    Deviations: as ``pascal_scl_canet_resnet50``.
    """
    return _ablation(SelfGuided(losses=("second",)))


_SIZE_PASCAL_PROTOTYPES = 417
_PLAIN = (Evaluation(shots=1), Evaluation(shots=5))
_ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))
_ON_SUPPORT = (Evaluation(shots=1, on="support"),)


def prototype_training() -> TrainConfig:
    """PANet's schedule (Sec. 4.1), which SRPNet keeps (Sec. 4.2): 30 000 steps of one episode, flips only."""
    view = TrainView(
        size=_SIZE_PASCAL_PROTOTYPES, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox"
    )
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


def _recipe_pascal_prototypes(method: MethodConfig, train: TrainConfig | None, *lines: Evaluation) -> Recipe:
    return Recipe(
        method=method,
        data=pascal,
        train=train,
        size=_SIZE_PASCAL_PROTOTYPES,
        protocol=PAPER_SRPNET,
        evaluations=lines,
    )


def _panet(backbone: BackboneConfig, alignment: Alignment) -> Recipe:
    two_ways = tuple(Evaluation(ways=2, shots=k) for k in (1, 5))
    method = PANetConfig(backbone=backbone, alignment=alignment)
    return _recipe_pascal_prototypes(method, prototype_training(), *_PLAIN, *two_ways)


def _vgg16() -> BackboneConfig:
    return BackboneConfig(name="vgg16", levels=("layer4",), trainable=True, last_relu=False)


@register(variants.PANET)
def pascal_panet_vgg16() -> Recipe:
    """PANet, VGG-16, PASCAL-5i: SRPNet (Ding et al. 2022), Table 2, row "PANet".

    Published mean mIoU: 48.1 (1-shot), 55.7 (5-shot). The 2-way lines are in no table of the three papers.
    Hardware of the paper: not given.

    Deviations: aspect kept and padded where the paper stretches to a square; maps resized with aligned
    corners; ignored support pixels count nowhere (released code: background).
    """
    return _panet(_vgg16(), PrototypeAlignment())


@register(variants.PANET_NO_ALIGNMENT)
def pascal_panet_vgg16_no_alignment() -> Recipe:
    """PANet without its alignment loss, VGG-16, PASCAL-5i: the ablation of PANet (Wang et al. 2019), Sec. 4.

    Published mean mIoU: none in the tables of the three papers. Hardware of the paper: not given.

    Deviations: as ``pascal_panet_vgg16``.
    """
    return _panet(_vgg16(), NoAlignment())


@register(variants.PANET)
def pascal_panet_resnet50() -> Recipe:
    """PANet, ResNet-50, PASCAL-5i: on the backbone of all the others.

    Published mean mIoU: none; on VGG-16 see ``pascal_panet_vgg16``. Hardware of the paper: not given.

    Deviations: as ``pascal_panet_vgg16``, and the backbone.
    """
    backbone = BackboneConfig(levels=("layer4",), trainable=True)
    return _panet(backbone, PrototypeAlignment())


@register(variants.SRPNET_COS)
def pascal_srpnet_cos_resnet50() -> Recipe:
    """SRPNet's baseline, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, row "Cos".

    Published mean mIoU: 53.6 (1-shot). Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    method = SRPNetConfig(metric=Cosine(), support_weight=0.0)
    return _recipe_pascal_prototypes(method, prototype_training(), *_PLAIN)


@register(variants.SRPNET_F)
def pascal_srpnet_f_resnet50() -> Recipe:
    """SRPNet without SRP, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, "F", "F + IQI" (sup).

    Published mean mIoU: 55.4 (1-shot), 58.0 with IQI, 72.7 on the supports. Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    method = SRPNetConfig(support_weight=0.0)
    return _recipe_pascal_prototypes(method, prototype_training(), *_PLAIN, *_ITERATED, *_ON_SUPPORT)


@register(variants.SRPNET)
def pascal_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Tables 1-3.

    Table 1, "F + SRP" 59.7, "F + SRP + IQI" 61.5, "F+SRP (sup)" 80.2; Table 2 with IQI.
    Published mean mIoU: 61.5 (1-shot), 62.6 (5-shot); Dice 76.2 and 77.0. Hardware of the paper: not given.

    Deviations: aspect kept and padded where the paper stretches to a square; batch-norm in eval mode; the
    pyramid's grid is that of stride 8; alpha and eta, which the paper does not give, are 20 and our choice.
    """
    return _recipe_pascal_prototypes(
        SRPNetConfig(),
        prototype_training(),
        *_PLAIN,
        *_ITERATED,
        *_ON_SUPPORT,
    )


@register(variants.SRPNET)
def coco_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, COCO in 40/20/20 classes: SRPNet (Ding et al. 2022), Table 4, row "SRPNet".

    Published mean mIoU: 35.1 (1-shot), 43.4 (5-shot), with IQI. Hardware of the paper: not given.

    Deviations: as ``pascal_srpnet_resnet50``, whose schedule it has, since the paper gives none for COCO; nor
    does it say which classes and images are in which part: see ``fewseg.data.folds.coco_40_20_20``.
    """
    return replace(pascal_srpnet_resnet50(), data=coco_three_parts)


@register(variants.MATCHER)
def pascal_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, PASCAL-5i: the floor that every trained method must beat.

    Published mean mIoU: none. Hardware of the paper: none.

    Deviations: no paper has it.
    """
    return _recipe_pascal_prototypes(MatcherConfig(), None, *_PLAIN, *_ITERATED)


SIZE = 321
VIEW = TrainView(size=SIZE, scale=(1.0, 1.0), rotate=10.0, flip=0.5, blur=0.0)
"""A mirror, a rotation, and a crop of the image at its own scale (Sec. IV-A2)."""

_ONE_PASCAL_SDAANET = Evaluation(shots=1)
_FIVE = Evaluation(shots=5)


def _recipe_pascal_sdaanet(method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
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
        method=method,
        data=pascal,
        train=train,
        size=SIZE,
        protocol=PAPER_SDAANET,
        evaluations=lines,
    )


@register(variants.SDAANET_BASELINE)
def pascal_sdaanet_baseline_resnet50() -> Recipe:
    """SD-AANet's baseline, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and III, "Baseline".

    Table I and Table III (1-shot). Published mean mIoU: 60.4 (1-shot), 62.2 (5-shot).
    Hardware of the paper: one GeForce RTX 3060.

    Deviations: batch-norm of the frozen trunk stays in eval mode (the released code leaves it in train mode).
    PFENet at 321 pixels; the paper does not say whether the 5-shot figure has a training of its own, here it
    is the 1-shot model with mean vectors, as PFENet's.
    """
    return _recipe_pascal_sdaanet(PFENetConfig(), _ONE_PASCAL_SDAANET, _FIVE)


@register(variants.SDAANET_SAAM)
def pascal_sdaanet_saam_resnet50() -> Recipe:
    """The baseline with SAAM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, second row.

    Published mean mIoU: 60.8 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    method = SDAANetConfig(gate=NoGate(), distillation=NoDistillation())
    return _recipe_pascal_sdaanet(method, _ONE_PASCAL_SDAANET)


@register(variants.SDAANET_SDPM)
def pascal_sdaanet_sdpm_resnet50() -> Recipe:
    """The baseline with SDPM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, third row.

    Published mean mIoU: 61.4 (1-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    return _recipe_pascal_sdaanet(SDAANetConfig(attention=NoAttention()), _ONE_PASCAL_SDAANET)


@register(variants.SDAANET)
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
    return _recipe_pascal_sdaanet(SDAANetConfig(), _ONE_PASCAL_SDAANET, scales)


@register(variants.SDAANET_INTEGRAL)
def pascal_sdaanet_integral_resnet50() -> Recipe:
    """SD-AANet, one teacher for five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table V, "Integral".

    Table V, row "Integral Strategy". Published mean mIoU: 63.9 (5-shot).
    Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_separate_resnet50``.
    """
    method = SDAANetConfig(distillation=IntegralTeacher())
    return _recipe_pascal_sdaanet(method, _FIVE, train_shots=5)


@register(variants.SDAANET_SEPARATE)
def pascal_sdaanet_separate_resnet50() -> Recipe:
    """SD-AANet, a teacher for each of five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and V.

    Table V, row "Separate Strategy", which is the 5-shot figure of Table I: with SAAM, though the caption
    names SDPM alone. Published mean mIoU: 64.4 (5-shot). Hardware of the paper: one GeForce RTX 3060.

    Deviations: as ``pascal_sdaanet_resnet50``; trained on 5-shot episodes, whose schedule the paper does not
    tell apart from that of one shot.
    """
    method = SDAANetConfig(distillation=SeparateTeachers())
    return _recipe_pascal_sdaanet(method, _FIVE, train_shots=5)
