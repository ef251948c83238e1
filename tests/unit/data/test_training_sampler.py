import hashlib
import logging
from dataclasses import replace

import pytest
import torch

from fewseg.data.episodes import TrainingSampler
from fewseg.types import DataError


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


@pytest.mark.parametrize(
    ("ways", "class_first", "class_2", "digest"),
    [
        (1, 1.0, (92, 108), "5d10f7b04681"),
        (1, 0.0, (10, 22), "e6f6dac19279"),
        (1, 0.5, (50, 66), "373eb7136744"),
        (2, 0.5, (0, 200), "66e0c567e366"),
    ],
)
def test_training_episodes_never_change(index, shared_images, split, ways, class_first, class_2, digest):
    # From the list: 2 of 42 images show class 2 alone, 2 show it beside class 1: 3 in 42 draws.
    images = index if ways == 1 else shared_images
    stream = sampler(images, split, shots=2, seed=5, class_first=class_first, ways=ways)
    drawn = [stream.episode(i) for i in range(200)]
    assert class_2[0] < sum(spec.class_id == 2 for spec in drawn) < class_2[1]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:12] == digest


def test_classes_with_too_few_images_are_skipped_with_a_warning(index, split, caplog):
    sampler(index, split, min_area=1)  # every class has images
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert sampler(index, split).classes == (1, 2)
    assert "not trained on, too few images (3 class3: 1)" in caplog.text
    assert sampler(index, split, shots=4).classes == (1,)
    assert sampler(index, split, shots=3).classes == (1, 2)


def test_novel_images_stay_unless_they_are_to_be_dropped(index, split):
    with_novel = {f"a{k:02d}" for k in range(10)}
    kept = sampler(index, split, class_first=0.0)
    assert with_novel <= {kept.episode(i).query for i in range(1500)}
    dropped = sampler(index, split, drop_novel=True)
    specs = [dropped.episode(i) for i in range(1500)]
    assert not with_novel & {id for s in specs for id in (s.query, *s.supports)}
    held_out = sampler(index, split, drop_novel=True, held_out_classes=(2,))
    assert not {"b0", "b1"} & {id for i in range(500) for id in held_out.episode(i).supports}
    assert held_out.classes == (1,)
    assert sampler(index, split, held_out_classes=(1,)).classes == (2,)


def test_pixels_of_classes_that_training_must_not_see_are_background_unless_they_are_to_be_ignored(
    index, split
):
    labels = torch.tensor([[0, 1, 2, 3], [4, 5, 255, 4]], dtype=torch.uint8)
    assert torch.equal(sampler(index, split).training_labels(labels), labels)
    ignoring = sampler(index, split, novel_pixels="ignored", held_out_classes=(2,))
    assert ignoring.training_labels(labels).tolist() == [[0, 1, 255, 3], [255, 255, 255, 255]]
    assert labels.tolist()[1] == [4, 5, 255, 4]
    with_novel = {f"a{k:02d}" for k in range(10)}
    assert with_novel <= {ignoring.episode(i).query for i in range(1500)}


def test_a_list_that_allows_no_training_is_reported_with_every_class(index, split):
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


@pytest.fixture
def shared_images(make_index):
    """Class 1 in thirty images; class 2 in six, all with class 1; class 3 in eight of its own."""
    images = {f"a{k:02d}": {1: 100} for k in range(24)}
    images |= {f"b{k}": {1: 100, 2: 60} for k in range(6)}
    images |= {f"c{k}": {3: 60} for k in range(8)}
    return make_index(images)


@pytest.mark.parametrize("shots", [1, 2])
def test_the_one_way_episode_of_a_step_is_the_first_way_of_its_episode_of_several(
    shared_images, split, shots
):
    one = sampler(shared_images, split, shots=shots)
    two = sampler(shared_images, split, shots=shots, ways=2)
    several = [two.episode(i) for i in range(300)]
    assert [replace(s, others=()) for s in several] == [one.episode(i) for i in range(300)]
    assert [two.episode(i) for i in reversed(range(300))] == several[::-1]
    for spec in several:
        assert len(set(spec.classes)) == 2
        assert len(spec.images) == 2 * shots + 1
        for way in spec.ways:
            assert all(shared_images.images[id].areas.get(way.class_id, 0) >= 10 for id in way.supports)


def test_a_class_that_other_ways_could_leave_without_images_is_never_a_further_way(
    shared_images, split, caplog
):
    with caplog.at_level(logging.WARNING):
        stream = sampler(shared_images, split, shots=3, ways=2)
    assert (stream.classes, stream.further_classes) == ((1, 2, 3), (1, 3))
    assert "never a further way, too few images of its own (2 class2: 2)" in caplog.text
    drawn = [stream.episode(i) for i in range(500)]
    assert {s.others[0].class_id for s in drawn} == {1, 3}
    assert 2 in {s.class_id for s in drawn}


def test_more_ways_than_the_images_allow_are_reported(shared_images, split):
    assert sampler(shared_images, split, ways=3).further_classes == (1, 2, 3)
    with pytest.raises(DataError, match=r"3-way 3-shot training needs 3 base classes.*\(2 class2: 0\)"):
        sampler(shared_images, split, shots=3, ways=3)
    with pytest.raises(DataError, match="4-way 1-shot training needs 4 base classes"):
        sampler(shared_images, split, ways=4)
    with pytest.raises(ValueError, match="ways=0"):
        sampler(shared_images, split, ways=0)


def test_queries_by_epochs_are_each_once_in_a_pass_in_an_order_of_their_own(index, split):
    walked = sampler(index, split, queries="epochs", class_first=0.0)
    size = len({walked.episode(step).query for step in range(200)})
    passes = [[walked.episode(p * size + i).query for i in range(size)] for p in range(3)]
    assert all(len(set(one)) == size for one in passes)
    assert passes[0] != passes[1]
    again = sampler(index, split, queries="epochs", class_first=0.0)
    assert again.episode(2 * size + 1) == walked.episode(2 * size + 1)
    with pytest.raises(ValueError, match="class_first 0 with 'epochs'"):
        sampler(index, split, queries="epochs", class_first=0.5)
