"""Integers are summed before the ratio: scores of tables, and scores by the size of the target."""

import numpy as np
import pytest

from fewseg.metrics import dice, dice_of_miou, fb_iou, miou, miou_by_size, per_class
from result_files import episode_table

# class, TP, FP, FN, TN
BY_HAND = [(6, 10, 0, 10, 80), (6, 0, 30, 0, 70), (7, 40, 10, 0, 50)]
# Two episodes of classes 6 and 7: each way against everything else, then any way; 100 pixels each.
TWO_WAYS = [(6, 10, 5, 10, 75), (7, 0, 30, 0, 70), (0, 20, 25, 0, 55)]
TWO_WAYS += [(7, 40, 10, 0, 50), (6, 5, 5, 15, 75), (0, 50, 5, 10, 35)]


def table_of(rows, ways=1):
    class_id, tp, fp, fn, tn = np.array(rows, np.int64).T
    return episode_table(class_id, tp, tp + fp, tp + fn, pixels=tp + fp + fn + tn, ways=ways)


def test_sums_over_the_episodes_of_a_class_come_before_the_ratio_and_classes_keep_their_order():
    table = table_of(BY_HAND)
    # class 6: (10 + 0) / (20 + 30); the mean of the two episodes' own IoU would be 0.25
    assert list(per_class(table, [7, 6]).items()) == [(7, pytest.approx(0.8)), (6, pytest.approx(0.2))]
    assert miou(table, [6, 7]) == pytest.approx(0.5)
    assert dice(table, [6, 7]) == pytest.approx((20 / 60 + 80 / 90) / 2)
    # whatever their class: foreground 50 / 100, background 200 / 250
    assert fb_iou(table) == pytest.approx((50 / 100 + 200 / 250) / 2)


@pytest.mark.parametrize("score", [per_class, miou, dice])
@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        (BY_HAND, [6, 7, 8], r"class \[8\] was never drawn in 3 episodes.*evaluate more episodes"),
        (BY_HAND, [6], r"class \[7\].*whose classes are \[6\]"),
        ([*BY_HAND, (8, 0, 0, 0, 100)], [6, 7, 8], r"class \[8\] was drawn, but no pixel"),
        (BY_HAND, [], "one or more different ids"),
        (BY_HAND, [6, 6, 7], "one or more different ids"),
        (BY_HAND, [0, 6, 7], r"different ids other than 0, got \[0, 6, 7\]"),
        (TWO_WAYS, [6, 7, 8], r"class \[8\] was never drawn in 2 episodes"),
        (TWO_WAYS, [6], r"class \[7\].*whose classes are \[6\]"),
    ],
)
def test_classes_that_are_not_those_of_the_episodes_are_an_error_and_not_a_zero(
    score, rows, classes, message
):
    with pytest.raises(ValueError, match=message):
        score(table_of(rows, ways=3 if rows is TWO_WAYS else 1), classes)


@pytest.mark.parametrize(
    ("episode", "word"), [((6, 0, 0, 0, 9), "foreground"), ((6, 9, 0, 0, 0), "background")]
)
def test_fb_iou_of_masks_without_one_of_the_grounds_is_an_error(episode, word):
    with pytest.raises(ValueError, match=f"needs {word} pixels"):
        fb_iou(table_of([episode]))


def test_a_class_is_scored_where_it_is_a_way_and_fb_iou_is_that_of_any_way():
    table = table_of(TWO_WAYS, ways=3)
    # class 7 is not in the first query: its 30 false positives count
    assert per_class(table, [6, 7]) == {6: pytest.approx(15 / 50), 7: pytest.approx(40 / 80)}
    assert miou(table, [6, 7]) == pytest.approx((15 / 50 + 40 / 80) / 2)
    assert dice(table, [6, 7]) == pytest.approx((30 / (30 + 35) + 80 / (80 + 40)) / 2)
    assert fb_iou(table) == pytest.approx((70 / 110 + 90 / 130) / 2)


SIZED = [  # class, true, predicted, both
    (1, 400, 500, 300),  # union 600
    (1, 499, 100, 100),  # union 499
    (2, 1, 3, 1),  # union 3
    (1, 500, 500, 500),
    (2, 4999, 0, 0),
    (2, 5000, 5000, 2500),  # union 7500
    (1, 9000, 9000, 9000),
]


def sized(rows=SIZED):
    class_id, true, predicted, both = zip(*rows, strict=True)
    return episode_table(class_id, both, predicted, true, pixels=10_000)


def test_a_bin_has_sums_before_the_ratio_and_the_mean_over_its_classes():
    bins = miou_by_size(sized(), [1, 2])
    assert [b.label for b in bins[:2]] == ["0-499", "500-999"]
    assert (len(bins), bins[-1].label) == (11, "from 5000")
    assert bins[0].miou == pytest.approx((400 / 1099 + 1 / 3) / 2)
    assert [(b.episodes, b.classes) for b in bins] == [(3, 2), (1, 1), *[(0, 0)] * 7, (1, 1), (2, 2)]
    assert (bins[1].miou, bins[2].miou, bins[9].miou) == (1.0, None, 0.0)
    assert bins[10].miou == pytest.approx((2500 / 7500 + 1) / 2)
    below, above = miou_by_size(sized(), [1, 2], (0, 10_000))
    assert (below.miou, above.episodes) == (pytest.approx(miou(sized(), [1, 2])), 0)


def test_a_query_without_its_class_and_the_rows_of_any_way_are_in_no_bin():
    bins = miou_by_size(sized([*SIZED, (2, 0, 50, 0), (0, 450, 450, 450)]), [1, 2])
    assert bins[0] == miou_by_size(sized(), [1, 2])[0]
    assert sum(b.episodes for b in bins) == 7


@pytest.mark.parametrize("edges", [(0,), (500, 0), (0, 0, 5), (-1, 5)])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(ValueError, match=r"size edges .*: give two or more, ascending"):
        miou_by_size(sized(), [1, 2], edges)


def test_a_class_of_another_fold_is_refused():
    with pytest.raises(ValueError, match=r"episodes of class \[2\]"):
        miou_by_size(sized(), [1])


def test_srpnets_dice_is_that_of_its_mean_iou():
    printed = {0.615: 0.762, 0.626: 0.770}  # its Tables 2 and 3
    assert [round(dice_of_miou(m), 3) for m in (0.615, 0.626)] == [printed[0.615], printed[0.626]]
    assert (dice_of_miou(0.0), dice_of_miou(1.0)) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\], got 61\.5"):
        dice_of_miou(61.5)
