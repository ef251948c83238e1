"""Bins of target sizes: every episode with a target in one, integer sums before the ratio."""

import numpy as np
import pytest

from fewseg.metrics import EpisodeCounts, miou, miou_by_size


def table(rows):
    """Rows of (class, true, predicted, both) on 10 000 pixels."""
    class_id, true, predicted, both = (np.array(column) for column in zip(*rows, strict=True))
    union = true + predicted - both
    return EpisodeCounts(
        seed=np.arange(len(rows)) % 2,
        episode=np.arange(len(rows)),
        class_id=class_id,
        fg_inter=both,
        fg_union=union,
        bg_inter=10_000 - union,
        bg_union=10_000 - both,
        fg_pred=predicted,
        fg_true=true,
        query=np.full(len(rows), ""),
        supports=np.empty((len(rows), 0), np.str_),
    )


ROWS = [
    (1, 400, 500, 300),  # union 600
    (1, 499, 100, 100),  # union 499
    (2, 1, 3, 1),  # union 3
    (1, 500, 500, 500),
    (2, 4999, 0, 0),
    (2, 5000, 5000, 2500),  # union 7500
    (1, 9000, 9000, 9000),
]


def test_sums_come_before_the_ratio_and_the_mean_is_over_the_classes_of_the_bin():
    bins = miou_by_size(table(ROWS), [1, 2])
    assert [b.label for b in bins[:2]] == ["0-499", "500-999"]
    assert (len(bins), bins[-1].label) == (11, "from 5000")
    assert bins[0].miou == pytest.approx((400 / 1099 + 1 / 3) / 2)
    assert [(b.episodes, b.classes) for b in bins] == [(3, 2), (1, 1), *[(0, 0)] * 7, (1, 1), (2, 2)]
    assert (bins[1].miou, bins[2].miou, bins[9].miou) == (1.0, None, 0.0)
    assert bins[10].miou == pytest.approx((2500 / 7500 + 1) / 2)


def test_one_bin_for_all_is_the_miou_of_one_seed():
    rows = table(ROWS).select(np.arange(7) % 2 == 0)
    (below, above) = miou_by_size(rows, [1, 2], (0, 10_000))
    assert below.miou == pytest.approx(miou(rows, [1, 2]))
    assert above.episodes == 0


def test_a_query_without_its_class_and_the_rows_of_any_way_are_in_no_bin():
    bins = miou_by_size(table([*ROWS, (2, 0, 50, 0), (0, 450, 450, 450)]), [1, 2])
    assert bins[0] == miou_by_size(table(ROWS), [1, 2])[0]
    assert sum(b.episodes for b in bins) == 7


@pytest.mark.parametrize("edges", [(0,), (500, 0), (0, 0, 5), (-1, 5)])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(ValueError, match=r"size edges .*: give two or more, ascending"):
        miou_by_size(table(ROWS), [1, 2], edges)


def test_a_class_of_another_fold_is_refused():
    with pytest.raises(ValueError, match=r"episodes of class \[2\]"):
        miou_by_size(table(ROWS), [1])
