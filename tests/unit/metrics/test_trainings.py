"""Differences between methods of several trainings, against plain resampling and known variances."""

from math import ceil
from statistics import NormalDist, mean, stdev, variance

import numpy as np
import pytest

from fewseg.metrics import (
    EpisodeCounts,
    mean_score,
    miou,
    paired_difference,
    trainings_difference,
    trainings_interval,
)
from result_files import episode_table

CLASSES = [1, 2]


def training(lift=0.0, noise=0):
    """The counts of one training: 80 episodes of 20 images; ``noise`` decides what each image gets."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 20, 80)
    quality = generator.uniform(0.3, 0.6, 20)[image] + lift
    quality += np.random.default_rng(noise).normal(0, 0.01, 20)[image] * (noise > 0)
    inter = (1000 * np.clip(quality, 0, 1)).astype(np.int64)
    query = [f"q{i}" for i in image]
    return episode_table(1 + image % 2, inter, inter, np.full(80, 1000), seeds=1, query=query)


def plain(a, b, resamples=4000):
    """Differences by a plain double loop over resamples of images and trainings."""
    generator = np.random.default_rng(9)
    queries = sorted(set(b[0].query.tolist()))
    rows = {q: np.flatnonzero(b[0].query == q) for q in queries}
    found = []
    for _ in range(resamples):
        take = np.concatenate([rows[q] for q in generator.choice(queries, len(queries))])
        of_methods = []
        for trainings in (a, b):
            scores = [_score(table, take) for table in trainings] or [0.0]
            count = len(scores)
            drawn = mean(scores[i] for i in generator.integers(0, count, count))
            grown = (count / (count - 1)) ** 0.5 if count > 1 else 1.0
            of_methods.append(mean(scores) + grown * (drawn - mean(scores)))
        found.append(of_methods[1] - of_methods[0])
    return np.array(found)


def _score(table: EpisodeCounts, rows):
    ratios = []
    for c in CLASSES:
        own = rows[table.class_id[rows] == c]
        ratios.append(table.fg_inter[own].sum() / table.fg_union[own].sum())
    return mean(ratios)


LIFTS_A, LIFTS_B = (0.0, 0.03, -0.02), (0.05, 0.02, 0.09)


def test_the_interval_is_that_of_plain_resampling_of_images_and_trainings():
    a = [training(lift, i + 1) for i, lift in enumerate(LIFTS_A)]
    b = [training(lift, i + 7) for i, lift in enumerate(LIFTS_B)]
    found = trainings_difference(a, b, CLASSES, resamples=8000)
    assert found.difference == pytest.approx(mean(map(score, b)) - mean(map(score, a)))
    expected = plain(a, b)
    assert found.interval.standard_error == pytest.approx(expected.std(), rel=0.05)
    ends = np.quantile(expected, [0.025, 0.975])
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, abs=0.004)
    assert found.trainings == (3, 3)
    pairs = variance(map(score, a)) + variance(map(score, b))
    assert found.training_error == pytest.approx(pairs**0.5)


def score(table):
    return miou(table, CLASSES)


def test_one_training_of_each_has_the_interval_over_query_images():
    a, b = training(0.0, 1), training(0.05, 2)
    found = trainings_difference([a], [b], CLASSES)
    expected = paired_difference(a, b, CLASSES, over="queries")
    assert (found.difference, found.interval) == (expected.difference, expected.interval)
    assert found.training_error == 0
    assert found.image_error == expected.interval.standard_error


def test_the_same_weights_used_in_two_ways_are_drawn_together():
    lifts = (0.0, 0.2, -0.1)  # far more than the second way gains
    a = [training(lift, i + 1) for i, lift in enumerate(lifts)]
    b = [training(lift + 0.01 * i, i + 1) for i, lift in enumerate(lifts)]
    found = trainings_difference(a, b, CLASSES, same=True)
    gains = [score(second) - score(first) for first, second in zip(a, b, strict=True)]
    assert found.difference == pytest.approx(mean(gains))
    assert found.training_error == pytest.approx(stdev(gains))
    apart = trainings_difference(a, b, CLASSES)
    assert found.difference == apart.difference
    assert found.interval.standard_error < 0.1 * apart.interval.standard_error
    assert found.interval.standard_error == pytest.approx(stdev(gains) / 3**0.5, rel=0.1)
    with pytest.raises(ValueError, match="each method needs as many trainings as the other, got 3 and 2"):
        trainings_difference(a, b[:2], CLASSES, same=True)


def test_the_interval_of_a_mean_is_that_of_plain_resampling():
    a = [training(lift, i + 1) for i, lift in enumerate(LIFTS_A)]
    found = trainings_interval(a, CLASSES, resamples=8000)
    expected = plain([], a)
    assert found.standard_error == pytest.approx(expected.std(), rel=0.05)
    assert (found.low, found.high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.006)
    with pytest.raises(ValueError, match="a method needs 1 training at least, got 0"):
        trainings_interval([], CLASSES)


def test_trainings_that_differ_alone_give_the_standard_error_of_their_mean():
    """The same on every image, so that nothing but the training varies: s / sqrt(S)."""
    lifts = (0.0, 0.02, -0.03, 0.05)
    a, b = [training()], [training(lift) for lift in lifts]
    found = trainings_difference(a, b, CLASSES, resamples=8000)
    spread = stdev(map(score, b))
    assert found.interval.standard_error == pytest.approx(spread / len(lifts) ** 0.5, rel=0.05)
    assert found.training_error == pytest.approx(spread)
    assert found.image_error < 0.02 * spread


def test_the_trainings_needed_follow_from_both_errors():
    a = [training(lift, i + 1) for i, lift in enumerate(LIFTS_A)]
    b = [training(lift, i + 7) for i, lift in enumerate(LIFTS_B)]
    found = trainings_difference(a, b, CLASSES)
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    needed = found.training_error**2 / ((found.difference / z) ** 2 - found.image_error**2)
    assert found.trainings_needed() == ceil(needed) > 2


def test_where_the_images_are_too_few_no_number_of_trainings_is_enough():
    a = [training(0.0, 1), training(0.01, 2)]
    b = [training(0.0, 3), training(0.011, 4)]
    found = trainings_difference(a, b, CLASSES)
    assert abs(found.difference) < found.image_error
    assert found.trainings_needed() is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [training()], "each method needs 1 training at least, got 0 and 1"),
        ([training()], [training(), training().select(np.arange(70))], "not of the same episodes"),
    ],
)
def test_nothing_to_compare_and_other_episodes_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        trainings_difference(a, b, CLASSES)


def test_the_order_of_rows_and_the_number_of_resamples_do_not_change_the_difference():
    a, b = [training(0.0, 1), training(0.02, 2)], [training(0.04, 3), training(0.05, 4)]
    found = trainings_difference(a, b, CLASSES, resamples=200)
    mixed = [table.select(np.random.default_rng(1).permutation(len(table))) for table in b]
    again = trainings_difference(a, mixed, CLASSES, resamples=200)
    assert again == found
    assert found.difference == pytest.approx(
        mean(mean_score(t, CLASSES) for t in b) - mean(mean_score(t, CLASSES) for t in a)
    )
