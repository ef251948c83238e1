"""A checkpoint on the test images of its fold."""

from collections import Counter

import pytest
import torch

from fewseg.methods.matcher import Matcher
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.reports.figures.predictions import predictions, question_of
from fewseg.reports.figures.subjects import Shot, distinct_shots, matcher_on, subject_of


def test_a_subject_is_what_its_header_says_before_anything_is_loaded(saved):
    subject = subject_of(saved("scl", 1))
    assert isinstance(subject.recipe.method, SCLPFENetConfig)
    assert (subject.fold, subject.stem, subject.label, subject.seed) == (1, "scl", "SCL (PFENet)", 0)


def test_a_recipe_without_training_needs_a_fold(recipes):
    with pytest.raises(ValueError, match="does not say which fold it belongs to: give --fold"):
        subject_of("demo_matcher")
    assert subject_of("demo_matcher", fold=1).fold == 1


def test_a_checkpoint_that_is_gone_is_named(recipes):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at gone.safetensors"):
        subject_of("gone.safetensors")


def test_supports_that_are_drawn_several_times_are_kept_once_with_their_number(study):
    made = study("scl")
    opened = made.open(made.subjects[0])
    episodes = opened.episodes(1, 20)
    assert len(episodes) == 40
    found = distinct_shots(episodes)
    assert found == Counter(Shot(spec.class_id, spec.supports[0]) for _, spec in episodes)
    assert list(found) == sorted(found, key=lambda shot: (shot.class_id, shot.image))
    assert len(found) < 40


def test_supports_come_with_the_masks_of_their_own_class(study):
    made = study("scl")
    opened = made.open(made.subjects[0])
    shots = list(distinct_shots(opened.episodes(1, 20)))
    seen = opened.over_shots(shots, lambda features, masks: (len(features), masks), "x", progress=False)
    masks = torch.cat([masks for _, masks in seen])
    assert [n for n, _ in seen][:-1] == [8] * (len(seen) - 1)
    for shot, mask in zip(shots, masks, strict=True):
        labels = opened.data.source.read_labels(shot.image)
        assert torch.equal(mask == 1, labels == shot.class_id)


def test_content_leaves_the_padding_out(study, monkeypatch):
    made = study("scl")
    opened = made.open(made.subjects[0])
    image = opened.data.test.ids[0]
    assert opened.content(image, 5) == (5, 5)
    facts = opened.data.test.images[image]
    wide = type(facts)(height=17, width=33, areas={})
    monkeypatch.setitem(opened.data.test.images, image, wide)
    assert opened.content(image, 5) == (3, 5)


@pytest.mark.parametrize("name", ["scl", "srpnet_f"])
def test_predictions_are_those_of_the_plain_way(study, name):
    made = study(name)
    opened = made.open(made.subjects[0])
    specs = [spec for _, spec in opened.episodes(1, 5)]
    found = dict(predictions(opened, [*specs, *specs], 1, progress=False))
    evaluator = opened.evaluator(progress=False)
    assert set(found) == {question_of(spec) for spec in specs}
    for spec in specs:
        logits = evaluator.plain(spec, opened.fusion(1))  # the view is the image: 33 pixels
        assert ((logits[1] > logits[0]).numpy() == found[question_of(spec)]).mean() > 0.99


def test_the_matcher_shares_the_frozen_trunk_and_its_stored_features(study):
    made = study("scl", "srpnet_f")
    opened = made.open(made.subjects[0])
    matcher = matcher_on(opened)
    assert isinstance(matcher.method, Matcher)
    assert matcher.method.backbone is opened.method.backbone
    assert matcher.store is opened.store
    assert matcher.subject.label == "matcher"
    with pytest.raises(ValueError, match="trains its backbone"):
        matcher_on(made.open(made.subjects[1]))
