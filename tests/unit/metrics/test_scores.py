import numpy as np
import pytest

from fewseg.metrics import EpisodeCounts, dice, dice_of_miou, fb_iou, miou, per_class

# class, TP, FP, FN, TN
BY_HAND = [(6, 10, 0, 10, 80), (6, 0, 30, 0, 70), (7, 40, 10, 0, 50)]


def table_of(episodes):
    episodes = np.array(episodes, np.int64)
    class_id, tp, fp, fn, tn = episodes.T
    return EpisodeCounts(
        seed=np.zeros(len(episodes), np.int64),
        episode=np.arange(len(episodes)),
        class_id=class_id,
        fg_inter=tp,
        fg_union=tp + fp + fn,
        bg_inter=tn,
        bg_union=tn + fp + fn,
        fg_pred=tp + fp,
        fg_true=tp + fn,
        query=np.array([""] * len(episodes)),
        supports=np.empty((len(episodes), 0), np.str_),
    )


def test_iou_of_a_class_is_summed_before_it_is_divided():
    # class 6: (10 + 0) / (20 + 30); the mean of the two episodes' own IoU would be 0.25
    assert per_class(table_of(BY_HAND), [6, 7]) == {6: pytest.approx(0.2), 7: pytest.approx(0.8)}


def test_miou_is_the_mean_over_classes_whatever_their_numbers_of_episodes():
    assert miou(table_of(BY_HAND), [6, 7]) == pytest.approx(0.5)


def test_classes_keep_the_order_asked_for():
    assert list(per_class(table_of(BY_HAND), [7, 6])) == [7, 6]


def test_dice_is_summed_by_class_too():
    # 6: 20 / (20 + 30 + 10); 7: 80 / (80 + 10)
    assert dice(table_of(BY_HAND), [6, 7]) == pytest.approx((20 / 60 + 80 / 90) / 2)


def test_fb_iou_sums_over_all_episodes_whatever_their_class():
    # foreground 50 / 100, background 200 / 250
    assert fb_iou(table_of(BY_HAND)) == pytest.approx((50 / 100 + 200 / 250) / 2)


def test_scores_agree_with_a_plain_loop():
    generator = np.random.default_rng(3)
    episodes = [(c, *generator.integers(1, 90, 4)) for c in generator.integers(1, 6, 200)]
    table = table_of(episodes)
    ious, dices = [], []
    for c in range(1, 6):
        tp = sum(int(e[1]) for e in episodes if e[0] == c)
        wrong = sum(int(e[2]) + int(e[3]) for e in episodes if e[0] == c)
        ious.append(tp / (tp + wrong))
        dices.append(2 * tp / (2 * tp + wrong))
    assert miou(table, [1, 2, 3, 4, 5]) == pytest.approx(sum(ious) / 5, abs=1e-12)
    assert dice(table, [1, 2, 3, 4, 5]) == pytest.approx(sum(dices) / 5, abs=1e-12)


@pytest.mark.parametrize("score", [per_class, miou, dice])
def test_a_class_never_drawn_is_an_error_and_not_a_zero(score):
    with pytest.raises(
        ValueError, match=r"class \[8\] was never drawn in 3 episodes.*evaluate more episodes"
    ):
        score(table_of(BY_HAND), [6, 7, 8])


@pytest.mark.parametrize("score", [per_class, miou, dice])
def test_an_episode_of_another_fold_is_an_error(score):
    with pytest.raises(ValueError, match=r"class \[7\].*whose classes are \[6\]"):
        score(table_of(BY_HAND), [6])


def test_a_class_without_a_foreground_pixel_has_no_iou():
    with pytest.raises(ValueError, match=r"class \[8\] was drawn, but no pixel"):
        miou(table_of([*BY_HAND, (8, 0, 0, 0, 100)]), [6, 7, 8])


@pytest.mark.parametrize("classes", [[], [6, 6, 7]])
def test_the_classes_must_be_different_and_at_least_one(classes):
    with pytest.raises(ValueError, match="one or more different ids"):
        miou(table_of(BY_HAND), classes)


@pytest.mark.parametrize(
    ("episode", "word"), [((6, 0, 0, 0, 9), "foreground"), ((6, 9, 0, 0, 0), "background")]
)
def test_fb_iou_of_masks_without_one_of_the_grounds_is_an_error(episode, word):
    with pytest.raises(ValueError, match=f"needs {word} pixels"):
        fb_iou(table_of([episode]))


# Two episodes of classes 6 and 7: each way against everything else, then any way; 100 pixels each.
TWO_WAYS = [(6, 10, 5, 10, 75), (7, 0, 30, 0, 70), (0, 20, 25, 0, 55)]
TWO_WAYS += [(7, 40, 10, 0, 50), (6, 5, 5, 15, 75), (0, 50, 5, 10, 35)]


def several(rows=TWO_WAYS):
    return EpisodeCounts(**table_of(rows).columns() | {"episode": np.arange(len(rows)) // 3})


def test_a_class_is_scored_in_every_episode_in_which_it_is_a_way():
    # class 7 is not in the first query: its 30 false positives count
    assert per_class(several(), [6, 7]) == {6: pytest.approx(15 / 50), 7: pytest.approx(40 / 80)}
    assert miou(several(), [6, 7]) == pytest.approx((15 / 50 + 40 / 80) / 2)
    assert dice(several(), [6, 7]) == pytest.approx((30 / (30 + 35) + 80 / (80 + 40)) / 2)


def test_fb_iou_of_several_ways_is_that_of_any_way_against_the_background():
    assert fb_iou(several()) == pytest.approx((70 / 110 + 90 / 130) / 2)


def test_the_rows_of_any_way_are_no_class():
    with pytest.raises(ValueError, match=r"different ids other than 0, got \[0, 6, 7\]"):
        per_class(several(), [0, 6, 7])
    with pytest.raises(ValueError, match=r"class \[8\] was never drawn in 2 episodes"):
        miou(several(), [6, 7, 8])
    with pytest.raises(ValueError, match=r"class \[7\].*whose classes are \[6\]"):
        miou(several(), [6])


def test_srpnets_dice_is_that_of_its_mean_iou():
    printed = {0.615: 0.762, 0.626: 0.770}  # its Tables 2 and 3
    assert [round(dice_of_miou(m), 3) for m in (0.615, 0.626)] == [printed[0.615], printed[0.626]]
    assert (dice_of_miou(0.0), dice_of_miou(1.0)) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\], got 61\.5"):
        dice_of_miou(61.5)
