"""The table by target size: a mean over folds, the number of episodes, and what is missing."""

import pytest
from rich.console import Console

from fewseg.metrics import miou_by_size
from fewseg.reports.sizes import rich_sizes, size_cells
from fewseg.reports.table import fold_tables


@pytest.fixture
def found(counts_of_fold, result_of):
    rows = []
    for method, better, folds in (("pfenet", 0.0, (0, 1, 2, 3)), ("matcher", -0.1, (0, 1))):
        for fold in folds:
            counts = counts_of_fold(fold, better)
            rows.append((result_of(counts, fold, method=method), counts))
    return rows


def test_a_cell_is_the_mean_over_the_folds_with_the_number_of_episodes(found):
    (table,) = fold_tables([result for result, _ in found])
    headings, rows = size_cells(table, lambda result: next(c for r, c in found if r is result))
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
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich_sizes(table, lambda result: next(c for r, c in found if r is result)))
    assert "by the size of the target" in console.export_text()
