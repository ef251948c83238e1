"""Configs come back from JSON as they were; nothing but known configs is ever made."""

import json

import pytest

from fewseg.data.transforms import TrainView
from fewseg.decoders.prior import NoPrior, PriorMap
from fewseg.engine.config_json import config_from_json
from fewseg.engine.optimiser import SGD, AdamW
from fewseg.engine.result_schema import as_json
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import CrossGuided, MeanVector
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.scl import SCLPFENetConfig, SelfGuided


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(view=TrainView(size=65), optimiser=AdamW(lr=1e-4), held_out=(1, 2), clip=0.5),
        TrainConfig(optimiser=SGD()),
        SCLPFENetConfig(
            prior=NoPrior(),
            scales=(1.0, 8, 0.25),
            self_guided=SelfGuided(vectors=("initial",), second_pass="released"),
            fusion=CrossGuided(divisor=5),
        ),
        MatcherConfig(fusion=MeanVector()),
    ],
)
def test_a_config_survives_json(config):
    assert config_from_json(json.loads(json.dumps(as_json(config)))) == config


def test_ints_and_fractions_among_the_scales_stay_apart():
    """60 is a side in cells and 1.0 a fraction of the map's: a change of type would change the network."""
    stored = json.loads(json.dumps(as_json(SCLPFENetConfig(scales=(60, 1.0, 0.5)))))
    found = config_from_json(stored).scales
    assert [type(s) for s in found] == [int, float, float]


@pytest.mark.parametrize("name", ["Path", "os.system", "builtins.eval", "prior", ["PriorMap"], None, 3])
def test_an_unknown_class_is_refused(name):
    with pytest.raises(ValueError, match=r"names the class .*: the file is of a newer version or of another"):
        config_from_json({"type": name, "path": "x"})


def test_an_unknown_field_is_refused_by_name():
    stored = as_json(PriorMap()) | {"levle": "layer3"}
    with pytest.raises(ValueError, match=r"PriorMap has unknown fields \['levle'\]; known: .*'level'"):
        config_from_json(stored)


def test_a_missing_field_is_refused():
    with pytest.raises(ValueError, match=r"config of TrainView is not complete: .*'size'"):
        config_from_json({"type": "TrainView"})


def test_the_rules_of_a_config_hold_for_a_file_too():
    stored = as_json(SelfGuided()) | {"vectors": []}
    with pytest.raises(ValueError, match="one or more of 'initial'"):
        config_from_json(stored)
