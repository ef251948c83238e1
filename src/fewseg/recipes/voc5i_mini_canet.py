"""CANet and SCL on CANet on the small real set; half of the steps of ``voc5i_mini_pfenet``."""

from __future__ import annotations

from typing import Any

from fewseg.data.protocols import VOC5I_MINI
from fewseg.decoders.iterative import Refinement
from fewseg.fusion import CrossGuided, ScoreAverage
from fewseg.methods.canet import CANetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLCANetConfig
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.voc5i_mini import DROPOUT, SIZE, head_training, trunk

STEPS = 750
_REFINEMENT = Refinement(stop_early=True)
_RESET = 0.3  # 35 to 48 % of the draws have been seen before: 30 % of them then bring a history, as p_r means
_AVERAGED = tuple(Evaluation(shots=k, fusion=ScoreAverage()) for k in (1, 5))


def _recipe(name: str, method: MethodConfig, *lines: Evaluation) -> Recipe:
    return Recipe(
        name=name,
        method=method,
        data=voc5i_mini,
        train=head_training(STEPS),
        size=SIZE,
        protocol=VOC5I_MINI,
        evaluations=lines,
    )


def _parts() -> dict[str, Any]:
    """What both networks share."""
    return {
        "backbone": trunk(),
        "channels": 96,
        "refinement": _REFINEMENT,
        "history_reset": _RESET,
        "mid_dropout": DROPOUT,
        "head_dropout": DROPOUT,
    }


def voc5i_mini_canet() -> Recipe:
    """CANet on voc5i-mini: d = 96; a pair is refined until its mask stands still, four times at most."""
    return _recipe("voc5i_mini_canet", CANetConfig(**_parts(), fusion=ScoreAverage()), *_AVERAGED)


def voc5i_mini_scl_canet() -> Recipe:
    """SCL on CANet on voc5i-mini: sizes and schedule of ``voc5i_mini_canet``."""
    method = SCLCANetConfig(**_parts())
    return _recipe("voc5i_mini_scl_canet", method, *_AVERAGED, Evaluation(shots=5, fusion=CrossGuided()))
