"""A tiny rendered fold, a tiny PFENet and stores of its features."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from fewseg.data.episodes import TrainingSampler
from fewseg.data.folds import ClassSplit, FoldData
from fewseg.data.index import build_index
from fewseg.data.synthetic import SYNTHETIC_CLASSES, SyntheticSource
from fewseg.data.transforms import EvalView, TrainView
from fewseg.engine import checkpoint
from fewseg.engine.environment import Environment
from fewseg.engine.features import FeatureStore
from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from small_segmenters import small_backbone

SIDE = 33
VIEWS = (EvalView(SIDE), TrainView(size=SIDE, rotate=0.0, blur=0.0))
CONFIG = PFENetConfig(
    backbone=small_backbone("layer2", "layer3"),
    channels=8,
    prior=PriorMap(level="layer3", masked_input=None),
    scales=(1.0, 0.5),
)


@pytest.fixture(autouse=True)
def no_look_at_the_machine(monkeypatch):
    """Checkpoints name the software's versions; asking git for them takes longer than these tests."""
    monkeypatch.setattr(checkpoint, "environment", lambda: Environment(versions={"fewseg": "0"}, hardware=""))


@pytest.fixture
def config():
    return CONFIG


@pytest.fixture
def build():
    """(changes of the config) -> a method with the same random weights each time."""

    def make(**changes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return replace(CONFIG, **changes).build()

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Thirty pictures of five classes, three of them to train on."""
    source = SyntheticSource(30, SIDE, classes=(1, 2, 3, 4, 5))
    index = build_index(source, cache_dir=tmp_path_factory.mktemp("index"), workers=1, progress=False)
    names = {c: SYNTHETIC_CLASSES[c] for c in source.classes}
    split = ClassSplit(name="tiny", fold=0, base=(1, 2, 3), novel=(4, 5), class_names=names)
    return FoldData(dataset="tiny", source=source, split=split, train=index, test=index)


@pytest.fixture(scope="session")
def sampler(data):
    return TrainingSampler(data.train, data.split, shots=2, min_area=20, seed=3)


@pytest.fixture(scope="session")
def store(data, tmp_path_factory):
    """Features of the plain view and of one random view."""
    view = TrainView(size=SIDE, rotate=0.0, blur=0.0)
    store = FeatureStore(
        CONFIG.backbone.build(),
        data.source,
        [EvalView(SIDE), view],
        folder=tmp_path_factory.mktemp("features"),
        dtype=torch.float32,
    )
    store.ensure(data.source.ids, progress=False)
    return store


@pytest.fixture
def fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


class RunsCode:
    """Unpickling one of these makes a file: what a malicious checkpoint would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def malicious(tmp_path):
    """A pickle that would run code, and the file that it would make."""
    mark = tmp_path / "the code ran"
    pickled = pickle.dumps({"state_dict": RunsCode(mark)})
    pickle.loads(pickled)
    assert mark.exists()  # it does run code, if it is unpickled
    mark.unlink()
    path = tmp_path / "malicious.safetensors"
    path.write_bytes(pickled)
    return path, mark


@pytest.fixture
def backbone(config):
    """A backbone that counts the images that it is given, sizes asked for (all zeros) aside."""
    backbone = config.backbone.build()
    backbone.seen = 0

    def count(module, arguments):
        module.seen += int((arguments[0].abs().sum(dim=(1, 2, 3)) > 0).sum())

    backbone.register_forward_pre_hook(count)
    return backbone


@pytest.fixture
def make_store(backbone, data, tmp_path):
    """(changes) -> a store of two views in this test's folder."""

    def build(source=data.source, views=VIEWS, trunk=backbone, **changes):
        settings = {"folder": tmp_path, "dtype": torch.float32} | changes
        return FeatureStore(trunk, source, list(views), **settings)

    return build
