"""What lies beside a picture, and what a figure looks like on the disk."""

import csv
import struct
import sys

import pytest
from matplotlib.colors import to_rgb

from fewseg.data.episodes import EpisodeSpec
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import write_rows
from fewseg.reports.figures.qualitative_figure import drawn_episodes
from fewseg.reports.figures.style import COLOURS, HATCHES, MARKERS, new_figure, save
from fewseg.reports.numbers import Estimate


def drawn():
    figure = new_figure(3, 2)
    axes = figure.subplots()
    groups = {
        "fold 0": {"a": Estimate(value=0.5, low=0.4, high=0.7), "b": Estimate(value=0.2, low=0.1, high=0.3)},
        "fold 1": {"b": Estimate(value=0.3, low=0.2, high=0.4)},
    }
    grouped_bars(axes, groups, {"a": "A", "b": "B", "c": "never there"})
    return figure, axes


def test_a_figure_is_three_files_that_are_the_same_every_time(tmp_path):
    first = save(drawn()[0], tmp_path / "one.of.two")
    second = save(drawn()[0], tmp_path / "again")
    assert [p.name for p in first] == ["one.of.two.pdf", "one.of.two.png", "one.of.two.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    width, height = struct.unpack(">II", first[1].read_bytes()[16:24])
    assert (width, height) == (450, 300)
    assert [p.suffix for p in save(drawn()[0], tmp_path / "p", svg=False)] == [".pdf", ".png"]


def test_no_window_is_opened_and_no_global_figure_made(tmp_path):
    save(drawn()[0], tmp_path / "x")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_bars_stand_at_their_value_in_percent_with_their_interval():
    _, axes = drawn()
    bars = [(round(bar.get_x() + bar.get_width() / 2, 2), bar.get_height()) for bar in axes.patches]
    assert bars == [(-0.2, 50.0), (0.2, 20.0), (1.2, 30.0)]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert axes.get_ylabel() == "%"


def test_items_differ_without_colour():
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(set(HATCHES)) == 8
    lightness = sorted(sum(to_rgb(c)) for c in COLOURS)
    assert lightness[0] == 0
    assert lightness[-1] > 2


def test_rows_with_different_columns_share_a_table(tmp_path):
    path = write_rows(tmp_path / "a" / "x.csv", [{"fold": 0, "value": 0.25}, {"fold": 1, "note": "a, b"}])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"fold": "0", "value": "0.25", "note": ""},
            {"fold": "1", "value": "", "note": "a, b"},
        ]
    with pytest.raises(ValueError, match="no row"):
        write_rows(tmp_path / "y.csv", [])


def test_examples_are_drawn_by_number_one_class_after_the_other():
    episodes = [
        (seed, EpisodeSpec(index=i, class_id=1 + (i > 7), query=f"q{i}", supports=("s",)))
        for seed in (0, 1)
        for i in range(10)
    ]
    found = drawn_episodes(episodes, 4, "x", 0)
    assert [spec.class_id for _, spec in found] == [1, 2, 1, 2]
    assert drawn_episodes(episodes, 4, "x", 0) == found
    assert drawn_episodes(episodes, 4, "x", 1) != found
    every = drawn_episodes(episodes, 99, "x", 0)
    assert sorted(every, key=lambda one: (one[0], one[1].index)) == episodes
