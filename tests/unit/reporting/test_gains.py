from typing import get_args

import pytest

from fewseg.fusion import Fusion
from fewseg.methods.registry import METHODS
from fewseg.metrics import paired_difference
from fewseg.reporting.gains import FUSION_BASELINE, METHOD_BASELINES, PAPER_FUSIONS, gain_cells, gains
from fewseg.reporting.numbers import Estimate, gain_with_interval, mean_of
from fewseg.reporting.table import fold_tables


@pytest.fixture
def runs(counts_of_fold, result_of):
    """Results and their counts, by (method, fusion)."""

    class Runs:
        def __init__(self):
            self.found = []

        def add(self, method, fusion, better=0.0, folds=(0, 1, 2, 3), shots=5, **changes):
            for fold in folds:
                counts = counts_of_fold(fold, better)
                result = result_of(counts, fold, method=method, fusion=fusion, shots=shots, **changes)
                self.found.append((result, counts))

        def gains(self):
            (self.table,) = fold_tables([r for r, _ in self.found])
            return gains(self.table, lambda r: next(c for o, c in self.found if o is r))

    return Runs()


def pair_names(found):
    return [gain.text for gain in found]


def test_methods_are_measured_with_the_same_fusion_and_cgm_against_average(runs):
    for method in ("matcher", "pfenet", "scl-pfenet"):
        for fusion in ("average", "cross-guided", "mean"):
            runs.add(method, fusion)
    assert pair_names(runs.gains()) == [
        "matcher cross-guided over matcher average",
        "pfenet average over matcher average",
        "pfenet cross-guided over matcher cross-guided",
        "pfenet cross-guided over matcher mean",
        "pfenet cross-guided over pfenet average",
        "pfenet mean over matcher mean",
        "scl-pfenet average over matcher average",
        "scl-pfenet average over pfenet average",
        "scl-pfenet cross-guided over matcher cross-guided",
        "scl-pfenet cross-guided over matcher mean",
        "scl-pfenet cross-guided over pfenet cross-guided",
        "scl-pfenet cross-guided over pfenet mean",
        "scl-pfenet cross-guided over scl-pfenet average",
        "scl-pfenet mean over matcher mean",
        "scl-pfenet mean over pfenet mean",
    ]


def test_the_baselines_are_of_methods_and_fusions_that_results_can_have():
    assert set(METHOD_BASELINES) | {m for some in METHOD_BASELINES.values() for m in some} <= set(METHODS)
    kinds = {kind().kind for kind in get_args(Fusion)}
    assert {*FUSION_BASELINE, *FUSION_BASELINE.values(), *PAPER_FUSIONS} <= kinds


def test_with_one_shot_the_fusion_does_not_matter(runs):
    runs.add("pfenet", "mean", shots=1)
    runs.add("scl-pfenet", "cross-guided", shots=1)
    runs.add("scl-pfenet", "average", shots=1)
    assert pair_names(runs.gains()) == [
        "scl-pfenet average over pfenet mean",
        "scl-pfenet cross-guided over pfenet mean",
    ]


def test_gains_are_paired_by_fold_and_their_mean_is_over_all_folds(runs, counts_of_fold):
    runs.add("pfenet", "average")
    runs.add("scl-pfenet", "average", better=0.03)
    (gain,) = runs.gains()
    expected = []
    for fold in range(4):
        classes = [2 * fold + 1, 2 * fold + 2]
        found = paired_difference(counts_of_fold(fold), counts_of_fold(fold, 0.03), classes)
        expected.append(Estimate(value=found.difference, low=found.interval.low, high=found.interval.high))
    assert list(gain.by_fold.values()) == expected
    assert all(e.value > 0 for e in expected)
    headings, rows = gain_cells(runs.table, [gain])
    assert headings == ["gain in mIoU points", "fold 0", "fold 1", "fold 2", "fold 3", "mean"]
    assert rows == [
        [
            "scl-pfenet average over pfenet average",
            *(gain_with_interval(e) for e in expected),
            gain_with_interval(mean_of(expected)),
        ]
    ]


def test_a_mean_gain_over_missing_folds_is_never_printed(runs):
    runs.add("pfenet", "average", folds=(0, 1, 2))
    runs.add("scl-pfenet", "average", folds=(0, 1, 3))
    (gain,) = runs.gains()
    assert list(gain.by_fold) == [0, 1]
    assert gain.mean == "pfenet average: missing fold 3; scl-pfenet average: missing fold 2"
    assert gain_cells(runs.table, [gain])[1][0][3:] == ["-", "-", gain.mean]


def test_fusions_are_compared_within_one_trained_model(runs):
    for seed in (0, 1):
        for fusion in ("average", "cross-guided"):
            runs.add("scl-pfenet", fusion, training={"seed": seed})
    assert pair_names(runs.gains()) == [
        "scl-pfenet (training seed 0) cross-guided over scl-pfenet (training seed 0) average",
        "scl-pfenet (training seed 1) cross-guided over scl-pfenet (training seed 1) average",
    ]
