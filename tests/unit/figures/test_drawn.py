"""What stands in drawn figures: the data set, legends outside the axes, panels that say what they show."""

from types import SimpleNamespace

import numpy as np
import pytest

from fewseg.reports.figures import (
    failures_figure,
    maps_figure,
    metric_figure,
    prototypes_figure,
    shot_weights_figure,
    support_masks_figure,
)
from fewseg.reports.figures.shot_weights import correlated
from fewseg.reports.figures.support_masks import REACHES, REGIONS
from fewseg.reports.numbers import Estimate

ONE = Estimate(value=0.5, low=0.4, high=0.7)
STEMS = dict.fromkeys(prototypes_figure.STEMS, ONE)


def _embeddings():
    one = SimpleNamespace(silhouette=ONE)
    return {0: dict.fromkeys(prototypes_figure.STEMS, SimpleNamespace(space=one, plane=one))}


def _shares():
    shares = SimpleNamespace(
        coverage=dict.fromkeys(REGIONS[1:], ONE), on_edge={r: dict.fromkeys(REGIONS, ONE) for r in REACHES}
    )
    names = (support_masks_figure.ALL, support_masks_figure.MOSTLY)
    return {name: {"SCL\nfold 0": shares} for name in names}


def _weights():
    values = np.random.default_rng(0).random((9, 5))
    return {"SCL, fold 0": correlated(values, values)}


DRAWN = {
    "prototypes": lambda: prototypes_figure.draw_silhouettes(_embeddings(), "voc5i-mini"),
    "metric": lambda: metric_figure.draw_silhouettes({"a": {"cosine": ONE, "fidelity": ONE}}, "voc5i-mini"),
    "shares": lambda: support_masks_figure.draw_shares(_shares(), "voc5i-mini"),
    "attention": lambda: maps_figure.draw_order({"fold 0": STEMS}, "attention", "voc5i-mini"),
    "similarity": lambda: maps_figure.draw_order({"fold 0": STEMS}, "similarity", "voc5i-mini"),
    "weights": lambda: shot_weights_figure.draw(_weights(), "voc5i-mini"),
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


def test_every_panel_of_the_shares_says_of_which_supports_it_is():
    panels = DRAWN["shares"]().axes
    rows = (support_masks_figure.ALL, support_masks_figure.MOSTLY)
    assert [axes.get_title().split(":")[0] for axes in panels] == [name for name in rows for _ in range(3)]


@pytest.mark.parametrize("methods", [1, 7])
def test_failures_have_a_panel_a_fold_and_a_group_a_method(methods):
    rates = dict.fromkeys(failures_figure._KINDS, ONE)
    names = [f"method {i}" for i in range(methods)]
    figure = failures_figure.draw({f"{n}\nfold {f}": rates for n in names for f in range(4)}, "title")
    assert [axes.get_title() for axes in figure.axes] == [f"fold {f}" for f in range(4)]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == names
        assert len({bar.get_hatch() for bar in axes.patches}) == len(rates)
    assert max(figure.get_size_inches()) < 13
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1
