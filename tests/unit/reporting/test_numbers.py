import pytest

from fewseg.reports.numbers import Estimate, gain_with_interval, mean_of, percent, points, with_interval


def test_scores_are_shown_in_percent_with_one_decimal():
    assert percent(0.6183) == "61.8"
    assert with_interval(Estimate(value=0.6183, low=0.609, high=0.6258)) == "61.8 [60.9, 62.6]"


def test_differences_are_shown_in_points_with_their_sign():
    assert points(0.0103) == "+1.0"
    assert points(-0.0103) == "-1.0"
    assert gain_with_interval(Estimate(value=0.01, low=-0.002, high=0.022)) == "+1.0 [-0.2, +2.2]"


def test_errors_of_independent_folds_add_up_as_squares():
    mean = mean_of([Estimate(value=0.5, low=0.47, high=0.58), Estimate(value=0.7, low=0.66, high=0.76)])
    assert mean.value == pytest.approx(0.6)
    assert mean.low == pytest.approx(0.6 - 0.05 / 2)
    assert mean.high == pytest.approx(0.6 + 0.10 / 2)


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to take the mean of"):
        mean_of([])
