"""Intervals of means, shares and rates."""

import numpy as np
import pytest

from fewseg.reports.figures.intervals import (
    mean_estimate,
    rate_estimate,
    ratio_estimate,
    resampled,
    with_percentiles,
)


def test_a_mean_has_about_two_standard_errors_on_either_side():
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = mean_estimate(values)
    assert found.value == pytest.approx(values.mean())
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=0.02)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_a_share_is_of_the_sums_and_not_the_mean_of_shares():
    found = ratio_estimate([1, 90], [10, 100])
    assert found.value == pytest.approx(91 / 110)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.9)


def test_a_difference_of_shares_is_paired():
    generator = np.random.default_rng(0)
    whole = generator.integers(50, 100, 200)
    part = generator.integers(0, 50, 200)
    same = ratio_estimate(part + 1, whole, less=(part, whole))
    assert same.value == pytest.approx(200 / whole.sum())
    alone = ratio_estimate(part, whole)
    assert same.high - same.low < 0.1 * (alone.high - alone.low)
    assert ratio_estimate(part, whole, less=(part, whole)).high == 0


def test_resamples_depend_on_the_seed_alone():
    def sums(weights):
        assert (weights.sum(axis=1) == 5).all()
        return weights @ np.arange(5.0)

    assert np.array_equal(
        resampled(sums, 5, seed=1, resamples=100), resampled(sums, 5, seed=1, resamples=100)
    )
    assert not np.array_equal(resampled(sums, 5, seed=1), resampled(sums, 5, seed=2))
    assert len(resampled(sums, 5, resamples=100)) == 100


def test_what_does_not_exist_takes_no_part():
    found = with_percentiles(2.0, np.array([1.0, np.nan, 3.0]), level=1.0)
    assert (found.low, found.high) == (1.0, 3.0)
    assert with_percentiles(2.0, np.array([np.nan])).low == 2.0


def test_a_rate_of_nothing_has_an_interval_above_nothing():
    found = rate_estimate(0, 50)
    assert (found.value, found.low) == (0, 0)
    assert 0.03 < found.high < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_estimate([]), "at least one item"),
        (lambda: ratio_estimate([0], [0]), "more than 0"),
        (lambda: rate_estimate(0, 0), "at least one episode"),
    ],
)
def test_nothing_has_no_interval(call, message):
    with pytest.raises(ValueError, match=message):
        call()
