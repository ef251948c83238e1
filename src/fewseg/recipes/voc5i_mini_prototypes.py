"""The prototype family on the small real set: SRPNet's Table 1, PANet, and the training-free matcher.

Trained end to end like the papers', but on 241 px, without layer4 and for 600 steps in place of 30 000.
"""

from __future__ import annotations

from fewseg.data.protocols import VOC5I_MINI
from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import StepSGD
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import IterativeInference, MeanVector
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import NoAlignment, PANetConfig
from fewseg.methods.panet.alignment import Alignment, PrototypeAlignment
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.prototypes import Cosine, Fidelity, Metric
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.voc5i_mini import SIZE, trunk

_LEVELS = ("layer1", "layer2", "layer3")
_PLAIN = (Evaluation(shots=1), Evaluation(shots=5))
_ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))


def _train() -> TrainConfig:
    return TrainConfig(
        steps=600,
        batch=1,
        view=TrainView(size=SIZE, scale=(1.0, 1.0), rotate=0.0, flip=0.5, blur=0.0, resize="letterbox"),
        class_first=0.5,
        optimiser=StepSGD(lr=1e-3, every=400),
        precision="bf16-mixed",
        save_every=200,
        workers=0,
    )


def _srpnet(name: str, metric: Metric, support_weight: float, *lines: Evaluation) -> Recipe:
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
