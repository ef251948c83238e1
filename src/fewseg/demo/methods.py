"""The demo's recipes: PFENet and SCL on the small backbone, and what they are compared with."""

from __future__ import annotations

from pathlib import Path

from fewseg.data.fold_data import FoldData
from fewseg.data.transforms import TrainView
from fewseg.decoders.prior import PriorMap
from fewseg.demo.config import DemoConfig
from fewseg.engine.optimiser import AdamW
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import CrossGuided, ScoreAverage
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.recipes.recipe import Evaluation, Recipe

_PRIOR = PriorMap(level="layer3", masked_input=None)
_SCALES = (1.0, 0.5, 0.25)
_DROPOUT = 0.1  # of the mid-level feature; a head of a few hundred steps is far from fitting too well


def _recipe(
    config: DemoConfig, data: FoldData, name: str, method: MethodConfig, *evaluations: Evaluation
) -> Recipe:
    """All methods share one training config, and with it the cached features.

    Pictures are not changed at random: a rendered set has as many of them as it needs.
    """
    training = TrainConfig(
        steps=config.steps,
        batch=config.batch,
        view=TrainView(size=config.size, scale=(1.0, 1.0), rotate=0.0, flip=0.0, blur=0.0),
        class_first=1.0,
        min_area=config.protocol.min_area,
        optimiser=AdamW(lr=config.lr),
        save_every=config.steps,
        seed=config.seed,
    )
    return Recipe(
        name=name,
        method=method,
        data=lambda fold, root: data,
        train=training,
        size=config.size,
        protocol=config.protocol,
        evaluations=evaluations,
    )


def pfenet(config: DemoConfig, data: FoldData, weights: Path) -> Recipe:
    """PFENet; K shots by the mean of their vectors and prior maps."""
    method = PFENetConfig(
        backbone=config.backbone(weights),
        channels=config.width,
        prior=_PRIOR,
        scales=_SCALES,
        mid_dropout=_DROPOUT,
    )
    return _recipe(config, data, "demo_pfenet", method, Evaluation(shots=1), Evaluation(shots=config.shots))


def _scl(config: DemoConfig, weights: Path | None) -> SCLPFENetConfig:
    return SCLPFENetConfig(
        backbone=config.backbone(weights),
        channels=config.width,
        prior=_PRIOR,
        scales=_SCALES,
        mid_dropout=_DROPOUT,
    )


def scl(config: DemoConfig, data: FoldData, weights: Path) -> Recipe:
    """SCL on PFENet; K shots by the average of their scores and by the cross-guided module."""
    return _recipe(
        config,
        data,
        "demo_scl",
        _scl(config, weights),
        Evaluation(shots=1, fusion=ScoreAverage()),
        Evaluation(shots=config.shots, fusion=ScoreAverage()),
        Evaluation(shots=config.shots, fusion=CrossGuided()),
    )


def untrained(config: DemoConfig, data: FoldData) -> Recipe:
    """SCL's network before any training, backbone and head: the floor."""
    evaluation = Evaluation(shots=1, fusion=ScoreAverage())
    return _recipe(config, data, "demo_untrained", _scl(config, None), evaluation)


def matcher(config: DemoConfig, data: FoldData, weights: Path) -> Recipe:
    """Cosine to a foreground and a background prototype on the same backbone: no head to train."""
    method = MatcherConfig(backbone=config.backbone(weights))
    return _recipe(config, data, "demo_matcher", method, Evaluation(shots=1), Evaluation(shots=config.shots))
