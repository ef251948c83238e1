"""Axes, colours and marks of the page's plots."""

import re

import numpy as np
import pytest

from fewseg.reports.numbers import Estimate
from fewseg.reports.site.build import heat_colour
from fewseg.reports.site.plots import MARKERS, SERIES, Curve, IntervalRow, interval_charts, panel, round_ticks


@pytest.mark.parametrize("size", [1e-3, 1.0, 37.0, 4e5])
def test_an_axis_holds_all_values_between_round_ticks(size):
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = (size * generator.normal(size=4)).tolist()
        ticks = round_ticks(values, 6)
        step = ticks[1] - ticks[0]
        assert ticks[0] <= min(values) + 1e-9
        assert max(values) - 1e-9 <= ticks[-1]
        assert ticks[0] > min(values) - step
        assert ticks[-1] < max(values) + step
        assert 3 <= len(ticks) <= 8
        assert re.match(r"[0.]*([1-9])", f"{step:.12f}")[1] in "125"


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [float("nan"), 2.0], [float("inf")]])
def test_an_axis_of_no_range_still_has_one(values):
    ticks = round_ticks(values, 6)
    assert len(ticks) >= 2
    assert ticks[0] < ticks[-1]


def chart(name="a", label="<b> & $x_1$"):
    one = Estimate(value=0.3, low=0.2, high=0.5)
    row = IntervalRow(label=label, note="", estimates=[(i, f"fold {i}", one) for i in range(5)])
    return interval_charts(name, [row], "mIoU (%)", "what it is")


def test_a_plot_is_plain_text_in_the_page_s_colours_and_the_same_every_time():
    (svg,) = chart()
    assert svg == chart()[0]
    assert "&lt;b&gt; &amp; $x_1$" in svg, "labels are no markup and no formula"
    assert not re.search(r"#0000\d\d|font-family|url\(|http|clip-path|<style|<metadata", svg)
    assert {f"var(--s{i})" for i in range(5)} <= set(re.findall(r"var\(--\w+\)", svg))
    assert 'role="img" aria-label="what it is"' in svg


def test_ids_of_two_plots_differ_and_every_reference_leads_to_one():
    first, second = (set(re.findall(r' id="([^"]+)"', chart(name)[0])) for name in ("a", "b"))
    assert first
    assert not first & second
    assert set(re.findall(r'href="#([^"]+)"', chart("a")[0])) == first


def test_series_differ_in_shape_and_not_in_colour_alone():
    assert len(set(MARKERS)) == len(set(SERIES)) == 5
    marks = re.findall(r'<defs><path [^>]*\bd="([^"]+)"', chart()[0])
    assert len(set(marks)) >= 5


def test_many_rows_make_several_drawings_over_one_axis():
    one = [(0, "a", Estimate(value=0.5, low=0.2, high=0.6))]
    rows = [IntervalRow(label=str(i), note="", estimates=one) for i in range(30)]
    charts = interval_charts("x", rows, "mIoU", "scores")
    assert len(charts) == 3
    assert "scores (part 2 of 3)" in charts[1]


def test_a_line_breaks_where_a_value_is_missing_and_pale_lines_are_drawn_once():
    curve = Curve(series=1, x=[0, 1, 2, 3, 4], y=[1.0, 2.0, float("nan"), 4.0, 3.0])
    axes = {"x": ([0, 4], 4, "step"), "y": ([0, 4], "loss"), "behind": "all"}
    first, second = panel("p0", "a", [curve], **axes, pale=[curve]), panel("p1", "a", [curve], **axes)
    (line,) = [d for d in re.findall(r' d="([^"]+)"', second) if d.count("L") == 2 and d.count("M") == 2]
    assert line
    assert '<g id="all"><path' in first
    assert '<use href="#all"' in second
    assert "var(--pale)" not in second


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_scores_grow_lighter_and_their_numbers_stay_readable():
    lights = []
    for score in np.linspace(0, 1, 101):
        ground, ink = heat_colour(float(score))
        lights.append(luminance(ground))
        high, low = sorted([luminance(ground), luminance(ink)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"WCAG AA at {score}"
    assert lights == sorted(lights), "also in black and white, more is lighter"
    assert heat_colour(-0.5) == heat_colour(0.0)
    assert heat_colour(1.5) == heat_colour(1.0)
