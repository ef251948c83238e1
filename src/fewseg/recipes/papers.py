"""The papers' rows on PASCAL-5i and COCO-20i, at the papers' schedules (a GPU's work).

Hardware of the papers: one RTX 2080 Ti (SCL), one GeForce RTX 3060 (SD-AANet); SRPNet does not give it.
Deviations of them all: batch-norm of the frozen trunk stays in eval mode where the released code of PFENet,
SCL and SD-AANet leaves it in train mode; and an object that fills half of no cell has the cells that it
touches, where that code leaves it without any (``small_objects="sampled"``).

A row with a dagger in SD-AANet's Table II scores the same model on labels at 473 x 473: train the recipe
without ``_473`` and give its checkpoint to ``fewseg evaluate --recipe`` with it.
"""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import (
    PAPER_SCL,
    PAPER_SDAANET,
    PAPER_SDAANET_COCO,
    PAPER_SDAANET_COCO_473,
    PAPER_SRPNET,
    PFENET_COCO_473,
    Protocol,
)
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import SGD, StepSGD, TrainConfig
from fewseg.methods.canet import CANetConfig, IterativeConfig, Refinement
from fewseg.methods.fusion import IterativeInference, ScoreAverage, ShotAttention
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import NoAlignment, PANetConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.prototypical import Cosine, Fidelity, Metric
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
from fewseg.recipes.datasets import (
    coco,
    coco_contiguous,
    coco_tested_on_voc,
    coco_three_parts,
    fss1000,
    pascal,
    voc_tested_on_coco,
)
from fewseg.recipes.recipe import (
    AVERAGED,
    CROSS_GUIDED,
    ITERATED,
    ON_SUPPORT,
    PLAIN,
    Evaluation,
    Recipe,
    joined_by,
    register,
)


def poly_training(
    view: TrainView,
    *,
    epochs: int = 200,
    batch: int = 4,
    lr: float = 2.5e-3,
    weight_decay: float = 1e-4,
    power: float = 0.9,
    shots: int = 1,
) -> TrainConfig:
    """PFENet's schedule, which SCL (Sec. 5.1) and SD-AANet (Sec. IV-A2) keep: SGD with momentum, poly 0.9.

    Queries by epochs without replacement, and rotation with probability 0.5, are shown by the released code
    alone. So is a factor of 10 on the rate of every layer that learns, which is not taken over: the rate here
    is the papers'.
    """
    return TrainConfig(
        epochs=epochs,
        batch=batch,
        shots=shots,
        view=view,
        optimiser=SGD(lr=lr, momentum=0.9, weight_decay=weight_decay, power=power),
        queries="epochs",
        save_every=1000,
        workers=batch,
    )


def _recipe(method: MethodConfig, train: TrainConfig, protocol: Protocol, *lines: Evaluation) -> Recipe:
    return Recipe(
        method=method, data=pascal, train=train, size=train.view.size, protocol=protocol, evaluations=lines
    )


def _pfenet(method: MethodConfig, *lines: Evaluation) -> Recipe:
    view = TrainView(size=473, scale=(0.9, 1.1), rotate=10.0, rotate_probability=0.5, flip=0.5, blur=0.5)
    return _recipe(method, poly_training(view), PAPER_SCL, *lines)


@register(variants.PFENET)
def pascal_pfenet_resnet50() -> Recipe:
    """PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "PFENet".

    Deviations: plain stem with the ImageNet weights that timm names (the released model has the deep stem).
    """
    return _pfenet(PFENetConfig(), *PLAIN)


@register(variants.SCL_PFENET)
def pascal_scl_pfenet_resnet50() -> Recipe:
    """SCL on PFENet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "ours-SCL (PFENet)".

    Deviations: as ``pascal_pfenet_resnet50``; CGM and the second support pass in the paper's form.
    """
    return _pfenet(SCLPFENetConfig(), *CROSS_GUIDED)


def _canet(method: IterativeConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    """CANet's schedule, which SCL keeps (SCL, Sec. 5.1): 200 epochs, batch 4, SGD, weight decay 5e-4.

    The paper's rate is 2.5e-4, and new layers learn 10 times as fast; with a frozen backbone all layers that
    learn are new, hence 2.5e-3. Only the code released with SCL shows that the rate is constant, Dropout2d
    0.5 on the five branches of ASPP, initial weights from N(0, 0.01), and that inference reads images at 0.7,
    1 and 1.3 times their own size and feeds the fused answer back. The paper gives neither momentum, here
    0.9, nor an augmentation: here a mirror, and the image scaled to 1 to 1.5 times what fits the square, so
    that training sees objects of about the test's size.
    """
    view = TrainView(size=321, scale=(1.0, 1.5), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox")
    train = poly_training(view, weight_decay=5e-4, power=0.0, shots=train_shots)
    refinement = Refinement(image_scales=(0.7, 1.0, 1.3))
    method = replace(method, aspp_dropout=0.5, initialisation="normal", refinement=refinement)
    return _recipe(method, train, PAPER_SCL, *lines)


@register(variants.CANET)
def pascal_canet_resnet50() -> Recipe:
    """CANet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "CANet"; Table 4, rows of "base.".

    The 5-shot row of Table 1 is ``pascal_canet_attention_resnet50``.

    Deviations: momentum and augmentation are ours, the paper gives none; the constant rate, dropout in ASPP,
    initial weights and the scales of inference are from SCL's released code. Trained on SCL's 5 953 images
    (``train.train_list`` has the other list).
    """
    return _canet(CANetConfig(fusion=ScoreAverage()), *CROSS_GUIDED)


@register(variants.CANET_ATTENTION)
def pascal_canet_attention_resnet50() -> Recipe:
    """CANet with its attention over shots, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, "CANet".

    Deviations: as ``pascal_canet_resnet50``; the attention is trained with the rest, on 5-shot episodes, for
    the 200 epochs of the 1-shot model: SCL quotes the row and does not say how it was trained.
    """
    line = Evaluation(shots=5, fusion=ShotAttention())
    return _canet(CANetConfig(fusion=ShotAttention()), line, train_shots=5)


@register(variants.SCL_CANET)
def pascal_scl_canet_resnet50() -> Recipe:
    """SCL on CANet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "ours-SCL (CANet)".

    Averaged 5-shot scores are in Table 4; the last rows of Tables 5 and 6 are the same model.

    Deviations: as ``pascal_canet_resnet50``; CGM in the paper's form.
    """
    return _canet(SCLCANetConfig(), *CROSS_GUIDED)


def _ablation(parts: SelfGuided) -> Recipe:
    return _canet(SCLCANetConfig(self_guided=parts), AVERAGED[0])


@register(variants.SCL_CANET_INITIAL)
def pascal_scl_canet_initial_resnet50() -> Recipe:
    """SGM with v_s alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_s".

    Deviations: as ``pascal_scl_canet_resnet50``. The support path learns from L_s1 alone, as the caption
    says; v_s enters twice, so that the decoder is as wide as with two vectors.
    """
    return _ablation(SelfGuided(vectors=("initial",), losses=("first",)))


@register(variants.SCL_CANET_PRIMARY)
def pascal_scl_canet_primary_resnet50() -> Recipe:
    """SGM with v_pri alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_pri".

    Deviations: as ``pascal_scl_canet_resnet50``; v_pri enters twice, see ``SelfGuided``.
    """
    return _ablation(SelfGuided(vectors=("primary",)))


@register(variants.SCL_CANET_AUXILIARY)
def pascal_scl_canet_auxiliary_resnet50() -> Recipe:
    """SGM with v_aux alone, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, row "v_aux".

    Deviations: as ``pascal_scl_canet_resnet50``; v_aux enters twice, see ``SelfGuided``.
    """
    return _ablation(SelfGuided(vectors=("auxiliary",)))


@register(variants.SCL_CANET_ALL_VECTORS)
def pascal_scl_canet_all_vectors_resnet50() -> Recipe:
    """SGM with all three vectors (4d), on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 5, fourth row.

    Deviations: as ``pascal_scl_canet_resnet50``; the support path is 4d wide too, v_s enters its first pass
    three times.
    """
    return _ablation(SelfGuided(vectors=("initial", "primary", "auxiliary")))


@register(variants.SCL_CANET_FIRST_LOSS)
def pascal_scl_canet_first_loss_resnet50() -> Recipe:
    """SGM trained by L_s1 without L_s2, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 6, first row.

    Deviations: as ``pascal_scl_canet_resnet50``. Both figures are also those of Table 5's row "v_s", which
    may be the same model; here v_pri and v_aux guide the query, as the table's caption has it.
    """
    return _ablation(SelfGuided(losses=("first",)))


@register(variants.SCL_CANET_SECOND_LOSS)
def pascal_scl_canet_second_loss_resnet50() -> Recipe:
    """SGM trained by L_s2 without L_s1, on CANet, PASCAL-5i: SCL (Zhang et al. 2021), Table 6, second row.

    Deviations: as ``pascal_scl_canet_resnet50``.
    """
    return _ablation(SelfGuided(losses=("second",)))


def prototype_training() -> TrainConfig:
    """PANet's schedule (Sec. 4.1), which SRPNet keeps (Sec. 4.2): 30 000 steps of one episode, flips only.

    Images are stretched to 417 x 417 (SRPNet, Sec. 4.2).
    """
    return TrainConfig(
        steps=30_000,
        batch=1,
        view=TrainView(size=417, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="stretch"),
        class_first=1.0,
        min_area=1,
        optimiser=StepSGD(),
        save_every=1000,
        workers=4,
    )


def _prototypes(method: MethodConfig, *lines: Evaluation) -> Recipe:
    return _recipe(method, prototype_training(), PAPER_SRPNET, *lines)


def _panet(method: PANetConfig) -> Recipe:
    recipe = _prototypes(method, *PLAIN, *(Evaluation(ways=2, shots=k) for k in (1, 5)))
    assert recipe.train is not None
    return replace(recipe, train=replace(recipe.train, train_list="trainaug"))


_VGG16 = BackboneConfig(name="vgg16", levels=("layer4",), trainable=True, last_relu=False)


@register(variants.PANET)
def pascal_panet_vgg16() -> Recipe:
    """PANet, VGG-16, PASCAL-5i: SRPNet (Ding et al. 2022), Table 2, and SCL (Zhang et al. 2021), Table 1.

    The 2-way lines are in no table of the three papers. Trained on the 10 582 images of the released code.

    Deviations: maps resized with aligned corners; ignored support pixels count nowhere
    (released code: background).
    """
    return _panet(PANetConfig(backbone=_VGG16))


@register(variants.PANET_NO_ALIGNMENT)
def pascal_panet_vgg16_no_alignment() -> Recipe:
    """PANet without its alignment loss, VGG-16, PASCAL-5i: the ablation of PANet (Wang et al. 2019), Sec. 4.

    It is in no table of the three papers. Deviations: as ``pascal_panet_vgg16``.
    """
    return _panet(PANetConfig(backbone=_VGG16, alignment=NoAlignment()))


@register(variants.PANET)
def pascal_panet_resnet50() -> Recipe:
    """PANet, ResNet-50, PASCAL-5i: on the backbone of all the others; in no table of the three papers.

    Deviations: as ``pascal_panet_vgg16``, and the backbone.
    """
    return _panet(PANetConfig(backbone=BackboneConfig(levels=("layer4",), trainable=True)))


def _srpnet(metric: Metric | None = None, *, srp: bool = True) -> Recipe:
    """Iterates by Eq. 12 as printed; there are no such rows for the cosine."""
    printed = IterativeInference(guard=False)
    method = SRPNetConfig(metric=metric or Fidelity(), support_weight=float(srp), fusion=printed)
    return _prototypes(method, *PLAIN, *(() if metric else (*joined_by(printed), *ON_SUPPORT)))


@register(variants.SRPNET_COS)
def pascal_srpnet_cos_resnet50() -> Recipe:
    """SRPNet's baseline, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, row "Cos".

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    return _srpnet(Cosine(), srp=False)


@register(variants.SRPNET_F)
def pascal_srpnet_f_resnet50() -> Recipe:
    """SRPNet without SRP, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, "F", "F + IQI" (sup).

    Deviations: as ``pascal_srpnet_resnet50``.
    """
    return _srpnet(srp=False)


@register(variants.SRPNET)
def pascal_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, PASCAL-5i: SRPNet (Ding et al. 2022), Table 1, "F + SRP" (IQI, sup), Tables 2 and 3.

    Deviations: the training list, which the paper does not name, is of 5 953 images; batch-norm in eval
    mode; alpha and eta, which the paper does not give, are 20 and our choice.
    """
    return _srpnet()


@register(variants.SRPNET)
def coco_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, COCO in 40/20/20 classes: SRPNet (Ding et al. 2022), Table 4, "SRPNet", with IQI.

    Deviations: as ``pascal_srpnet_resnet50``, whose schedule it has, since the paper gives none for COCO; nor
    does it say which classes and images are in which part: see ``fewseg.data.folds.coco_40_20_20``.
    """
    return replace(pascal_srpnet_resnet50(), data=coco_three_parts)


@register(variants.SRPNET)
def coco_20i_srpnet_resnet50() -> Recipe:
    """SRPNet, ResNet-50, COCO-20i in split B: not a row of SRPNet (Ding et al. 2022), whose split differs.

    Deviations: as ``pascal_srpnet_resnet50``, whose schedule it has.
    """
    return replace(pascal_srpnet_resnet50(), data=coco)


@register(variants.PANET)
def coco_panet_vgg16() -> Recipe:
    """PANet, VGG-16, COCO-20i in split A, PANet's own.

    SRPNet (Ding et al. 2022), Table 4, and SD-AANet (Zhao et al. 2022), Table II, quote PANet's figures on it
    among those on other folds.

    Deviations: as ``pascal_panet_vgg16``, whose schedule it has.
    """
    recipe = _prototypes(PANetConfig(backbone=_VGG16), *PLAIN)
    return replace(recipe, data=coco_contiguous, protocol=replace(PAPER_SRPNET, coco_split="A"))


@register(variants.MATCHER)
def pascal_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, PASCAL-5i: the floor that every trained method must beat.

    Deviations: no paper has it.
    """
    backbone = BackboneConfig(levels=("layer2", "layer3"))  # those that are compared
    return replace(_prototypes(MatcherConfig(backbone=backbone), *PLAIN, *ITERATED), train=None)


@register(variants.MATCHER)
def voc_to_coco_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, on the classes of COCO val2014 that VOC has not."""
    return replace(pascal_matcher_resnet50(), data=voc_tested_on_coco)


@register(variants.MATCHER)
def coco_to_voc_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, on VOC's val images in the folds of COCO-20i.

    Deviations: no paper has it; the folds are those of RePRI (Boudiaf et al. 2021).
    """
    return replace(pascal_matcher_resnet50(), data=coco_tested_on_voc)


@register(variants.MATCHER)
def fss1000_matcher_resnet50() -> Recipe:
    """The training-free matcher, ResNet-50, FSS-1000."""
    return replace(pascal_matcher_resnet50(), data=fss1000)


VIEW = TrainView(size=321, scale=(1.0, 1.0), rotate=10.0, rotate_probability=0.5, flip=0.5, blur=0.0)
"""A mirror, a rotation, and a crop of the image at its own scale (SD-AANet, Sec. IV-A2)."""

_ONE, _FIVE = PLAIN


def _sdaanet(method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    """SD-AANet's schedule (Sec. IV-A2): 200 epochs, batch 4, SGD 2.5e-3 poly 0.9, weight decay 1e-4."""
    return _recipe(method, poly_training(VIEW, shots=train_shots), PAPER_SDAANET, *lines)


@register(variants.SDAANET_BASELINE)
def pascal_sdaanet_baseline_resnet50() -> Recipe:
    """SD-AANet's baseline, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and III, "Baseline".

    Deviations: PFENet at 321 pixels; the paper does not say whether the 5-shot figure has a training of its
    own, here it is the 1-shot model with mean vectors, as PFENet's.
    """
    return _sdaanet(PFENetConfig(), _ONE, _FIVE)


@register(variants.SDAANET_SAAM)
def pascal_sdaanet_saam_resnet50() -> Recipe:
    """The baseline with SAAM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, second row.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    return _sdaanet(SDAANetConfig(gate=NoGate(), distillation=NoDistillation()), _ONE)


@register(variants.SDAANET_SDPM)
def pascal_sdaanet_sdpm_resnet50() -> Recipe:
    """The baseline with SDPM, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table III, third row.

    Deviations: as ``pascal_sdaanet_resnet50``.
    """
    return _sdaanet(SDAANetConfig(attention=NoAttention()), _ONE)


@register(variants.SDAANET)
def pascal_sdaanet_resnet50() -> Recipe:
    """SD-AANet, ResNet-50, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I, III (last row) and IV.

    Table IV resizes the logits of one pass to 321 and 473 pixels. The 5-shot row is
    ``pascal_sdaanet_separate_resnet50``.

    Deviations: equations as printed, so the weight 50 of L_KD (Eq. 12) multiplies a sum over channels (Eq. 5)
    where the released code has a mean: it may be far too much, see ``SDAANetConfig.distillation_weight``.
    """
    return _sdaanet(SDAANetConfig(), _ONE, Evaluation(shots=1, output_sizes=(321, 473)))


@register(variants.SDAANET_INTEGRAL)
def pascal_sdaanet_integral_resnet50() -> Recipe:
    """SD-AANet, one teacher for five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table V, "Integral".

    Deviations: as ``pascal_sdaanet_separate_resnet50``.
    """
    return _sdaanet(SDAANetConfig(distillation=IntegralTeacher()), _FIVE, train_shots=5)


@register(variants.SDAANET_SEPARATE)
def pascal_sdaanet_separate_resnet50() -> Recipe:
    """SD-AANet, a teacher for each of five shots, PASCAL-5i: SD-AANet (Zhao et al. 2022), Tables I and V.

    Table V, row "Separate Strategy", which is the 5-shot figure of Table I: with SAAM, though the caption
    names SDPM alone.

    Deviations: as ``pascal_sdaanet_resnet50``, but the teacher is that of the text: half of it the support's
    (Eq. 4), where Eq. 7 and 9 print the query's prototype alone (``PrintedSeparateTeachers``); trained on
    5-shot episodes, whose schedule the paper does not distinguish from that of one shot.
    """
    return _sdaanet(SDAANetConfig(distillation=SeparateTeachers()), _FIVE, train_shots=5)


_RESNET101 = BackboneConfig(name="resnet101")
_COCO_SCALES = (1.0, 0.5, 0.25, 0.125)


def _coco(
    method: MethodConfig,
    view: TrainView,
    protocol: Protocol,
    *lines: Evaluation,
    lr: float,
    train_shots: int = 1,
) -> Recipe:
    """50 epochs with batch 8: PFENet's schedule on COCO, and SD-AANet's (Sec. IV-A2)."""
    train = poly_training(view, epochs=50, batch=8, lr=lr, shots=train_shots)
    return replace(_recipe(method, train, protocol, *lines), data=coco)


def _coco_scl(method: MethodConfig, *lines: Evaluation) -> Recipe:
    view = TrainView(size=641, scale=(0.8, 1.25), rotate=10.0, rotate_probability=0.5, flip=0.5, blur=0.5)
    return _coco(method, view, PAPER_SCL, *lines, lr=5e-3)


@register(variants.PFENET)
def coco_pfenet_resnet101() -> Recipe:
    """PFENet, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "PFENet".

    Deviations: SCL's 200 epochs and batch 4 are PASCAL's; on COCO it keeps PFENet's settings, 50 epochs,
    batch 8, SGD 5e-3, scale 0.8 to 1.25. Input 641 and pyramid scales 1, 0.5, 0.25, 0.125 are
    shown by the released code alone; plain stem with the ImageNet weights that timm names. 5 x 1000 episodes,
    as SCL's own row; the quoted row is of 20 000 in one run.
    """
    return _coco_scl(PFENetConfig(backbone=_RESNET101, scales=_COCO_SCALES), *PLAIN)


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
    return _coco_scl(SCLPFENetConfig(backbone=_RESNET101, scales=_COCO_SCALES), *CROSS_GUIDED)


def _coco_sdaanet(method: MethodConfig, *lines: Evaluation, train_shots: int = 1) -> Recipe:
    return _coco(method, VIEW, PAPER_SDAANET_COCO, *lines, lr=5e-4, train_shots=train_shots)


@register(variants.SDAANET_BASELINE)
def coco_sdaanet_baseline_resnet101() -> Recipe:
    """SD-AANet's baseline, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "Baseline".

    Deviations: as ``pascal_sdaanet_baseline_resnet50``. The rate is the paper's 5e-4; the released config
    says 5e-3.
    """
    return _coco_sdaanet(PFENetConfig(backbone=_RESNET101), _ONE, _FIVE)


@register(variants.SDAANET)
def coco_sdaanet_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 1-shot.

    Deviations: as ``pascal_sdaanet_resnet50``, also for the weight 50 of L_KD. The rate is the paper's 5e-4;
    the released config says 5e-3.
    """
    return _coco_sdaanet(SDAANetConfig(backbone=_RESNET101), _ONE)


@register(variants.SDAANET_SEPARATE)
def coco_sdaanet_separate_resnet101() -> Recipe:
    """SD-AANet, ResNet-101, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "SD-AANet", 5-shot.

    Deviations: as ``coco_sdaanet_resnet101``; trained on 5-shot episodes with a teacher for each shot.
    """
    method = SDAANetConfig(backbone=_RESNET101, distillation=SeparateTeachers())
    return _coco_sdaanet(method, _FIVE, train_shots=5)


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
