"""Tiny checkpoints with random weights on a rendered set, under the names of the papers' rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import TrainView
from fewseg.engine import checkpoint, results
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint, split_json
from fewseg.engine.environment import Environment
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.fusion import ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.prototypical import Cosine, Fidelity
from fewseg.methods.scl import SCLPFENet, SCLPFENetConfig
from fewseg.methods.sdaanet import NoAttention, NoDistillation, NoGate, SDAANetConfig
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.ops.masks import foreground_cells
from fewseg.recipes import evaluation as recipe_lines
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.registry import RECIPES, variants
from fewseg.recipes.resolve import build_method
from fewseg.reports.figures.base import FigureContext
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.options import FiguresOptions
from tiny_folds import SIDE, tiny_folds

_SHAPE = ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4)
_LEVELS = ("layer2", "layer3")
_TRUNK = BackboneConfig(name="resnet18", weights=None, levels=_LEVELS, shape=_SHAPE)
_HEAD = {
    "backbone": _TRUNK,
    "channels": 8,
    "prior": PriorMap(level="layer3", masked_input=None),
    "scales": (5, 0.5),
}
_FULL = SDAANetConfig(**_HEAD)
_PROTOTYPES = {"backbone": replace(_TRUNK, trainable=True), "levels": _LEVELS, "channels": 8}
_TRAIN = TrainConfig(steps=1, batch=1, view=TrainView(size=SIDE))
METHODS = {
    "scl": SCLPFENetConfig(**_HEAD),
    "sdaanet_baseline": PFENetConfig(**_HEAD),
    "sdaanet_saam": replace(_FULL, gate=NoGate(), distillation=NoDistillation()),
    "sdaanet_sdpm": replace(_FULL, attention=NoAttention()),
    "sdaanet": _FULL,
    "srpnet_cos": SRPNetConfig(**_PROTOTYPES, metric=Cosine()),
    "srpnet_f": SRPNetConfig(**_PROTOTYPES, metric=Fidelity()),
    "matcher": MatcherConfig(backbone=_TRUNK),
}


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    return tiny_folds(tmp_path_factory.mktemp("index"))


@pytest.fixture
def recipes(monkeypatch, read, tmp_path):
    """Registers demo_scl, demo_sdaanet and the others, on the rendered set."""
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    made_with = Environment(versions={"fewseg": "0"}, hardware="")
    for module in (checkpoint, results, recipe_lines):
        monkeypatch.setattr(module, "environment", lambda: made_with)
    protocol = Protocol(name="tiny", episodes=6, seeds=(0, 1), query_order="class_first", min_area=20)
    made = {}
    for name, method in METHODS.items():
        pairs = name == "scl" or name.startswith("sdaanet")
        fusions = {"fusion": ScoreAverage()} if pairs else {}
        made[name] = Recipe(
            name=f"demo_{name}",
            variant=variants()["scl_pfenet" if name == "scl" else name],
            method=method,
            data=read,
            train=None if name == "matcher" else _TRAIN,
            size=SIDE,
            protocol=protocol,
            evaluations=(Evaluation(shots=1, **fusions),),
        )
        monkeypatch.setitem(RECIPES, f"demo_{name}", lambda recipe=made[name]: recipe)
    return made


def _undecided(method, data):
    """Random weights that call some cells of the targets foreground and others not."""
    if not isinstance(method, PairScorer):
        return
    for name, module in method.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        for conv in method.query.merge.convs:  # listen to the guide
            conv.weight[:, method.config.channels :] *= 8
    ids = data.test.images_of(data.split.novel[0], 20)[:4]
    images = torch.stack([data.source.read_image(id).float() / 255 for id in ids])
    masks = torch.stack([(data.source.read_labels(id) == data.split.novel[0]).to(torch.uint8) for id in ids])
    with torch.no_grad():
        features = method.extract(images)
        if isinstance(method, SCLPFENet):
            logits = method.first_pass(features, masks).first.logits
        else:
            logits = method.score(method.encode_query(features), method.encode_shots(features, masks))
        inside = foreground_cells(masks, logits.shape[-2:])[:, 0] >= 0.5
        method.trunk.classifier[-1].bias[1] -= (logits[:, 1] - logits[:, 0])[inside].median()


@pytest.fixture
def saved(recipes, tmp_path):
    """(name, fold) -> the path of its checkpoint, made on first use."""

    def make(name, fold=0):
        path = tmp_path / "checkpoints" / f"{name}-fold{fold}.safetensors"
        if not path.exists():
            recipe, data = recipes[name], recipes[name].data(fold, None)
            with torch.random.fork_rng():
                torch.manual_seed(fold)
                method = build_method(recipe).eval()
                _undecided(method, data)
            about = Checkpoint(
                config=recipe.method,
                recipe=recipe.name,
                dataset=data.dataset,
                class_split=split_json(data.split),
            )
            save_checkpoint(path, method, about)
        return str(path)

    return make


@pytest.fixture
def model_of(saved):
    """(name, fold) -> the model of its checkpoint, with the options of a run."""

    def make(name, fold=0, **options):
        options = FiguresOptions(**{"quiet": True} | options)
        return FigureModel.find(saved(name, fold), options, lambda recipe, fold: recipe.data(fold, None))

    return make


@pytest.fixture
def drawn(monkeypatch):
    """Name of each figure that is saved -> its rows of shown arrays, and its records."""
    found = {}

    def keep(context, figure, name, records, arrays=None, *, folder="plots"):
        shown = [axes.images[0].get_array() for axes in figure.axes if axes.images] if figure else []
        columns = max(1, len(shown) // len(records))
        found[name] = [shown[i : i + columns] for i in range(0, len(shown), columns)], list(records)

    monkeypatch.setattr(FigureContext, "save", keep)
    return found


@pytest.fixture
def study(model_of, tmp_path):
    """(names, fold) -> the context of a run with these checkpoints."""

    def make(*names, fold=0, **changes):
        options = {"out": tmp_path / "out", "episodes": 4, "examples": 2, "quiet": True} | changes
        models = [model_of(name, fold, **options) for name in names]
        return FigureContext(options=FiguresOptions(**options), models=models)

    return make
