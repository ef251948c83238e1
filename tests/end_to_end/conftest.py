"""Two tiny recipes on a rendered set, registered for the length of a test."""

from dataclasses import replace

import pytest

from fewseg.data.protocols import Protocol
from fewseg.data.transforms import TrainView
from fewseg.engine import checkpoint, results
from fewseg.engine.environment import environment
from fewseg.engine.train_config import AdamW, TrainConfig
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.recipes import evaluation as recipe_lines
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.registry import RECIPES
from small_segmenters import small_backbone
from tiny_folds import SIDE, tiny_folds

BACKBONE = small_backbone("layer2", "layer3")
HEAD = {
    "backbone": BACKBONE,
    "channels": 8,
    "prior": PriorMap(level="layer3", masked_input=None),
    "scales": (5, 0.5),
}
TRAIN = TrainConfig(
    steps=4,
    batch=2,
    view=TrainView(size=SIDE, blur=0.0),
    cached_views=1,
    class_first=0.5,
    min_area=20,
    held_out=(5,),
    validate_every=2,
    validation_episodes=4,
    save_every=2,
    optimiser=AdamW(lr=1e-3),
    workers=0,
)


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    return tiny_folds(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def browser():
    from browser import chromium  # needs Playwright

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def machine():
    return environment()


@pytest.fixture
def recipes(monkeypatch, read, tmp_path, machine):
    """Registers tiny_pfenet, tiny_scl and tiny_matcher; work happens in the test's own folder."""
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for module in (checkpoint, results, recipe_lines):  # the machine is looked at once, not at every save
        monkeypatch.setattr(module, "environment", lambda: machine)
    both = (Evaluation(shots=1, fusion=ScoreAverage()), Evaluation(shots=3, fusion=ScoreAverage()))
    pfenet = Recipe(
        name="tiny_pfenet",
        method=PFENetConfig(**HEAD),
        data=read,
        train=TRAIN,
        size=SIDE,
        protocol=Protocol(name="tiny", episodes=6, seeds=(0, 1), query_order="class_first", min_area=20),
        evaluations=both,
    )
    scl = replace(
        pfenet,
        name="tiny_scl",
        method=SCLPFENetConfig(**HEAD),
        evaluations=(*both, Evaluation(shots=3, fusion=CrossGuided())),
    )
    lines = (Evaluation(shots=1), Evaluation(shots=3))
    matcher = replace(
        pfenet, name="tiny_matcher", method=MatcherConfig(backbone=BACKBONE), train=None, evaluations=lines
    )
    for made in (pfenet, scl, matcher):
        monkeypatch.setitem(RECIPES, made.name, lambda made=made: made)
    return {made.name: made for made in (pfenet, scl, matcher)}
