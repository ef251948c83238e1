"""Training configs: epochs become steps, and what cannot be is refused."""

import pytest

from fewseg.engine.config_json import config_from_json
from fewseg.engine.results import as_json
from fewseg.engine.train_config import TrainConfig


def test_epochs_decide_the_steps_by_images_batch_and_devices():
    config = TrainConfig(epochs=200, batch=4, steps=7)
    found = config.for_images(4760)
    assert (found.steps, found.epochs) == (238_000, None)
    assert config.for_images(4760, devices=2).steps == 119_000
    assert config.for_images(1).steps == 50
    assert TrainConfig(epochs=1, batch=4).for_images(3).steps == 1


def test_without_epochs_the_steps_stand():
    config = TrainConfig(steps=7)
    assert config.for_images(1000) is config


@pytest.mark.parametrize("field", ["steps", "batch", "shots", "ways", "save_every"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match="must be at least 1"):
        TrainConfig(**{field: 0})


def test_validation_without_held_out_classes_is_refused():
    with pytest.raises(ValueError, match="the test fold never selects a checkpoint"):
        TrainConfig(validate_every=10)


def test_training_is_of_one_way_unless_more_are_asked_for():
    assert TrainConfig().ways == 1
    stored = as_json(TrainConfig())
    del stored["ways"]  # what a checkpoint of before there were several holds
    assert config_from_json(stored) == TrainConfig()
    assert config_from_json(as_json(TrainConfig(ways=2))).ways == 2
