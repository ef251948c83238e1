"""Methods that were trained several times, in the tables of a folder."""

import pytest

from fewseg.metrics import mean_score, trainings_difference, trainings_interval
from fewseg.reports.frame import fold_tables, load_results
from fewseg.reports.numbers import Estimate, gain_with_interval, mean_of, with_interval
from fewseg.reports.tables import results_block
from fewseg.reports.trainings import several_trainings, training_cells, training_gain_cells
from result_files import make_counts

LIFTS = {("pfenet", 0): 0.0, ("pfenet", 1): 0.03, ("scl", 0): 0.06, ("scl", 1): 0.02, ("scl", 2): 0.08}
CHANGES = {
    "pfenet": {"method": "pfenet", "recipe": "voc5i_mini_pfenet"},
    "scl": {"method": "scl-pfenet", "recipe": "voc5i_mini_scl", "fusion": "average"},
}
NAMES = {
    "pfenet": "pfenet (voc5i_mini_pfenet) mean",
    "scl": "scl-pfenet (voc5i_mini_scl) average",
}


@pytest.fixture
def table_of(write, tmp_path):
    """(what is left out) -> the table of five trainings on four folds."""

    def made(left_out=()):
        for (name, seed), lift in LIFTS.items():
            for fold in range(4):
                if (name, seed, fold) not in left_out:
                    own = CHANGES[name] | {"training": {"seed": seed, "checkpoint": f"{name}{seed}{fold}"}}
                    write(f"{name}-{seed}-{fold}", fold, better=lift, **own)
        (table,) = fold_tables(load_results(tmp_path / "results"))
        return table

    return made


def counts(name, fold):
    return [make_counts(fold, lift) for (own, _), lift in LIFTS.items() if own == name]


def classes_of(fold):
    return [2 * fold + 1, 2 * fold + 2]


def test_scores_are_means_over_trainings_with_the_noise_of_training_in_the_interval(table_of):
    cells = training_cells(table_of()).set_index("method")
    assert sorted(cells.index) == sorted(NAMES.values())
    for name, shown in NAMES.items():
        for fold in range(4):
            of_fold = counts(name, fold)
            ends = trainings_interval(of_fold, classes_of(fold))
            value = sum(mean_score(each, classes_of(fold)) for each in of_fold) / len(of_fold)
            expected = f"{100 * value:.1f} [{100 * ends.low:.1f}, {100 * ends.high:.1f}] ({len(of_fold)})"
            assert cells.loc[shown, f"fold {fold}"] == expected
    (found,) = (each for each in several_trainings(table_of()) if each.name == NAMES["scl"])
    assert cells.loc[NAMES["scl"], "mean"] == with_interval(mean_of(list(found.estimates.values())))


def test_gains_are_between_all_trainings_and_state_how_many_would_show_them(table_of):
    (row,) = training_gain_cells(table_of()).to_dict("records")
    assert row["gain in mIoU points"] == f"{NAMES['scl']} over {NAMES['pfenet']}"
    found = {f: trainings_difference(counts("pfenet", f), counts("scl", f), classes_of(f)) for f in range(4)}
    for fold, each in found.items():
        ends = each.interval
        expected = f"{100 * each.difference:+.1f} [{100 * ends.low:+.1f}, {100 * ends.high:+.1f}]"
        assert row[f"fold {fold}"] == expected
    error = (sum(each.training_error**2 for each in found.values()) / 4) ** 0.5
    assert row["two trainings differ by (sd)"] == f"{100 * error:.1f}"
    assert int(row["trainings needed"]) >= 2
    assert row["trainings of each"] == "3 and 2"


def test_a_training_that_lacks_folds_is_named_and_gives_no_mean(table_of):
    table = table_of(left_out={("scl", 1, 2), ("scl", 1, 3)})
    cells = training_cells(table).set_index("method")
    assert cells.loc[NAMES["scl"], "mean"] == "training seed 1: missing folds 2, 3"
    assert [text[-3:] for text in cells.loc[NAMES["scl"], ["fold 1", "fold 2"]]] == ["(3)", "(2)"]
    (row,) = training_gain_cells(table).to_dict("records")
    assert (row["mean"], row["trainings needed"]) == ("training seed 1: missing folds 2, 3", "-")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"training": {"seed": 1, "config": {"steps": 50}}}, r"its train.steps: 100 and 50"),
        (
            {
                "training": {"seed": 1, "config": {"steps": 100}},
                "config": {"method": {"type": "PFENet", "channels": 8}},
            },
            "its method.channels: 64 and 8",
        ),
    ],
)
def test_results_made_differently_under_one_name_are_refused(write, tmp_path, change, says):
    for fold in range(4):
        write(f"a-{fold}", fold, training={"seed": 0, "config": {"steps": 100}})
    write("b-2", 2, **change)
    with pytest.raises(
        ValueError, match=rf"that were made differently cannot share a row .*{says}.*b-2\.json$"
    ):
        fold_tables(load_results(tmp_path / "results"))


def test_of_two_ways_that_are_equally_frequent_neither_is_shown(write, tmp_path):
    for seed, steps in enumerate((50, 100)):
        write(f"a-{seed}", 0, training={"seed": seed, "config": {"steps": steps, "save_every": seed}})
    with pytest.raises(ValueError, match=r"left out a-0\.json, a-1\.json$"):
        fold_tables(load_results(tmp_path / "results"))
    write("a-1", 0, training={"seed": 1, "config": {"steps": 50, "save_every": 1}})
    (table,) = fold_tables(load_results(tmp_path / "results"))
    assert len(table.rows) == 2


def test_trainings_that_were_tested_on_other_images_give_no_mean(write, tmp_path):
    for seed in (0, 1):
        write(f"a-{seed}", 0, drawn_from=seed, training={"seed": seed, "checkpoint": f"{seed}"})
    (table,) = fold_tables(load_results(tmp_path / "results"))
    with pytest.raises(ValueError, match="drew other images"):
        training_cells(table)


def test_one_training_in_a_fold_is_named_in_its_gain(table_of):
    (row,) = training_gain_cells(table_of(left_out={("pfenet", 1, 0)})).to_dict("records")
    assert row["fold 0"].endswith("] (one training)")
    assert row["fold 1"].endswith("]")


def test_the_same_weights_fused_in_two_ways_are_drawn_together(write, tmp_path):
    lifts = (0.0, 0.2, -0.1)
    for fold in range(4):
        for seed, lift in enumerate(lifts):
            own = CHANGES["scl"] | {"shots": 5, "training": {"seed": seed, "checkpoint": f"{seed}{fold}"}}
            write(f"a-{seed}-{fold}", fold, better=lift, **own)
            write(f"c-{seed}-{fold}", fold, better=lift + 0.01, **own | {"fusion": "cross-guided"})
    (table,) = fold_tables(load_results(tmp_path / "results"))
    (row,) = training_gain_cells(table).to_dict("records")
    assert row["gain in mIoU points"].endswith("cross-guided over scl-pfenet (voc5i_mini_scl) average")
    pair = [[make_counts(0, lift + more) for lift in lifts] for more in (0.0, 0.01)]
    found = trainings_difference(*pair, classes_of(0), same=True)
    ends = Estimate(value=found.difference, low=found.interval.low, high=found.interval.high)
    assert row["fold 0"] == gain_with_interval(ends)


def test_methods_trained_once_have_no_such_table(folder):
    for table in fold_tables(load_results(folder)):
        assert not len(training_cells(table))
        assert not len(training_gain_cells(table))
    assert "several trainings" not in results_block(load_results(folder))


def test_the_results_page_has_both_tables(table_of):
    text = results_block(table_of().results)
    (gain,) = training_gain_cells(table_of()).to_dict("records")
    assert "Mean mIoU of several trainings" in text
    assert f"| {gain['gain in mIoU points']} |" in text


def test_the_site_has_both_tables(table_of, tmp_path, make):
    table = table_of()
    _, text, _ = make(tmp_path / "results")
    (gain,) = training_gain_cells(table).to_dict("records")
    assert "<h3>Several trainings</h3>" in text
    assert gain["two trainings differ by (sd)"] in text
    assert NAMES["scl"] in text
