"""The tidy frame: a row a result, counts by its key, tables and gains as queries on it."""

import json
import shutil

import pytest

from fewseg.engine.results import counts_path, load_with_counts
from fewseg.reports.frame import fold_tables, load_results, without_conflicts
from result_files import write_sealed


def test_every_result_is_a_row_by_its_path_with_its_counts(folder, write):
    write("deeper/one", 1, shots=5)
    found = load_results(folder)
    assert set(found.frame.index) == {
        p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.json")
    }
    run, counts = load_with_counts(folder / "deeper" / "one.json")
    row = found.frame.loc["deeper/one"]
    assert found.runs["deeper/one"] == run
    assert found.counts["deeper/one"].columns().keys() == counts.columns().keys()
    assert (row.miou, row.fb_iou, row.dice) == (run.miou_mean, run.fb_iou_mean, run.dice_mean)
    assert row.dice_of_miou == pytest.approx(2 * row.miou / (1 + row.miou))
    assert (row.miou_low, row.miou_high) == run.miou_ci95
    assert (row.dataset, row.fold, row.shots, row.folds) == ("voc5i-mini", 1, 5, 4)
    assert (row.paper, row.table, row.row) == ("scl", "1", "PFENet")
    assert (row.published, row.published_dataset) == (61.9, "pascal-5i")


def test_a_result_that_cannot_be_read_is_left_out_with_its_reason_and_other_json_is_passed_over(folder):
    (folder / "notes.json").write_text(json.dumps({"a": 1}))
    counts_path(folder / "pfenet-0.json").unlink()
    (folder / "scl-1.json").write_text("{")
    (folder / "scl-2.json").write_text("[" * 100_000)
    found = load_results(folder)
    assert len(found.left_out) == 3
    assert "scl-2.json is not a whole JSON file (it is nested too deeply)" in found.left_out[2]
    assert "pfenet-0.counts.npz is missing" in found.left_out[0]
    assert "scl-1.json is not a whole JSON file" in found.left_out[1]
    assert not {"pfenet-0", "scl-1", "notes"} & set(found.frame.index)


def test_no_results_are_an_empty_frame_with_all_columns(tmp_path):
    found = load_results(tmp_path)
    assert len(found) == 0
    assert {"method", "fold", "miou", "paper"} <= set(found.frame.columns)
    assert list(found.classes().columns) == ["key", "class_id", "name", "iou", "dice"]
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        load_results(tmp_path / "nowhere")


def test_each_class_has_its_iou_and_dice(folder):
    found = load_results(folder)
    of_one = found.classes().query("key == 'scl-1'").set_index("class_id")
    run = found.runs["scl-1"]
    assert of_one.iou.to_dict() == run.per_class_mean
    assert of_one.dice.to_dict() == run.per_class_dice
    assert of_one.name[3] == "bird"


def test_results_that_are_twice_there_are_named_and_left_out(folder, write):
    write("again", 2, better=0.01, method="panet", recipe="voc5i_mini_panet")
    write("differs", 2, better=0.2, method="scl-pfenet", recipe="voc5i_mini_scl")
    found = load_results(folder)
    kept, problems = without_conflicts(found)
    assert "again.json and late.json: they are equal, again.json is shown" in problems[0]
    assert "differs.json and scl-2.json: left out, keep one of the files" in problems[1]
    assert set(found.frame.index) - set(kept.frame.index) == {"late", "differs", "scl-2"}
    with pytest.raises(ValueError, match="2 results of one row, panet mean 1-shot on voc5i-mini fold 2"):
        fold_tables(found)


@pytest.mark.parametrize("tied", [False, True])
def test_the_rarer_class_split_of_a_fold_is_left_out_and_of_two_as_frequent_both(write, tied):
    """One result says fold 1 and has the class split of fold 0."""
    folder = write("zero", 0).parent
    write("one", 1)
    if not tied:
        write("scl", 1, method="scl-pfenet", recipe="voc5i_mini_scl")
    shutil.copy(counts_path(folder / "zero.json"), counts_path(folder / "split.json"))
    stored = json.loads((folder / "zero.json").read_text())
    write_sealed(folder / "split.json", stored | {"fold": 1, "recipe": "voc5i_mini_pfenet_long"})
    kept, problems = without_conflicts(load_results(folder))
    out = "one.json (classes 3, 4), split.json (classes 1, 2)" if tied else "split.json (classes 1, 2)"
    said = "different class splits of voc5i-mini fold 1 cannot share a table; left out"
    assert problems == [f"{said} {out}"]
    assert set(kept.frame.index) == ({"zero"} if tied else {"zero", "one", "scl"})


def test_a_fold_that_no_paper_has_is_left_out(write):
    folder = write("fifth", 5).parent
    write("zero", 0)
    kept, problems = without_conflicts(load_results(folder))
    assert problems == ["fifth.json is of fold 5, outside 0 .. 3: left out"]
    assert list(kept.frame.index) == ["zero"]
