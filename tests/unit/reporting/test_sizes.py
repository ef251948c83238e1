"""The table by target size: a mean over folds, the number of episodes, and what is missing."""

import pytest

from fewseg.metrics import miou_by_size
from fewseg.reports.frame import fold_tables
from fewseg.reports.size_scores import size_cells


@pytest.fixture
def found(counts_of_fold, result_of):
    rows = []
    for method, better, folds in (("pfenet", 0.0, (0, 1, 2, 3)), ("matcher", -0.1, (0, 1))):
        for fold in folds:
            counts = counts_of_fold(fold, better)
            rows.append((result_of(counts, fold, method=method), counts))
    return rows


def test_a_cell_is_the_mean_over_the_folds_with_the_number_of_episodes(found, frame_of):
    (table,) = fold_tables(frame_of(found))
    cells = size_cells(table)
    headings, rows = list(cells.columns), cells.values.tolist()
    assert headings[:3] == ["pixels of the target", "0-499", "500-999"]
    for row, fold in zip(rows, (0, 1), strict=False):
        assert row[0] == f"matcher mean, fold {fold} (missing folds 2, 3: no mean)"
        ((result, counts),) = [(r, c) for r, c in found if (r.method, r.fold) == ("matcher", fold)]
        bin = miou_by_size(counts, result.classes)[1]
        assert row[2] == f"{100 * bin.miou:.1f} ({bin.episodes})"
    bins = [miou_by_size(c, r.classes)[1] for r, c in found if r.method == "pfenet"]
    mean = 100 * sum(b.miou for b in bins) / 4
    assert rows[2][:1] == ["pfenet mean"]
    assert rows[2][2] == f"{mean:.1f} ({sum(b.episodes for b in bins)})"
    assert rows[2][3:] == ["-"] * 9  # no target of 1000 pixels
