"""The two lists of PASCAL training images are chosen by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from fewseg.engine.train_config import TrainConfig
from fewseg.recipes import datasets
from fewseg.recipes.registry import RECIPES, recipe


@pytest.fixture
def list_read(monkeypatch):
    """Reads a recipe's fold and gives the name of its training list."""
    monkeypatch.setattr(datasets, "_fold_data", lambda dataset, train, test, split: train)
    monkeypatch.setattr(datasets, "pascal_sources", lambda voc, sbd, name: (name, "val"))
    return lambda chosen: chosen.read(0, Path())


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("pascal_")])
def test_every_pascal_recipe_takes_either_list_and_has_its_own(name, list_read):
    chosen = recipe(name)
    assert list_read(chosen) == ("trainaug" if "_panet_" in name else "voc+sbd_noval")
    if chosen.train is not None:
        for given in ("trainaug", "voc+sbd_noval"):
            train = tyro.cli(TrainConfig, args=["--train-list", given], default=chosen.train)
            assert list_read(replace(chosen, train=train)) == given


def test_other_data_sets_refuse_a_list():
    chosen = recipe("coco_panet_vgg16")
    with pytest.raises(ValueError, match="train_list 'trainaug' is for PASCAL-5i alone"):
        replace(chosen, train=replace(chosen.train, train_list="trainaug")).read(0)
