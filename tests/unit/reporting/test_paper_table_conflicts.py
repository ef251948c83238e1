import json
import shutil

import pytest

from fewseg.engine.results import counts_path
from fewseg.reports.frame import load_results
from fewseg.reports.papers import paper_tables
from result_files import write_sealed


@pytest.fixture
def made(tmp_path):
    """What was left out, and the cells of PFENet's row of SCL's Table 1 on the small set."""

    def make():
        results = load_results(tmp_path / "results")
        table = paper_tables(results)[0]
        row = next(row for row in table.rows if row.layout.name == "PFENet")
        _, cells = row.lines["voc5i-mini"][0]
        return [*results.left_out, *table.problems], [cell.status or "number" for cell in cells]

    return make


@pytest.fixture
def four(write):
    return [write(f"fold{fold}", fold) for fold in range(4)]


@pytest.fixture
def other_split(four):
    """A result that says fold 1 and has the class split of fold 0."""
    path = four[0].parent / "split.json"
    shutil.copy(counts_path(four[0]), counts_path(path))
    stored = json.loads(four[0].read_text())
    write_sealed(path, stored | {"fold": 1, "recipe": "voc5i_mini_pfenet_long"})


def test_two_different_results_of_one_row_are_both_left_out_and_named(four, write, made):
    write("again", 2, better=0.1)
    reported, cells = made()
    assert reported == [
        "2 results of one row, pfenet mean 1-shot on voc5i-mini fold 2: again.json and fold2.json: left out, "
        "keep one of the files"
    ]
    assert cells == ["number", "number", "not run", "number", "missing fold 2"]


@pytest.mark.usefixtures("other_split")
def test_the_rarer_class_split_of_a_fold_is_left_out(write, made):
    write("scl1", 1, method="scl-pfenet", recipe="voc5i_mini_scl")
    reported, cells = made()
    assert reported == [
        "different class splits of voc5i-mini fold 1 cannot share a table; left out split.json (classes 1, 2)"
    ]
    assert cells == ["number"] * 5


@pytest.mark.usefixtures("other_split")
def test_two_class_splits_as_frequent_are_both_left_out(made):
    reported, cells = made()
    assert len(reported) == 1
    assert "fold1.json (classes 3, 4)" in reported[0]
    assert "split.json (classes 1, 2)" in reported[0]
    assert cells[1] == "not run"


def test_a_fold_that_no_paper_has_is_left_out(four, write, made):
    write("fifth", 5)
    reported, cells = made()
    assert reported == ["fifth.json is of fold 5, outside 0 .. 3: left out"]
    assert cells == ["number"] * 5
