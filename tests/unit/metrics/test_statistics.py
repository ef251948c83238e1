import time
from statistics import NormalDist

import numpy as np
import pytest

from fewseg.metrics import (
    EpisodeCounts,
    bootstrap_miou,
    bootstrap_score,
    mean_miou,
    mean_score,
    minimum_detectable_difference,
    miou,
    paired_difference,
    std_over_seeds,
)
from fewseg.metrics.statistics import check_same_episodes, same_episodes

CLASSES = [6, 7, 8]


def random_table(seeds=2, episodes=40, classes=CLASSES, noise=0, better=0.0):
    """The same episodes at every call; ``better`` lifts every IoU, ``noise`` shakes it."""
    generator = np.random.default_rng(5)
    n = seeds * episodes
    true = generator.integers(100, 1000, n)
    class_id = generator.choice(classes, n)
    shaken = np.random.default_rng(noise).normal(0, 0.05, n) * (noise > 0)
    quality = generator.uniform(0.2, 0.8, n) + better + shaken
    inter = (true * np.clip(quality, 0.01, 0.99)).astype(np.int64)
    pred = inter + generator.integers(0, 500, n)
    union = true + pred - inter
    return EpisodeCounts(
        seed=np.repeat(np.arange(seeds), episodes),
        episode=np.tile(np.arange(episodes), seeds),
        class_id=class_id,
        fg_inter=inter,
        fg_union=union,
        bg_inter=5000 - union,
        bg_union=5000 - inter,
        fg_pred=pred,
        fg_true=true,
        query=np.array([f"q{i}" for i in range(n)]),
        supports=np.array([[f"s{i}"] for i in range(n)]),
    )


def plain_miou(rows, classes):
    """mIoU of a list of (class, intersection, union), classes without a row left out."""
    ratios = []
    for c in classes:
        of_class = [r for r in rows if r[0] == c]
        if of_class:
            ratios.append(sum(r[1] for r in of_class) / sum(r[2] for r in of_class))
    return sum(ratios) / len(ratios)


def plain_bootstrap(table, classes, resamples, seed):
    """One resample after the other, the episodes of each drawn row by row from the same generator."""
    generator = np.random.default_rng(seed)
    scores = np.zeros(resamples)
    run_seeds = sorted(set(table.seed.tolist()))
    for run_seed in run_seeds:
        own = table.select(table.seed == run_seed)
        rows = list(zip(own.class_id.tolist(), own.fg_inter.tolist(), own.fg_union.tolist(), strict=True))
        for r in range(resamples):
            drawn = generator.integers(0, len(rows), size=len(rows))
            scores[r] += plain_miou([rows[i] for i in drawn], classes) / len(run_seeds)
    return scores


def test_the_score_of_a_run_is_the_mean_of_its_seeds_mious():
    table = random_table()
    expected = [miou(table.select(table.seed == s), CLASSES) for s in (0, 1)]
    assert mean_miou(table, CLASSES) == pytest.approx(sum(expected) / 2, abs=1e-12)
    assert mean_miou(table, CLASSES) != pytest.approx(miou(table, CLASSES), abs=1e-6)


@pytest.mark.parametrize("resamples", [20, 130])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_the_interval_is_that_of_a_plain_bootstrap(resamples, level):
    table = random_table()
    scores = plain_bootstrap(table, CLASSES, resamples, seed=3)
    interval = bootstrap_miou(table, CLASSES, resamples=resamples, seed=3, level=level)
    assert interval.low == pytest.approx(np.quantile(scores, (1 - level) / 2), abs=1e-12)
    assert interval.high == pytest.approx(np.quantile(scores, 1 - (1 - level) / 2), abs=1e-12)
    assert interval.standard_error == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
    assert (interval.resamples, interval.level) == (resamples, level)


def test_a_class_that_a_resample_misses_is_left_out_of_that_resample():
    table = changed(random_table(seeds=1, episodes=9), class_id=np.resize(CLASSES, 9))
    scores = plain_bootstrap(table, CLASSES, 200, seed=0)
    assert bootstrap_miou(table, CLASSES, resamples=200).low == pytest.approx(
        np.quantile(scores, 0.025), abs=1e-12
    )


def test_the_standard_error_is_that_of_a_mean_where_the_score_is_one():
    # one class, unions all 1000: the mIoU is the mean of the intersections, whose error is known
    n = 400
    inter = np.random.default_rng(0).integers(0, 1001, n)
    table = EpisodeCounts(
        seed=np.zeros(n, np.int64),
        episode=np.arange(n),
        class_id=np.full(n, 6),
        fg_inter=inter,
        fg_union=np.full(n, 1000),
        bg_inter=np.full(n, 7),
        bg_union=1007 - inter,
        fg_pred=inter,
        fg_true=np.full(n, 1000),
        query=np.array([""] * n),
        supports=np.empty((n, 0), np.str_),
    )
    interval = bootstrap_miou(table, [6], resamples=4000)
    expected = np.std(inter / 1000) / np.sqrt(n)
    assert interval.standard_error == pytest.approx(expected, rel=0.05)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * expected, rel=0.08)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_rows():
    table = random_table()
    shuffled = table.select(np.random.default_rng(1).permutation(len(table)))
    assert bootstrap_miou(table, CLASSES, seed=1) == bootstrap_miou(shuffled, CLASSES, seed=1)
    assert bootstrap_miou(table, CLASSES, seed=1) != bootstrap_miou(table, CLASSES, seed=2)


def test_a_class_missing_from_one_seed_is_an_error():
    table = random_table()
    table = table.select((table.seed == 0) | (table.class_id != 7))
    with pytest.raises(ValueError, match=r"class \[7\] was never drawn"):
        bootstrap_miou(table, CLASSES)


def test_a_thousand_resamples_of_five_thousand_episodes_take_less_than_two_seconds():
    table = random_table(seeds=5, episodes=1000)
    start = time.perf_counter()
    bootstrap_miou(table, CLASSES, resamples=1000)
    assert time.perf_counter() - start < 2


def test_std_over_seeds_is_the_sample_standard_deviation():
    assert std_over_seeds([0.5, 0.6, 0.7]) == pytest.approx(0.1)
    assert std_over_seeds([0.5, 0.6]) == pytest.approx(0.1 / 2**0.5)
    assert std_over_seeds([0.5]) is None


def test_the_paired_difference_takes_the_same_episodes_from_both():
    a, b = random_table(), random_table(noise=1, better=0.01)
    of_a, of_b = (plain_bootstrap(t, CLASSES, 100, seed=4) for t in (a, b))
    found = paired_difference(a, b, CLASSES, resamples=100, seed=4, level=0.9)
    assert found.difference == pytest.approx(mean_miou(b, CLASSES) - mean_miou(a, CLASSES), abs=1e-12)
    low, high = np.quantile(of_b - of_a, [0.05, 0.95])
    assert (found.interval.low, found.interval.high) == (
        pytest.approx(low, abs=1e-12),
        pytest.approx(high, abs=1e-12),
    )
    assert found.interval.level == 0.9
    assert found.sign == 1
    assert found.p_like == pytest.approx(2 * np.mean(of_b - of_a < 0), abs=1e-12)


def test_pairing_makes_the_interval_of_a_small_gain_narrow():
    a, b = random_table(), random_table(better=0.02)
    found = paired_difference(a, b, CLASSES)
    assert found.interval.standard_error < 0.3 * bootstrap_miou(a, CLASSES).standard_error
    assert (found.sign, found.p_like) == (1, 0.0)


def test_the_difference_is_of_the_second_less_the_first():
    a, b = random_table(), random_table(better=0.02)
    forth, back = paired_difference(a, b, CLASSES), paired_difference(b, a, CLASSES)
    assert back.difference == -forth.difference
    assert (back.sign, back.p_like) == (-1, 0.0)
    assert back.interval.low == pytest.approx(-forth.interval.high, abs=1e-12)


def test_a_method_does_not_differ_from_itself():
    found = paired_difference(random_table(), random_table(), CLASSES)
    assert (found.difference, found.sign, found.p_like) == (0.0, 0, 1.0)
    assert (found.interval.low, found.interval.high) == (0.0, 0.0)


def test_a_resample_without_a_difference_counts_half_against_the_sign():
    a = random_table(seeds=1, episodes=20)
    # one false positive of one episode moves into the object: a resample without it does not differ
    one = (np.arange(20) == 3).astype(np.int64)
    b = changed(
        a,
        fg_inter=a.fg_inter + one,
        fg_union=a.fg_union - one,
        bg_inter=a.bg_inter + one,
        bg_union=a.bg_union - one,
    )
    without = np.mean(plain_bootstrap(b, CLASSES, 300, 0) == plain_bootstrap(a, CLASSES, 300, 0))
    found = paired_difference(a, b, CLASSES, resamples=300)
    assert 0.2 < without < 0.5
    assert (found.sign, found.p_like) == (1, pytest.approx(without))


def test_there_are_a_thousand_resamples_from_seed_zero_unless_others_are_asked_for():
    table = random_table()
    assert bootstrap_miou(table, CLASSES) == bootstrap_miou(
        table, CLASSES, resamples=1000, seed=0, level=0.95
    )
    found = paired_difference(table, random_table(noise=1), CLASSES)
    assert found == paired_difference(
        table, random_table(noise=1), CLASSES, resamples=1000, seed=0, level=0.95
    )
    assert found.interval.resamples == 1000


def test_an_order_that_depends_on_the_episodes_has_a_large_share_against_it():
    found = paired_difference(random_table(), random_table(noise=2), CLASSES)
    assert found.interval.low < 0 < found.interval.high
    assert 0.05 < found.p_like <= 1


def changed(table, **columns):
    return EpisodeCounts(**table.columns() | columns)


def test_tables_of_the_same_episodes_are_known_in_any_order_and_without_images():
    table = random_table()
    n = len(table)
    assert same_episodes(table, table.select(np.arange(n)[::-1]))
    assert same_episodes(table, changed(table, query=np.array([""] * n), supports=np.empty((n, 0), np.str_)))
    check_same_episodes(table, table)


def test_other_episodes_are_refused_with_the_first_that_differs():
    table = random_table()
    with pytest.raises(
        ValueError, match="80 and 70 episodes, 10 in one only, the first being seed 0, episode 0"
    ):
        paired_difference(table, table.select(np.arange(10, 80)), CLASSES)
    other = table.class_id.copy()
    other[3] = 6 if other[3] != 6 else 7
    with pytest.raises(ValueError, match="first being seed 0, episode 3"):
        paired_difference(table, changed(table, class_id=other), CLASSES)


@pytest.mark.parametrize("column", ["query", "supports"])
def test_the_same_numbers_of_other_images_are_refused(column):
    table = random_table()
    other = table.columns()[column].copy()
    other[5] = "x"
    with pytest.raises(ValueError, match="drew other images"):
        paired_difference(table, changed(table, **{column: other}), CLASSES)


def test_the_minimum_detectable_difference_is_found_as_often_as_the_power_says():
    error = 0.01
    difference = minimum_detectable_difference(error, episodes=100, level=0.95, power=0.8)
    assert difference == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)
    # a normal estimate around the difference leaves the two-sided 95 % zone around zero 8 times of 10
    assert 1 - NormalDist(difference, error).cdf(1.959964 * error) == pytest.approx(0.8, abs=1e-4)


def test_four_times_the_episodes_detect_half_the_difference():
    once = minimum_detectable_difference(0.01, episodes=1000)
    assert minimum_detectable_difference(0.01, episodes=1000, planned=4000) == pytest.approx(once / 2)


def test_one_way_intervals_never_change():
    interval = bootstrap_miou(random_table(), CLASSES)
    expected = (0.3090545351402172, 0.3805300746291703, 0.018258284049948635)
    assert (interval.low, interval.high, interval.standard_error) == pytest.approx(expected, rel=1e-14)


def plain_score(rows, classes, score):
    """Dice or FB-IoU of a list of rows of counts, straight from the definitions."""
    if score == "fb_iou":
        fore = sum(r["fg_inter"] for r in rows) / sum(r["fg_union"] for r in rows)
        back = sum(r["bg_inter"] for r in rows) / sum(r["bg_union"] for r in rows)
        return (fore + back) / 2
    ratios = []
    for c in classes:
        of_class = [r for r in rows if r["class_id"] == c]
        if of_class:
            both = sum(r["fg_pred"] + r["fg_true"] for r in of_class)
            ratios.append(2 * sum(r["fg_inter"] for r in of_class) / both)
    return sum(ratios) / len(ratios)


def plain_scores(table, classes, score, resamples):
    """One resample after the other, episodes drawn as for mIoU."""
    generator = np.random.default_rng(0)
    scores = np.zeros(resamples)
    names = ("class_id", "fg_inter", "fg_union", "bg_inter", "bg_union", "fg_pred", "fg_true")
    for run_seed in (0, 1):
        own = table.select(table.seed == run_seed)
        columns = [getattr(own, name).tolist() for name in names]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        for r in range(resamples):
            drawn = generator.integers(0, len(rows), size=len(rows))
            scores[r] += plain_score([rows[i] for i in drawn], classes, score) / 2
    return scores


@pytest.mark.parametrize("score", ["dice", "fb_iou"])
def test_intervals_of_dice_and_fb_iou_are_those_of_a_plain_bootstrap(score):
    table = random_table()
    scores = plain_scores(table, CLASSES, score, 70)
    interval = bootstrap_score(table, CLASSES, score, resamples=70)
    assert interval.low == pytest.approx(np.quantile(scores, 0.025), abs=1e-12)
    assert interval.high == pytest.approx(np.quantile(scores, 0.975), abs=1e-12)


@pytest.mark.parametrize("score", ["dice", "fb_iou"])
def test_paired_differences_of_dice_and_fb_iou_take_the_same_episodes_from_both(score):
    a, b = random_table(), random_table(better=0.05)
    of_a, of_b = (plain_scores(t, CLASSES, score, 70) for t in (a, b))
    found = paired_difference(a, b, CLASSES, score=score, resamples=70)
    assert found.difference == pytest.approx(
        mean_score(b, CLASSES, score) - mean_score(a, CLASSES, score), abs=1e-12
    )
    assert found.interval.low == pytest.approx(np.quantile(of_b - of_a, 0.025), abs=1e-12)
    assert found.interval.high == pytest.approx(np.quantile(of_b - of_a, 0.975), abs=1e-12)


def test_fb_iou_of_several_ways_is_resampled_over_the_rows_of_any_way():
    ways = random_table(classes=[6])
    any_way = random_table(classes=[6], better=0.1)
    any_way = changed(any_way, class_id=np.zeros(len(any_way), np.int64))
    both = EpisodeCounts.join([ways, any_way])
    generator = np.random.default_rng(0)
    scores = np.zeros(70)
    for run_seed in (0, 1):
        own = any_way.select(any_way.seed == run_seed)
        for r in range(70):
            drawn = generator.integers(0, len(own), size=len(own))
            fore = own.fg_inter[drawn].sum() / own.fg_union[drawn].sum()
            back = own.bg_inter[drawn].sum() / own.bg_union[drawn].sum()
            scores[r] += (fore + back) / 4
    found = bootstrap_score(both, [6], "fb_iou", resamples=70)
    assert found.low == pytest.approx(np.quantile(scores, 0.025), abs=1e-12)


def test_intervals_do_not_depend_on_what_was_resampled_before():
    table, longer = random_table(), random_table(episodes=60)
    first = bootstrap_miou(table, CLASSES)
    bootstrap_miou(longer, CLASSES)
    assert bootstrap_miou(table, CLASSES) == first
