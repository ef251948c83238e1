"""The prototype family on the small real set: SRPNet's Table 1, PANet, and the training-free matcher."""

from __future__ import annotations

from fewseg.data.protocols import VOC5I_MINI
from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import StepSGD
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import IterativeInference
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import Alignment, NoAlignment, PANetConfig, PrototypeAlignment
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.prototypes import Cosine, Fidelity, Metric
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.voc5i_mini import SIZE, trunk

_LEVELS = ("layer1", "layer2", "layer3")
_PLAIN = (Evaluation(shots=1), Evaluation(shots=5))
_ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))
_ON_SUPPORT = (Evaluation(shots=1, on="support"),)


def _train() -> TrainConfig:
    """The papers' training in short: end to end, batch 1, flips only; 500 steps in place of 30 000."""
    return TrainConfig(
        steps=500,
        batch=1,
        view=TrainView(size=SIZE, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox"),
        class_first=0.5,
        optimiser=StepSGD(lr=3e-4, every=350),  # chosen on held-out base classes, see docs/results.md
        precision="bf16-mixed",
        save_every=200,
        workers=0,
    )


def _srpnet(name: str, metric: Metric, support_weight: float, *lines: Evaluation) -> Recipe:
    """The pyramid has layer1 to layer3: these weights have no layer4, and the stem is left out for speed."""
    return Recipe(
        name=name,
        method=SRPNetConfig(
            backbone=trunk(_LEVELS, trainable=True),
            levels=_LEVELS,
            metric=metric,
            support_weight=support_weight,
        ),
        data=voc5i_mini,
        train=_train(),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=lines,
    )


def voc5i_mini_srpnet_cos() -> Recipe:
    """SRPNet's baseline with the cosine on voc5i-mini (Table 1, row "Cos")."""
    return _srpnet("voc5i_mini_srpnet_cos", Cosine(), 0.0, *_PLAIN)


def voc5i_mini_srpnet_f() -> Recipe:
    """SRPNet with fidelity, without SRP, on voc5i-mini (Table 1, rows "F", "F + IQI" and "F (sup)")."""
    return _srpnet("voc5i_mini_srpnet_f", Fidelity(), 0.0, *_PLAIN, *_ITERATED, *_ON_SUPPORT)


def voc5i_mini_srpnet() -> Recipe:
    """SRPNet in full on voc5i-mini (Table 1, rows "F + SRP", "F + SRP + IQI" and "F+SRP (sup)")."""
    return _srpnet("voc5i_mini_srpnet", Fidelity(), 1.0, *_PLAIN, *_ITERATED, *_ON_SUPPORT)


def _panet(name: str, alignment: Alignment) -> Recipe:
    return Recipe(
        name=name,
        method=PANetConfig(backbone=trunk(("layer3",), trainable=True), level="layer3", alignment=alignment),
        data=voc5i_mini,
        train=_train(),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=_PLAIN,
    )


def voc5i_mini_panet() -> Recipe:
    """PANet on voc5i-mini: ResNet-50 without layer4 in place of VGG-16, trained end to end."""
    return _panet("voc5i_mini_panet", PrototypeAlignment())


def voc5i_mini_panet_no_alignment() -> Recipe:
    """PANet without the alignment loss on voc5i-mini: all else as ``voc5i_mini_panet``."""
    return _panet("voc5i_mini_panet_no_alignment", NoAlignment())


def _matcher(name: str, metric: Metric) -> Recipe:
    return Recipe(
        name=name,
        method=MatcherConfig(backbone=trunk(), metric=metric),
        data=voc5i_mini,
        train=None,
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=(*_PLAIN, *_ITERATED),
    )


def voc5i_mini_matcher() -> Recipe:
    """The training-free matcher on voc5i-mini: cosine to each prototype, with and without IQI."""
    return _matcher("voc5i_mini_matcher", Cosine())


def voc5i_mini_matcher_fidelity() -> Recipe:
    """The training-free matcher on voc5i-mini: fidelity to each prototype, with and without IQI.

    The features come out of ReLUs, so that no cosine is below 0 and its square keeps every cell's order:
    without IQI this is ``voc5i_mini_matcher`` but for the resizing.
    """
    return _matcher("voc5i_mini_matcher_fidelity", Fidelity())
