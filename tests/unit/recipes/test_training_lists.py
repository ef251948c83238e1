"""The two lists of PASCAL training images are chosen by name."""

import pytest

from fewseg.recipes import datasets


def test_every_pascal_recipe_takes_either_list(monkeypatch):
    monkeypatch.setattr(datasets, "_fold_data", lambda dataset, train, test, split: train)
    monkeypatch.setattr(datasets, "pascal_sources", lambda voc, sbd, name: (name, "val"))
    root = datasets.Path()
    assert datasets.training_data(datasets.pascal, None, 0, root) == "voc+sbd_noval"
    assert datasets.training_data(datasets.pascal, "trainaug", 0, root) == "trainaug"


def test_other_data_sets_refuse_a_list():
    with pytest.raises(ValueError, match="train_list 'trainaug' is for PASCAL-5i alone"):
        datasets.training_data(datasets.coco, "trainaug", 0, None)
