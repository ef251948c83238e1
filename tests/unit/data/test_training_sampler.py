from __future__ import annotations

import logging
from collections import Counter

import pytest

from fewseg.data.episodes import EpisodeSpec, TrainingSampler
from fewseg.data.errors import DataError


@pytest.fixture
def index(make_index):
    """Class 1 in forty images, class 2 in four, class 3 in one; novel class 4 beside some of class 1."""
    images = {f"a{k:02d}": {1: 100, **({4: 1} if k < 10 else {})} for k in range(38)}
    images |= {f"b{k}": {1: 100, 2: 60, 3: 5} for k in range(2)}
    images |= {f"c{k}": {2: 60} for k in range(2)}
    images |= {"d0": {3: 80}, "e0": {4: 900, 5: 900}}
    return make_index(images)


def sampler(index, split, **changes):
    return TrainingSampler(index, split, **{"min_area": 10, **changes})


def test_training_draws_base_classes_only_and_images_that_show_them(index, split):
    drawn = [sampler(index, split, shots=3).episode(step) for step in range(300)]
    assert {s.class_id for s in drawn} == {1, 2}
    for step, spec in enumerate(drawn):
        assert spec.index == step
        used = (spec.query, *spec.supports)
        assert len(set(used)) == 4
        assert all(index.images[id].areas[spec.class_id] >= 10 for id in used)


def test_an_episode_depends_on_seed_step_and_fold_alone(index, split):
    first = [sampler(index, split).episode(i) for i in range(40)]
    assert [sampler(index, split).episode(i) for i in reversed(range(40))] == first[::-1]
    assert [sampler(index, split, seed=1).episode(i) for i in range(40)] != first


def test_training_episodes_never_change(index, split):
    assert sampler(index, split, shots=2, seed=5).episode(11) == EpisodeSpec(11, 1, "a37", ("a02", "a05"))


@pytest.mark.parametrize(
    ("class_first", "low", "high"), [(1.0, 0.46, 0.54), (0.0, 0.05, 0.11), (0.5, 0.25, 0.33)]
)
def test_class_first_is_the_part_of_episodes_with_evenly_drawn_classes(index, split, class_first, low, high):
    # From the list: 2 of 42 images show class 2 alone, 2 show it beside class 1: 3 in 42 draws.
    stream = sampler(index, split, class_first=class_first)
    drawn = Counter(stream.episode(i).class_id for i in range(3000))
    assert low < drawn[2] / 3000 < high


def test_classes_with_too_few_images_are_skipped_with_a_warning(index, split, caplog):
    with caplog.at_level(logging.WARNING):
        assert sampler(index, split).classes == (1, 2)
    assert "not trained on, too few images (3 class3: 1)" in caplog.text
    assert sampler(index, split, shots=4).classes == (1,)
    assert sampler(index, split, shots=3).classes == (1, 2)


def test_no_warning_where_every_class_has_images(index, split, caplog):
    sampler(index, split, min_area=1)
    assert caplog.text == ""


def test_held_out_classes_are_not_drawn(index, split):
    stream = sampler(index, split, held_out_classes=(1,))
    assert {stream.episode(i).class_id for i in range(50)} == {2}


def test_novel_images_stay_unless_they_are_to_be_dropped(index, split):
    with_novel = {f"a{k:02d}" for k in range(10)}
    kept = sampler(index, split, class_first=0.0)
    assert with_novel <= {kept.episode(i).query for i in range(1500)}
    dropped = sampler(index, split, drop_novel=True)
    specs = [dropped.episode(i) for i in range(1500)]
    assert not with_novel & {id for s in specs for id in (s.query, *s.supports)}


def test_dropping_drops_images_of_held_out_classes_too(index, split):
    stream = sampler(index, split, drop_novel=True, held_out_classes=(2,))
    used = {id for i in range(500) for id in stream.episode(i).supports}
    assert used
    assert not used & {"b0", "b1"}


def test_a_list_that_allows_no_training_is_told_with_every_class(index, split):
    with pytest.raises(
        DataError, match=r"no base class has the 42 images.*1 class1: 40, 2 class2: 4, 3 class3: 1"
    ):
        sampler(index, split, shots=41)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 0}, "shots"),
        ({"class_first": 1.5}, "class_first"),
        ({"held_out_classes": (4,)}, "not base"),
    ],
)
def test_settings_that_cannot_be_are_refused(index, split, changes, message):
    with pytest.raises(ValueError, match=message):
        sampler(index, split, **changes)
