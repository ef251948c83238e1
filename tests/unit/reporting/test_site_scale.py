"""Axes, colours and marks of the page's charts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fewseg.reports.site.heat import colour
from fewseg.reports.site.panels import Curve, polyline
from fewseg.reports.site.scale import Scale, scale_over
from fewseg.reports.site.svg import STYLES, mark, number


@pytest.mark.parametrize("size", [1e-3, 1.0, 37.0, 4e5])
def test_an_axis_holds_all_values_between_round_ticks(size):
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = (size * generator.normal(size=4)).tolist()
        scale = scale_over(values, 10.0, 500.0)
        places = [scale.at(v) for v in values]
        assert min(places) >= 10 - 1e-6
        assert max(places) <= 500 + 1e-6
        assert scale.at(scale.ticks[0]) == pytest.approx(10)
        assert scale.at(scale.ticks[-1]) == pytest.approx(500)
        assert 3 <= len(scale.ticks) <= 8
        leading = re.match(r"[0.]*([1-9])", f"{scale.step:.12f}")[1]
        assert leading in "125"
        np.testing.assert_allclose([float(scale.text(t)) for t in scale.ticks], scale.ticks, atol=size * 1e-6)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [float("nan"), 2.0], [float("inf")]])
def test_an_axis_of_no_range_still_has_one(values):
    scale = scale_over(values, 0.0, 100.0)
    assert scale.low < scale.high
    assert len(scale.ticks) >= 2


def test_an_axis_may_run_upwards():
    scale = Scale(low=0, high=10, start=200, end=100, step=5)
    assert [scale.at(v) for v in (0, 5, 10)] == [200, 150, 100]


def test_a_line_breaks_where_a_value_is_missing():
    scale = Scale(low=0, high=10, start=0, end=10, step=1)
    curve = Curve(series=1, name="x", points=((0, 1.0), (1, 2.0), (2, None), (3, 4.0)))
    assert 'd="M0 1L1 2M3 4"' in polyline(curve, scale, scale).text


def test_places_are_short_numbers():
    assert [number(v) for v in (1.0, 0.125, -0.001, 120.0, -3.456)] == ["1", "0.12", "0", "120", "-3.46"]


def test_series_differ_in_shape_and_not_in_colour_alone():
    assert len({re.search(r' d="([^"]+)"', mark(i, 0, 0).text)[1] for i in range(STYLES)}) == STYLES


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_scores_grow_lighter_and_their_numbers_stay_readable():
    lights = []
    for score in np.linspace(0, 1, 101):
        ground, ink = colour(float(score))
        lights.append(luminance(ground))
        high, low = sorted([luminance(ground), luminance(ink)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"WCAG AA at {score}"
    assert lights == sorted(lights), "also in black and white, more is lighter"
    assert colour(-0.5) == colour(0.0)
    assert colour(1.5) == colour(1.0)
