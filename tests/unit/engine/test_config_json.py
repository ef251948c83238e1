"""Configs come back from JSON as they were; nothing but known configs is ever made."""

import json
from dataclasses import replace

import pytest

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.transforms import TrainView
from fewseg.engine.config_json import config_from_json, with_parts
from fewseg.engine.results import as_json
from fewseg.engine.train_config import SGD, AdamW, TrainConfig
from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.layers import NoPrior, PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pfenet import PFENetConfig
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
    message = r"names the class .*: the file is of a newer version or of another"
    with pytest.raises(ValueError, match=message):
        config_from_json({"type": name, "path": "x"})
    with pytest.raises(ValueError, match=message):
        config_from_json({"type": "PFENetConfig", "prior": {"type": name}})


def test_a_known_class_in_the_wrong_place_is_refused():
    """Only what the field's own type hint names may stand there; a field without parts takes none."""
    with pytest.raises(ValueError, match=r"'AdamW'; .* in its place, \['NoPrior', 'PriorMap'\]"):
        config_from_json({"type": "PFENetConfig", "prior": {"type": "AdamW"}})
    with pytest.raises(ValueError, match=r"'BackboneConfig'; .* in its place, \[\]"):
        config_from_json({"type": "PFENetConfig", "channels": {"type": "BackboneConfig"}})
    with pytest.raises(ValueError, match="'PriorMap'"):
        config_from_json(as_json(PriorMap()))


@pytest.mark.parametrize(
    ("config", "field", "invalid"),
    [
        (PFENetConfig(), "mid_dropout", ["a", None, [], float("inf"), float("nan"), True]),
        (PFENetConfig(), "channels", ["8", 8.0, None, True]),
        (PFENetConfig(), "scales", [[1.0, "a"], 1.0, "1.0", [None], {}]),
        (PFENetConfig(), "rounding", ["up", 1, ["down"]]),
        (PFENetConfig(), "backbone", ["resnet50", {}, None, as_json(AdamW())]),
        (PFENetConfig(), "prior", [None, "NoPrior"]),
        (BackboneConfig(), "name", [1, None, ["resnet50"]]),
        (BackboneConfig(), "trainable", [1, "yes", None]),
        (BackboneConfig(), "shape", [7, [1, 1, 1, 1]]),
        (BackboneConfig(), "levels", [["layer2", 3], "layer2"]),
        (ResNetShape(), "layers", [[1, 1, 1], [1, 1, 1, "1"]]),
    ],
)
def test_a_value_of_another_type_is_refused_by_field(config, field, invalid):
    stored = as_json(config)
    kind = type(config)
    assert config_from_json(stored, kind) == config
    for value in invalid:
        with pytest.raises(
            ValueError, match=f"{kind.__name__} has {field} .*, expected .*the file was edited|names"
        ):
            config_from_json(stored | {field: value}, kind)


def test_an_unknown_field_is_refused_by_name():
    stored = as_json(PriorMap()) | {"levle": "layer3"}
    with pytest.raises(ValueError, match=r"PriorMap has unknown fields \['levle'\]; known: .*'level'"):
        config_from_json(stored, PriorMap)


def test_a_missing_field_is_refused():
    with pytest.raises(ValueError, match=r"config of TrainView is not complete: .*'size'"):
        config_from_json({"type": "TrainConfig", "view": {"type": "TrainView"}})


def test_the_rules_of_a_config_hold_for_a_file_too():
    stored = as_json(SelfGuided()) | {"vectors": []}
    with pytest.raises(ValueError, match="one or more of 'initial'"):
        config_from_json(stored, SelfGuided)


CONFIGS = {"method": PFENetConfig(backbone=BackboneConfig(weights=None)), "train": TrainConfig()}


def test_parts_that_a_field_takes_are_put_in_place():
    parts = ["method.fusion=ScoreAverage", "train.optimiser=AdamW", "method.backbone.shape=ResNetShape"]
    found = with_parts(CONFIGS, parts)
    assert found["method"].fusion == ScoreAverage()
    assert found["train"].optimiser == AdamW()
    assert found["method"].backbone.shape == ResNetShape()
    assert with_parts(CONFIGS, []) == CONFIGS


def test_a_stored_config_without_an_added_field_is_read_with_what_it_was_made_with_and_keeps_its_digest():
    new = as_json(PFENetConfig())
    assert new["rounding"] == "down"
    stored = {key: value for key, value in new.items() if key != "rounding"}
    old = config_from_json(stored)
    assert old == replace(PFENetConfig(), rounding="nearest")
    assert as_json(old) == stored
    assert config_from_json(new) == PFENetConfig()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("method.prior=ScoreAverage", "'prior' takes PriorMap or NoPrior, not 'ScoreAverage'"),
        ("method.fusion=TrainView", "'fusion' takes MeanVector or ScoreAverage or CrossGuided, not"),
        ("train.optimiser=MeanVector", "'optimiser' takes SGD or StepSGD or AdamW, not 'MeanVector'"),
        ("train.clip=SGD", "'clip' holds no part; set it by its own option"),
        ("method.backbone.pior=NoPrior", "BackboneConfig has no field 'pior'"),
        ("method.channels.x=NoPrior", "int has no field 'x'"),
        ("method=PFENetConfig", "must be written NAME=CLASS"),
    ],
)
def test_a_part_that_a_field_does_not_take_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        with_parts(CONFIGS, [part])
