"""The systems that stand in the papers' tables or came after, each on PASCAL-5i and, in short, on voc5i-mini.

Recipes of a paper state what of it is not known here under "Deviations".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewseg.backbones import BackboneConfig
from fewseg.data.protocols import (
    HSNET,
    HSNET_COCO,
    PAPER_SCL,
    PAPER_SDAANET,
    PAPER_SDAANET_COCO,
    PAPER_SRPNET,
    VOC5I_MINI,
    Protocol,
)
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import AdamW, TrainConfig
from fewseg.methods.amp import AMPConfig
from fewseg.methods.asgnet import ASGNetConfig
from fewseg.methods.bam import BAMConfig
from fewseg.methods.canet import Refinement
from fewseg.methods.crnet import CRNetConfig
from fewseg.methods.dan import DANConfig
from fewseg.methods.fusion import AllVectors, JointFit, ScoreAverage, Vote
from fewseg.methods.hsnet import HSNetConfig, blocks_of
from fewseg.methods.insid3 import INSID3Config
from fewseg.methods.layers import PriorMap
from fewseg.methods.pgnet import PGNetConfig
from fewseg.methods.pmms import PMMsConfig
from fewseg.methods.ppnet import PPNetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.repri import RePRIConfig
from fewseg.methods.rpmms import RPMMsConfig
from fewseg.recipes.datasets import coco, pascal, voc5i_mini
from fewseg.recipes.papers import (
    coco_pfenet_resnet101,
    pascal_canet_resnet50,
    pascal_pfenet_resnet50,
    prototype_training,
)
from fewseg.recipes.recipe import PLAIN, Evaluation, ReadData, Recipe, joined_by, register
from fewseg.recipes.variants import PrintedRow, Variant
from fewseg.recipes.voc5i_mini import SIZE, end_to_end_training, head_training, trunk

_FLOOR = ("pfenet", "matcher")
HSNET_VARIANT = Variant(name="hsnet", label="HSNet", baselines=_FLOOR)
REPRI = Variant(name="repri", label="RePRI", baselines=("matcher",))
AMP = Variant(
    name="amp",
    label="AMP",
    baselines=("matcher",),
    printed=(PrintedRow(paper="sd-aanet", row="AMP", table="1"),),
)
PPNET = Variant(
    name="ppnet",
    label="PPNet",
    baselines=("panet", "matcher"),
    printed=(PrintedRow(paper="scl", row="PPNet", table="1", coco_table="2", fusion="all"),),
)


ASGNET = Variant(
    name="asgnet",
    label="ASGNet",
    baselines=_FLOOR,
    printed=(PrintedRow(paper="sd-aanet", row="ASGNet", table="1", coco_table="2", fusion="all"),),
)
PGNET = Variant(
    name="pgnet",
    label="PGNet",
    baselines=("canet", "matcher"),
    printed=(PrintedRow(paper="scl", row="PGNet", table="1", fusion="all"),),
)
PMMS = Variant(name="pmms", label="PMMs", baselines=("canet", "matcher"))
RPMMS = Variant(
    name="rpmms",
    label="RPMMs",
    baselines=("pmms", "matcher"),
    printed=(
        PrintedRow(paper="scl", row="RPMMs", table="1", fusion="all"),
        PrintedRow(paper="sd-aanet", row="RPMMs", coco_table="2", fusion="all"),
    ),
)
BAM = Variant(name="bam", label="BAM", baselines=_FLOOR)
BAM_BASE = Variant(name="bam_base", label="BAM, base learner")
CRNET = Variant(
    name="crnet",
    label="CRNet",
    baselines=("canet", "matcher"),
    printed=(PrintedRow(paper="scl", row="CRNet", table="1", fusion="average", shots=(1,)),),
)
DAN = Variant(
    name="dan",
    label="DAN",
    baselines=("pgnet", "matcher"),
    printed=(PrintedRow(paper="scl", row="DAN", table="1", coco_table="2", fusion="all"),),
)
INSID3 = Variant(name="insid3", label="INSID3", baselines=("matcher",))


def _recipe(
    method: MethodConfig,
    train: TrainConfig | None,
    lines: tuple[Evaluation, ...],
    *,
    data: ReadData = voc5i_mini,
    protocol: Protocol = VOC5I_MINI,
    size: int = SIZE,
) -> Recipe:
    return Recipe(method=method, data=data, train=train, size=size, protocol=protocol, evaluations=lines)


def _training_of(made: Recipe) -> TrainConfig:
    assert made.train is not None
    return made.train


_VOTED, _ALL, _AVERAGED = joined_by(Vote()), joined_by(AllVectors()), joined_by(ScoreAverage())


def _as_canet(
    method: MethodConfig,
    lines: tuple[Evaluation, ...] = _ALL,
    *,
    data: ReadData = pascal,
    protocol: Protocol = PAPER_SCL,
) -> Recipe:
    """A method with the crops, augmentation and schedule of ``pascal_canet_resnet50``."""
    train = _training_of(pascal_canet_resnet50())
    return _recipe(method, train, lines, data=data, protocol=protocol, size=train.view.size)


def _small_as_canet(method: Any, lines: tuple[Evaluation, ...] = _ALL) -> Recipe:
    """A method with the sizes of ``voc5i_mini_canet``, at the schedule of ``voc5i_mini_pfenet``."""
    sizes = replace(method, backbone=trunk(), channels=96, mid_dropout=0.1, head_dropout=0.1)
    return _recipe(sizes, head_training(), lines)


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
    return _recipe(HSNetConfig(), _hsnet_training(20), _VOTED, data=pascal, protocol=HSNET, size=401)


@register(HSNET_VARIANT)
def coco_hsnet_resnet50() -> Recipe:
    """HSNet, ResNet-50, COCO-20i: HSNet (Min et al. 2021).

    Deviations: as ``pascal_hsnet_resnet50``; episodes of 40 a step.
    """
    return _recipe(HSNetConfig(), _hsnet_training(40), _VOTED, data=coco, protocol=HSNET_COCO, size=401)


@register(HSNET_VARIANT)
def voc5i_mini_hsnet() -> Recipe:
    """HSNet on voc5i-mini: every second block of layer2 and layer3, at strides 8 and 16; width 64.

    Every second block, so that an image's kept features take about the space of PFENet's.
    """
    levels = tuple(level for level in blocks_of("resnet50", ("layer2", "layer3")) if int(level[-1]) % 2)
    backbone: BackboneConfig = replace(trunk(levels), output_stride=32)
    return _recipe(HSNetConfig(backbone=backbone, channels=64), head_training(), _VOTED)


@register(REPRI)
def pascal_repri_resnet50() -> Recipe:
    """RePRI, ResNet-50, PASCAL-5i: RePRI (Boudiaf et al. 2021).

    Deviations: layer4 of an ImageNet network in place of a PSPNet trained on the base classes; SRPNet's
    protocol; the start of the bias, see ``RePRI``.
    """
    lines = joined_by(JointFit())
    return _recipe(RePRIConfig(), None, lines, data=pascal, protocol=PAPER_SRPNET, size=417)


@register(REPRI)
def voc5i_mini_repri() -> Recipe:
    """RePRI on voc5i-mini: layer3 of the frozen trunk in place of a network trained on the base classes."""
    return _recipe(RePRIConfig(backbone=trunk(), level="layer3"), None, joined_by(JointFit()))


@register(AMP)
def pascal_amp_vgg16() -> Recipe:
    """AMP, VGG-16, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table I, row "AMP".

    Deviations: an ImageNet network in place of an FCN-8s trained on the base classes; SRPNet's protocol.
    """
    return _recipe(AMPConfig(), None, PLAIN, data=pascal, protocol=PAPER_SRPNET, size=417)


@register(AMP)
def voc5i_mini_amp() -> Recipe:
    """AMP on voc5i-mini: layer2 and layer3 of the ResNet-50 trunk in place of VGG-16's last stages."""
    return _recipe(AMPConfig(backbone=trunk(), levels=("layer2", "layer3")), None, PLAIN)


def _ppnet(data: ReadData) -> Recipe:
    return _recipe(PPNetConfig(), prototype_training(), _ALL, data=data, protocol=PAPER_SRPNET, size=417)


@register(PPNET)
def pascal_ppnet_resnet50() -> Recipe:
    """PPNet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "PPNet".

    Deviations: schedule, input size and augmentation are PANet's; without the semantic loss, see ``PPNet``.
    """
    return _ppnet(pascal)


@register(PPNET)
def coco_ppnet_resnet50() -> Recipe:
    """PPNet, ResNet-50, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "PPNet".

    Deviations: as ``pascal_ppnet_resnet50``.
    """
    return _ppnet(coco)


@register(PPNET)
def voc5i_mini_ppnet() -> Recipe:
    """PPNet on voc5i-mini: ResNet-50 without layer4, trained end to end as ``voc5i_mini_panet``."""
    method = PPNetConfig(backbone=trunk(("layer3",), trainable=True), level="layer3")
    return _recipe(method, end_to_end_training(), _ALL)


@register(ASGNET)
def pascal_asgnet_resnet101() -> Recipe:
    """ASGNet, ResNet-101, PASCAL-5i: SD-AANet (Zhao et al. 2022), Table I, row "ASGNet".

    Deviations: crops, augmentation and schedule are PFENet's; see ``ASGNet`` for the clustering.
    """
    method = ASGNetConfig(backbone=BackboneConfig(name="resnet101", levels=("layer2", "layer3")))
    train, protocol = _training_of(pascal_pfenet_resnet50()), replace(PAPER_SDAANET, fusion="any")
    return _recipe(method, train, _ALL, data=pascal, protocol=protocol, size=train.view.size)


@register(ASGNET)
def coco_asgnet_resnet50() -> Recipe:
    """ASGNet, ResNet-50, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "ASGNet".

    Deviations: as ``pascal_asgnet_resnet101``; PFENet's 641 px and scales on COCO.
    """
    train, protocol = _training_of(coco_pfenet_resnet101()), replace(PAPER_SDAANET_COCO, fusion="any")
    method = ASGNetConfig(scales=(1.0, 0.5, 0.25, 0.125))
    return _recipe(method, train, _ALL, data=coco, protocol=protocol, size=train.view.size)


@register(ASGNET)
def voc5i_mini_asgnet() -> Recipe:
    """ASGNet on voc5i-mini: sizes and schedule of ``voc5i_mini_pfenet``; a prototype for 27 of 961 cells.

    27 cells are the share of the map that 100 of 3 600 are.
    """
    method = ASGNetConfig(
        backbone=trunk(),
        channels=96,
        scales=(1.0, 0.5, 0.25, 0.133),
        rounding="nearest",
        region_cells=27,
        mid_dropout=0.1,
    )
    return _recipe(method, head_training(), _ALL)


@register(PMMS)
def pascal_pmms_resnet50() -> Recipe:
    """PMMs, ResNet-50, PASCAL-5i: PMMs (Yang et al. 2020).

    Deviations: crops, augmentation and schedule are those of ``pascal_canet_resnet50``; see ``PMMs``.
    """
    return _as_canet(PMMsConfig())


@register(PMMS)
def voc5i_mini_pmms() -> Recipe:
    """PMMs on voc5i-mini: sizes of ``voc5i_mini_canet``, at the schedule of ``voc5i_mini_pfenet``."""
    return _small_as_canet(PMMsConfig())


@register(RPMMS)
def pascal_rpmms_resnet50() -> Recipe:
    """RPMMs, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "RPMMs".

    Deviations: crops, augmentation and schedule are those of ``pascal_canet_resnet50``; see ``RPMMs``.
    """
    return _as_canet(RPMMsConfig())


@register(RPMMS)
def coco_rpmms_resnet50() -> Recipe:
    """RPMMs, ResNet-50, COCO-20i: SD-AANet (Zhao et al. 2022), Table II, row "RPMMs".

    Deviations: as ``pascal_rpmms_resnet50``; SD-AANet's protocol.
    """
    return _as_canet(RPMMsConfig(), data=coco, protocol=replace(PAPER_SDAANET_COCO, fusion="any"))


@register(RPMMS)
def voc5i_mini_rpmms() -> Recipe:
    """RPMMs on voc5i-mini: sizes and schedule of ``voc5i_mini_pmms``."""
    return _small_as_canet(RPMMsConfig())


@register(PGNET)
def pascal_pgnet_resnet50() -> Recipe:
    """PGNet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "PGNet".

    Deviations: crops, augmentation and schedule are those of ``pascal_canet_resnet50``; see ``PGNet``.
    """
    return _as_canet(PGNetConfig())


@register(PGNET)
def voc5i_mini_pgnet() -> Recipe:
    """PGNet on voc5i-mini: sizes of ``voc5i_mini_canet``, at the schedule of ``voc5i_mini_pfenet``."""
    return _small_as_canet(PGNetConfig())


@register(INSID3)
def coco_insid3_dinov3_large() -> Recipe:
    """INSID3, DINOv3-L, COCO-20i: INSID3 (Cuttano et al. 2026).

    Deviations: HSNet's protocol, and 1025 px, so that sides are 8k + 1; see ``INSID3``.
    """
    backbone = BackboneConfig(name="vit_large_patch16_dinov3", levels=("layer4",))
    return _recipe(INSID3Config(backbone=backbone), None, _ALL, data=coco, protocol=HSNET_COCO, size=1025)


@register(INSID3)
def voc5i_mini_insid3() -> Recipe:
    """INSID3 on voc5i-mini: layer3 of the ResNet-50 trunk in place of a vision transformer."""
    return _recipe(INSID3Config(backbone=trunk(("layer3",)), level="layer3"), None, _ALL)


def _bam(base: bool) -> Recipe:
    train = replace(_training_of(pascal_pfenet_resnet50()), drop_novel=True)
    method = BAMConfig(stage="base" if base else "meta")
    return _recipe(method, train, _ALL, data=pascal, protocol=PAPER_SCL, size=train.view.size)


@register(BAM_BASE)
def pascal_bam_base_resnet50() -> Recipe:
    """The base learner of BAM, ResNet-50, PASCAL-5i: BAM (Lang et al. 2022).

    Deviations: crops, augmentation and schedule are those of ``pascal_pfenet_resnet50``; see ``BAM``.
    """
    return _bam(base=True)


@register(BAM)
def pascal_bam_resnet50() -> Recipe:
    """BAM, ResNet-50, PASCAL-5i: BAM (Lang et al. 2022), with ``--method.base`` of the recipe above.

    Deviations: as ``pascal_bam_base_resnet50``.
    """
    return _bam(base=False)


def _small_bam(base: bool) -> Recipe:
    method = BAMConfig(
        backbone=trunk(),
        stage="base" if base else "meta",
        base_level="layer3",
        channels=96,
        prior=PriorMap(level="layer3", masked_input=None),
        scales=(1.0, 0.5, 0.25, 0.133),
        rounding="nearest",
        mid_dropout=0.1,
    )
    return _recipe(method, replace(head_training(), drop_novel=True), _ALL)


@register(BAM_BASE)
def voc5i_mini_bam_base() -> Recipe:
    """The base learner of BAM on voc5i-mini, on layer3 of the frozen trunk; schedule of PFENet.

    Its head alone is trained, where the paper trains a whole network.
    """
    return _small_bam(base=True)


@register(BAM)
def voc5i_mini_bam() -> Recipe:
    """BAM on voc5i-mini, with ``--method.base`` of ``voc5i_mini_bam_base``; sizes and schedule of PFENet."""
    return _small_bam(base=False)


@register(CRNET)
def pascal_crnet_resnet50() -> Recipe:
    """CRNet, ResNet-50, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "CRNet".

    Deviations: crops, augmentation and schedule are those of ``pascal_canet_resnet50``; several shots are
    averaged without finetuning, so that the printed score of five shots is no aim of it; see ``CRNet``.
    """
    return _as_canet(CRNetConfig(), _AVERAGED)


@register(CRNET)
def voc5i_mini_crnet() -> Recipe:
    """CRNet on voc5i-mini: sizes of ``voc5i_mini_canet``, at the schedule of ``voc5i_mini_pfenet``."""
    method = CRNetConfig(refinement=Refinement(stop_early=True), history_reset=0.3)
    return _small_as_canet(method, _AVERAGED)


@register(DAN)
def pascal_dan_resnet101() -> Recipe:
    """DAN, ResNet-101, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "DAN".

    Deviations: crops, augmentation and schedule are those of ``pascal_canet_resnet50``; see ``DAN``.
    """
    return _as_canet(DANConfig())


@register(DAN)
def coco_dan_resnet101() -> Recipe:
    """DAN, ResNet-101, COCO-20i: SCL (Zhang et al. 2021), Table 2, row "DAN".

    Deviations: as ``pascal_dan_resnet101``.
    """
    return _as_canet(DANConfig(), data=coco)


@register(DAN)
def voc5i_mini_dan() -> Recipe:
    """DAN on voc5i-mini: layer2 and layer3; sizes and schedule of ``voc5i_mini_pmms``."""
    return _small_as_canet(DANConfig(mid_levels=("layer2", "layer3")))
