"""Numbers of the tables that were computed before are not computed again."""

import pytest

from fewseg.reports.gains import gains
from fewseg.reports.paper_tables import paper_tables, scores
from fewseg.reports.results_page import read_folder
from fewseg.reports.table import fold_tables


@pytest.fixture
def found(write, tmp_path):
    for fold in range(4):
        write(f"pfenet{fold}", fold)
        if fold != 2:
            write(f"scl{fold}", fold, better=0.05, method="scl-pfenet", recipe="voc5i_mini_scl")
    return read_folder(tmp_path / "results").found


def test_known_gains_are_taken_and_say_the_same(found, monkeypatch):
    (table,) = fold_tables([result for result, _ in found])
    counts = {id(result): counts for result, counts in found}
    known = gains(table, lambda result: counts[id(result)])
    computed = paper_tables(found)
    plain, asked = scores.paired_gain, []

    def paired_gain(a, b, folds, counts_of, score):
        asked.append(score)
        return plain(a, b, folds, counts_of, score)

    monkeypatch.setattr(scores, "paired_gain", paired_gain)
    assert paper_tables(found, gains=known) == computed
    assert "miou" not in asked
    assert "fb_iou" in asked
