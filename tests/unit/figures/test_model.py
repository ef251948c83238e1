"""A checkpoint on the test images of its fold."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from fewseg.methods.matcher import Matcher
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.recipes import datasets
from fewseg.recipes.registry import RECIPES
from fewseg.reports.figures.model import FigureModel, Support, question_of
from fewseg.reports.figures.run import _models
from fewseg.reports.options import FiguresOptions


def test_a_model_is_known_by_its_header_before_anything_is_loaded(model_of):
    model = model_of("scl", 1)
    assert isinstance(model.recipe.method, SCLPFENetConfig)
    assert (model.fold, model.variant, model.label, model.seed) == (1, "scl_pfenet", "SCL (PFENet)", 0)


def test_a_recipe_without_training_needs_a_fold(recipes):
    with pytest.raises(ValueError, match="does not state which fold it belongs to: give --fold"):
        FigureModel.find("demo_matcher", FiguresOptions(), None)
    assert FigureModel.find("demo_matcher", FiguresOptions(fold=1), None).fold == 1


def test_the_fold_is_read_once_with_the_training_list_of_its_recipe(recipes, read, saved, monkeypatch):
    lists = []

    def pascal(fold, root=None, *, train_list="voc+sbd_noval"):
        lists.append(train_list)
        return read(fold, root)

    monkeypatch.setattr(datasets, "pascal", pascal)
    paths = saved("scl"), saved("sdaanet")
    for name in ("scl", "sdaanet"):
        train = replace(recipes[name].train, train_list="trainaug")
        chosen = replace(recipes[name], data=pascal, train=train)
        monkeypatch.setitem(RECIPES, chosen.name, lambda chosen=chosen: chosen)
    first, second = _models(FiguresOptions(checkpoints=paths), [])
    assert first.data is second.data
    assert lists == ["trainaug"]


def test_a_checkpoint_that_is_gone_is_named(recipes):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at gone.safetensors"):
        FigureModel.find("gone.safetensors", FiguresOptions(), None)


def test_supports_that_are_drawn_several_times_are_kept_once_with_their_number(model_of):
    model = model_of("scl", episodes=20)
    episodes = model.episodes()
    assert len(episodes) == 40
    found = model.supports
    assert found == Counter(Support(spec.class_id, spec.supports[0]) for _, spec in episodes)
    assert list(found) == sorted(found, key=lambda shot: (shot.class_id, shot.image))
    assert len(found) < 40


def test_supports_come_with_the_masks_of_their_own_class(model_of):
    model = model_of("scl", episodes=20)
    shots = list(model.supports)
    seen = model.over_supports(shots, lambda features, masks: (len(features), masks), "x")
    masks = torch.cat([masks for _, masks in seen])
    assert [n for n, _ in seen][:-1] == [8] * (len(seen) - 1)
    for shot, mask in zip(shots, masks, strict=True):
        labels = model.data.source.read_labels(shot.image)
        assert torch.equal(mask == 1, labels == shot.class_id)


def test_content_leaves_the_padding_out(model_of, monkeypatch):
    model = model_of("scl")
    image = model.data.test.ids[0]
    assert model.content(image, 5) == (5, 5)
    facts = model.data.test.images[image]
    wide = type(facts)(height=17, width=33, areas={})
    monkeypatch.setitem(model.data.test.images, image, wide)
    assert model.content(image, 5) == (3, 5)


@pytest.mark.parametrize("name", ["scl", "srpnet_f"])
def test_predictions_are_those_of_the_plain_way(model_of, name):
    model = model_of(name, episodes=5)
    specs = [spec for _, spec in model.episodes()]
    found = dict(model.predictions([*specs, *specs]))
    evaluator = model.evaluator()
    assert set(found) == {question_of(spec) for spec in specs}
    for spec in specs:
        logits = evaluator.plain(spec, model.fusion(1))  # the view is the image: 33 pixels
        assert ((logits[1] > logits[0]).numpy() == found[question_of(spec)]).mean() > 0.99


def test_the_matcher_shares_the_frozen_trunk_and_its_stored_features(model_of):
    model = model_of("scl")
    matcher = model.matcher()
    assert isinstance(matcher.method, Matcher)
    assert matcher.method.backbone is model.method.backbone
    assert matcher.store is model.store
    assert matcher.label == "matcher"
    with pytest.raises(ValueError, match="trains its backbone"):
        model_of("srpnet_f").matcher()
