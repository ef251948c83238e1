import pytest

from fewseg.methods.fusion import FUSIONS
from fewseg.metrics import paired_difference
from fewseg.recipes.registry import variants
from fewseg.reports.frame import (
    FUSION_BASELINE,
    OWN_FUSIONS,
    PAPER_FUSIONS,
    baseline_pairs,
    fold_tables,
    gains,
)
from fewseg.reports.numbers import Estimate, gain_with_interval, mean_of
from fewseg.reports.tables import gain_cells
from result_files import make_counts, make_result


@pytest.fixture
def runs(frame_of):
    """Results and their counts, by (method, fusion)."""

    class Runs:
        def __init__(self):
            self.found = []

        def add(self, method, fusion, better=0.0, folds=(0, 1, 2, 3), shots=5, **changes):
            for fold in folds:
                counts = make_counts(fold, better)
                result = make_result(counts, fold, method=method, fusion=fusion, shots=shots, **changes)
                self.found.append((result, counts))

        def pairs(self):
            (self.table,) = fold_tables(frame_of(self.found))
            return baseline_pairs(self.table)

        def variants(self):
            """(variant, that of its baseline) of each pair."""
            pairs = self.pairs()
            return {(b.first.variant, a.first.variant) for a, b in pairs}

    return Runs()


def pair_names(pairs):
    return [f"{b.name} over {a.name}" for a, b in pairs]


def test_methods_are_measured_with_the_same_fusion_and_cgm_against_average(runs):
    for method in ("matcher", "pfenet", "scl-pfenet"):
        for fusion in ("average", "cross-guided", "mean"):
            runs.add(method, fusion)
    assert pair_names(runs.pairs()) == [
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


def test_a_method_with_a_fusion_of_its_own_alone_is_measured_against_the_plain_ones(runs):
    for method, fusion in (
        ("matcher", "mean"),
        ("matcher", "iterative"),
        ("fitted", "fit"),
        ("hsnet", "vote"),
    ):
        runs.add(method, fusion)
    assert [name for name in pair_names(runs.pairs()) if not name.startswith("matcher")] == [
        "fitted fit over matcher mean",
        "hsnet vote over matcher mean",
    ]


def test_the_fusions_that_are_paired_exist():
    paired = {kind for pair in PAPER_FUSIONS for kind in pair}
    assert {*FUSION_BASELINE, *FUSION_BASELINE.values(), *OWN_FUSIONS, *paired} <= set(FUSIONS)


def test_baselines_and_rows_with_a_part_less_are_variants_of_recipes():
    named = {name for v in variants().values() for name in (*v.baselines, *v.one_part_less)}
    assert named <= set(variants())


def test_with_one_shot_the_fusion_does_not_matter(runs):
    runs.add("pfenet", "mean", shots=1)
    runs.add("scl-pfenet", "cross-guided", shots=1)
    runs.add("scl-pfenet", "average", shots=1)
    assert pair_names(runs.pairs()) == [
        "scl-pfenet average over pfenet mean",
        "scl-pfenet cross-guided over pfenet mean",
    ]


def test_gains_are_paired_by_fold_and_their_mean_is_over_all_folds(runs):
    runs.add("pfenet", "average")
    runs.add("scl-pfenet", "average", better=0.03)
    assert len(runs.pairs()) == 1
    (gain,) = gains(runs.table)
    expected = []
    for fold in range(4):
        classes = [2 * fold + 1, 2 * fold + 2]
        found = paired_difference(make_counts(fold), make_counts(fold, 0.03), classes, over="queries")
        expected.append(Estimate(value=found.difference, low=found.interval.low, high=found.interval.high))
    assert gain.by_fold == dict(enumerate(expected))
    assert gain.mean == mean_of(expected)
    assert all(e.value > 0 for e in expected)
    cells = gain_cells([gain])
    assert list(cells.columns) == ["gain in mIoU points", "fold 0", "fold 1", "fold 2", "fold 3", "mean"]
    assert cells.values.tolist() == [
        [
            "scl-pfenet average over pfenet average",
            *(gain_with_interval(e) for e in expected),
            gain_with_interval(mean_of(expected)),
        ]
    ]


def test_a_mean_gain_over_missing_folds_is_never_printed(runs):
    runs.add("pfenet", "average", folds=(0, 1, 2))
    runs.add("scl-pfenet", "average", folds=(0, 1, 3))
    assert len(runs.pairs()) == 1
    (gain,) = gains(runs.table)
    assert list(gain.by_fold) == [0, 1]
    assert gain.mean is None
    missing = "pfenet average: missing fold 3; scl-pfenet average: missing fold 2"
    assert gain_cells([gain]).iloc[0].tolist()[3:] == ["-", "-", missing]


def test_fusions_are_compared_within_one_trained_model(runs):
    for seed in (0, 1):
        for fusion in ("average", "cross-guided"):
            runs.add("scl-pfenet", fusion, training={"seed": seed})
    assert pair_names(runs.pairs()) == [
        "scl-pfenet (training seed 0) cross-guided over scl-pfenet (training seed 0) average",
        "scl-pfenet (training seed 1) cross-guided over scl-pfenet (training seed 1) average",
    ]


def trained(steps, seed=0):
    return {"seed": seed, "config": {"steps": steps, "batch": 4}}


def test_canet_is_measured_against_the_matcher_and_scl_on_canet_against_canet(runs):
    runs.add("matcher", "average", recipe="voc5i_mini_matcher", training={"seed": 0})
    runs.add("pfenet", "average", recipe="voc5i_mini_pfenet", training=trained(750))
    for fusion in ("average", "cross-guided"):
        runs.add("canet", fusion, recipe="voc5i_mini_canet", training=trained(750))
        runs.add("scl-canet", fusion, recipe="voc5i_mini_scl_canet", training=trained(750))
    assert pair_names(runs.pairs()) == [
        "canet average over matcher average",
        "canet cross-guided over canet average",
        "pfenet average over matcher average",
        "scl-canet average over canet average",
        "scl-canet average over matcher average",
        "scl-canet cross-guided over canet cross-guided",
        "scl-canet cross-guided over scl-canet average",
    ]


def test_scls_cgm_is_set_beside_canets_attention_where_there_are_several_shots(runs):
    def add(shots, attention, ours):
        runs.found.clear()
        runs.add("canet", attention, shots=shots, recipe="pascal_canet_attention_resnet50")
        runs.add("scl-canet", ours, shots=shots, recipe="pascal_scl_canet_resnet50")
        return pair_names(runs.pairs())

    assert add(5, "attention", "cross-guided") == ["scl-canet cross-guided over canet attention"]
    assert add(5, "attention", "average") == []
    assert add(1, "attention", "average") == []


def test_the_parts_of_scl_on_canet_are_measured_one_by_one(runs):
    names = ("", "_initial", "_primary", "_auxiliary", "_all_vectors", "_first_loss", "_second_loss")
    for name in names:
        runs.add("scl-canet", "average", shots=1, recipe=f"pascal_scl_canet{name}_resnet50")
    found = runs.variants()
    less = {("scl_canet", f"scl_canet_{n}") for n in ("primary", "auxiliary", "first_loss", "second_loss")}
    assert found == {*less, ("scl_canet_all_vectors", "scl_canet")}


def test_sd_aanets_rows_are_measured_against_those_with_a_part_less_and_never_against_another_pfenet(runs):
    runs.add("pfenet", "mean", shots=1, recipe="voc5i_mini_pfenet", training=trained(1500))
    runs.add("scl-pfenet", "mean", shots=1, recipe="voc5i_mini_scl", training=trained(1500))
    runs.add("pfenet", "mean", shots=1, recipe="voc5i_mini_sdaanet_baseline", training=trained(750))
    for part in ("", "_saam", "_sdpm"):
        runs.add("sdaanet", "mean", shots=1, recipe=f"voc5i_mini_sdaanet{part}", training=trained(750))
    assert runs.variants() == {
        ("scl_pfenet", "pfenet"),  # and not sdaanet_baseline
        ("sdaanet_saam", "sdaanet_baseline"),
        ("sdaanet_sdpm", "sdaanet_baseline"),
        ("sdaanet", "sdaanet_baseline"),
        ("sdaanet", "sdaanet_saam"),
        ("sdaanet", "sdaanet_sdpm"),
    }


@pytest.mark.parametrize("name", ["steps", "batch"])
def test_rows_of_another_schedule_are_not_paired(runs, name):
    config = {"steps": 750, "batch": 4}
    runs.add("canet", "average", recipe="voc5i_mini_canet", training={"config": config})
    other = {"config": config | {name: 1500}}
    runs.add("scl-canet", "average", recipe="voc5i_mini_scl_canet", training=other)
    assert runs.pairs() == []


def test_a_part_is_measured_within_one_training_seed(runs):
    runs.add("pfenet", "mean", shots=1, recipe="voc5i_mini_sdaanet_baseline", training=trained(750, seed=1))
    runs.add("sdaanet", "mean", shots=1, recipe="voc5i_mini_sdaanet_saam", training=trained(750))
    assert runs.pairs() == []
