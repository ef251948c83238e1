"""What drawn figures contain: data set, legends outside the axes, bars at their values; and their files."""

import csv
import struct
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from fewseg.data.episodes import EpisodeSpec
from fewseg.reports.figures import failures, separation, sizes
from fewseg.reports.figures.base import FigureContext, write_records
from fewseg.reports.figures.drawing import COLOURS, HATCHES, MARKERS, grouped_bars, panels, save
from fewseg.reports.figures.maps import Attention, Similarity
from fewseg.reports.figures.model import TABLE_III, example_episodes
from fewseg.reports.figures.shot_weights import ShotWeightFigure, correlated
from fewseg.reports.figures.support_masks import (
    ALL,
    COVERAGE,
    MOSTLY,
    ON_EDGE,
    SYMBOLS,
    RegionShares,
    SupportMasks,
)
from fewseg.reports.numbers import Estimate
from fewseg.reports.options import FiguresOptions

ONE = Estimate(value=0.5, low=0.4, high=0.7)
ROWS = dict.fromkeys(TABLE_III, ONE)


MODEL = Mock(label="SCL", fold=0, group="SCL\nfold 0", place=0, **{"data.dataset": "voc5i-mini"})


def plotted(kind, value):
    """The plot of all folds."""
    kept, context = [], FigureContext(options=FiguresOptions(), models=[MODEL])
    context.save = lambda figure, *_: kept.append(figure)
    kind(context).draw_all({MODEL: value})
    return kept[0]


def _shares():
    shares = {COVERAGE: dict.fromkeys(("primary", "auxiliary"), ONE)}
    shares |= {quantity: dict.fromkeys(SYMBOLS, ONE) for quantity in ON_EDGE.values()}
    return dict.fromkeys((ALL, MOSTLY), RegionShares(supports=3, empty={}, shares=shares, edge_gain={}))


DRAWN = {
    "silhouettes": lambda: separation.draw_silhouettes(
        {"voc5i-mini: a": {"fold 0": ROWS}, "voc5i-mini: b": {"fold 0": ROWS}}, {v: v for v in TABLE_III}
    ),
    "shares": lambda: plotted(SupportMasks, _shares()),
    "attention": lambda: Attention.draw_order({"fold 0": ROWS}, "voc5i-mini"),
    "similarity": lambda: Similarity.draw_order({"fold 0": ROWS}, "voc5i-mini"),
    "weights": lambda: plotted(ShotWeightFigure, correlated(*2 * (np.random.default_rng(0).random((9, 5)),))),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_names_the_data_set_and_its_legend_hides_nothing(name):
    figure = DRAWN[name]()
    titles = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
    assert any("voc5i-mini" in title for title in titles)
    assert all(axes.get_legend() is None for axes in figure.axes)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("methods", [1, 7])
def test_failures_have_a_panel_a_fold_and_a_group_a_method(methods):
    rates = dict.fromkeys(failures.KINDS, ONE)
    names = [f"method {i}" for i in range(methods)]
    figure = failures.draw({f"fold {f}": dict.fromkeys(names, rates) for f in range(4)}, "title")
    assert [axes.get_title() for axes in figure.axes] == [f"fold {f}" for f in range(4)]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == names
        assert len({bar.get_hatch() for bar in axes.patches}) == len(rates)
    assert max(figure.get_size_inches()) < 13
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def drawn():
    figure, ((axes,),) = panels(3, 2)
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
    path = write_records(tmp_path / "a" / "x.csv", [{"fold": 0, "value": 0.25}, {"fold": 1, "note": "a, b"}])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"fold": "0", "value": "0.25", "note": ""},
            {"fold": "1", "value": "", "note": "a, b"},
        ]
    with pytest.raises(ValueError, match="no row"):
        write_records(tmp_path / "y.csv", [])


def test_examples_are_drawn_by_number_one_class_after_the_other():
    episodes = [
        (seed, EpisodeSpec(index=i, class_id=1 + (i > 7), query=f"q{i}", supports=("s",)))
        for seed in (0, 1)
        for i in range(10)
    ]
    found = example_episodes(episodes, 4, "x", 0)
    assert [spec.class_id for _, spec in found] == [1, 2, 1, 2]
    assert example_episodes(episodes, 4, "x", 0) == found
    assert example_episodes(episodes, 4, "x", 1) != found
    every = example_episodes(episodes, 99, "x", 0)
    assert sorted(every, key=lambda one: (one[0], one[1].index)) == episodes


def test_methods_stand_side_by_side_in_their_bin_of_sizes_at_their_own_score():
    bins = {
        name: pd.DataFrame(
            {"miou": [0.1 * i, 0.5], "low": [0.0, 0.4], "high": [0.2, 0.6], "images": [3, i]}, index=[0, 10]
        )
        for i, name in enumerate(("a", "b", "c"))
    }
    above, below = sizes.draw(bins, "title").axes
    for i, line in enumerate(above.containers):
        x, y = line[0].get_data()
        assert x.tolist() == pytest.approx([0.7 / 3 * (i - 1), 10 + 0.7 / 3 * (i - 1)])
        assert y.tolist() == pytest.approx([10 * i, 50])
        ends = [segment[:, 1].tolist() for segment in line[2][0].get_segments()]
        assert ends == [pytest.approx([0, max(20, 10 * i)]), pytest.approx([40, 60])]
    assert [line.get_label() for line in above.containers] == ["a", "b", "c"]
    assert [bar.get_height() for bar in below.patches] == [3, *[0] * 9, 2]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in below.patches]
    assert centres == pytest.approx(range(11))
    assert [label.get_text() for label in below.get_xticklabels()][:2] == ["0-499", "500-999"]
