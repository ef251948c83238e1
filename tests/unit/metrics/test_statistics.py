"""Intervals and paired differences against a plain bootstrap, over episodes and over query images."""

from statistics import NormalDist

import numpy as np
import pytest

from fewseg.metrics import (
    EpisodeCounts,
    bootstrap_score,
    mean_score,
    minimum_detectable_difference,
    miou,
    paired_difference,
    std_over_seeds,
)
from fewseg.metrics.statistics import check_same_episodes, same_episodes
from result_files import episode_table

CLASSES = [6, 7, 8]
COUNTS = ("fg_inter", "fg_union", "bg_inter", "bg_union", "fg_pred", "fg_true")


def changed(table, **columns):
    return EpisodeCounts(**table.columns() | columns)


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
    query, supports = [f"q{i}" for i in range(n)], [[f"s{i}"] for i in range(n)]
    return episode_table(class_id, inter, pred, true, seeds=seeds, query=query, supports=supports)


def table_of_ways(ways=2, better=0.0):
    """Episodes of several classes each, with rows of any way whose counts are far from the others'."""
    generator = np.random.default_rng(8)
    classes = np.concatenate([[*generator.permutation(CLASSES)[:ways], 0] for _ in range(60)])
    n = len(classes)
    true = np.where(classes == 0, 4000, generator.integers(100, 1000, n))
    inter = (true * np.clip(generator.uniform(0.2, 0.8, n) + better, 0, 1)).astype(np.int64)
    pred = inter + generator.integers(0, 500, n)
    query = [f"q{i // (ways + 1)}" for i in range(n)]
    supports = np.where(classes == 0, "", np.array([f"s{i}" for i in range(n)]))[:, None]
    options = {"seeds": 2, "ways": ways + 1, "query": query, "supports": supports}
    return episode_table(classes, inter, pred, true, **options)


def table_of_images(queries, episodes=60, better=0.0):
    """Episodes of a few images: all of one image are about as good. ``better`` lifts every second image."""
    generator = np.random.default_rng(3)
    n = 2 * episodes
    image = generator.integers(0, queries, n)
    quality = np.random.default_rng(4).uniform(0.2, 0.7, queries)[image] + generator.uniform(-0.02, 0.02, n)
    inter = (1000 * (quality + better * (image % 2))).astype(np.int64)
    class_id, query = np.array(CLASSES)[image % 3], [f"q{i}" for i in image]
    return episode_table(class_id, inter, inter, np.full(n, 1000), seeds=2, query=query)


def plain_score(rows, classes, score):
    """A score of a list of rows of counts, by definition; classes without a row are left out."""
    if score == "fb_iou":
        rows = [r for r in rows if r["class_id"] == 0] or rows
        fore = sum(r["fg_inter"] for r in rows) / sum(r["fg_union"] for r in rows)
        back = sum(r["bg_inter"] for r in rows) / sum(r["bg_union"] for r in rows)
        return (fore + back) / 2
    ratios = []
    for c in classes:
        of_class = [r for r in rows if r["class_id"] == c]
        inter, union = (sum(r[name] for r in of_class) for name in ("fg_inter", "fg_union"))
        if of_class:
            ratios.append(2 * inter / (union + inter) if score == "dice" else inter / union)
    return sum(ratios) / len(ratios)


def plain_bootstrap(table, resamples, seed=0, score="miou", classes=CLASSES):
    """One resample after the other: episodes drawn one by one, each with all its rows."""
    generator = np.random.default_rng(seed)
    scores = np.zeros(resamples)
    run_seeds = sorted(set(table.seed.tolist()))
    names = ("class_id", *COUNTS)
    for run_seed in run_seeds:
        own = table.select(table.seed == run_seed)
        columns = [getattr(own, name).tolist() for name in names]
        rows = {}
        for i, *values in zip(own.episode.tolist(), *columns, strict=True):
            rows.setdefault(i, []).append(dict(zip(names, values, strict=True)))
        for r in range(resamples):
            drawn = generator.integers(0, len(rows), size=len(rows))
            chosen = [row for i in drawn for row in rows[sorted(rows)[i]]]
            scores[r] += plain_score(chosen, classes, score) / len(run_seeds)
    return scores


def plain_bootstrap_of_images(table, resamples, seed):
    """One resample after the other: images drawn by number, each with all its episodes, seed by seed."""
    names = sorted(set(table.query.tolist()))
    generator = np.random.default_rng(seed)
    scores = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(names), size=len(names)).tolist()
        of_seeds = []
        for run_seed in range(2):
            sums = {c: [0, 0] for c in CLASSES}
            for k in drawn:
                own = table.select((table.query == names[k]) & (table.seed == run_seed))
                for c, above, below in zip(own.class_id, own.fg_inter, own.fg_union, strict=True):
                    sums[int(c)][0] += int(above)
                    sums[int(c)][1] += int(below)
            of_seeds.append(np.mean([above / below for above, below in sums.values() if below]))
        scores.append(np.mean(of_seeds))
    return np.array(scores)


def check_interval(interval, scores):
    low, high = np.quantile(scores, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)
    assert interval.standard_error == pytest.approx(np.std(scores, ddof=1), abs=1e-12)


def test_the_score_of_a_run_is_the_mean_of_its_seeds_mious():
    table = random_table()
    expected = [miou(table.select(table.seed == s), CLASSES) for s in (0, 1)]
    assert mean_score(table, CLASSES) == pytest.approx(sum(expected) / 2, abs=1e-12)
    assert mean_score(table, CLASSES) != pytest.approx(miou(table, CLASSES), abs=1e-6)


@pytest.mark.parametrize("resamples", [20, 130])
def test_the_interval_is_that_of_a_plain_bootstrap(resamples):
    table = random_table()
    interval = bootstrap_score(table, CLASSES, resamples=resamples, seed=3)
    check_interval(interval, plain_bootstrap(table, resamples, seed=3))


@pytest.mark.parametrize("ways", [0, 1, 2, 3])
@pytest.mark.parametrize("score", ["miou", "dice", "fb_iou"])
def test_a_resample_takes_all_ways_of_an_episode_together(ways, score):
    table = table_of_ways(ways=ways) if ways else random_table()
    table = table.select(np.random.default_rng(0).permutation(len(table)))
    interval = bootstrap_score(table, CLASSES, score, resamples=70, seed=3)
    check_interval(interval, plain_bootstrap(table, 70, seed=3, score=score))


def test_a_class_that_a_resample_misses_is_left_out_of_that_resample():
    table = changed(random_table(seeds=1, episodes=9), class_id=np.resize(CLASSES, 9))
    check_interval(bootstrap_score(table, CLASSES, resamples=200), plain_bootstrap(table, 200))


def test_the_same_seed_gives_the_same_interval_whatever_the_order_and_the_numbers_of_the_rows():
    table = random_table()
    first = bootstrap_score(table, CLASSES, seed=1)
    assert first != bootstrap_score(table, CLASSES, seed=2)
    for same in (
        table.select(np.random.default_rng(1).permutation(len(table))),
        changed(table, episode=7 * table.episode + 3),
    ):
        assert bootstrap_score(same, CLASSES, seed=1) == first


def test_a_class_missing_from_one_seed_is_an_error():
    table = random_table()
    table = table.select((table.seed == 0) | (table.class_id != 7))
    with pytest.raises(ValueError, match=r"class \[7\] was never drawn"):
        bootstrap_score(table, CLASSES)


def test_std_over_seeds_is_the_sample_standard_deviation():
    assert std_over_seeds([0.5, 0.6, 0.7]) == pytest.approx(0.1)
    assert std_over_seeds([0.5, 0.6]) == pytest.approx(0.1 / 2**0.5)
    assert std_over_seeds([0.5]) is None


@pytest.mark.parametrize("score", ["miou", "dice", "fb_iou"])
@pytest.mark.parametrize("of", [random_table, table_of_ways])
def test_the_paired_difference_takes_the_same_episodes_from_both(score, of):
    a, b = of(), of(better=0.01)
    of_a, of_b = (plain_bootstrap(t, 70, seed=4, score=score) for t in (a, b))
    found = paired_difference(a, b, CLASSES, score=score, resamples=70, seed=4)
    expected = mean_score(b, CLASSES, score) - mean_score(a, CLASSES, score)
    assert found.difference == pytest.approx(expected, abs=1e-12)
    check_interval(found.interval, of_b - of_a)


def test_an_order_that_depends_on_the_episodes_has_a_large_share_against_it():
    a, b = random_table(), random_table(noise=2)
    found = paired_difference(a, b, CLASSES, resamples=100)
    against = plain_bootstrap(b, 100) - plain_bootstrap(a, 100)
    assert found.interval.low < 0 < found.interval.high
    assert found.p_like > 0.05
    assert found.p_like == pytest.approx(2 * np.mean(against * found.sign < 0), abs=1e-12)


def test_pairing_makes_the_interval_of_a_small_gain_narrow_and_the_order_gives_the_sign():
    a, b = random_table(), random_table(better=0.02)
    forth, back = paired_difference(a, b, CLASSES), paired_difference(b, a, CLASSES)
    assert forth.interval.standard_error < 0.3 * bootstrap_score(a, CLASSES).standard_error
    assert (forth.sign, forth.p_like, back.sign, back.p_like) == (1, 0.0, -1, 0.0)
    assert back.difference == -forth.difference
    assert back.interval.low == pytest.approx(-forth.interval.high, abs=1e-12)


def test_a_method_does_not_differ_from_itself():
    found = paired_difference(random_table(), random_table(), CLASSES)
    assert (found.difference, found.sign, found.p_like) == (0.0, 0, 1.0)
    assert (found.interval.low, found.interval.high) == (0.0, 0.0)


def test_a_resample_without_a_difference_counts_half_against_the_sign():
    a = random_table(seeds=1, episodes=20)
    # one false positive of one episode moves into the object: a resample without it does not differ
    one = (np.arange(20) == 3).astype(np.int64)
    moved = {name: getattr(a, name) + one for name in ("fg_inter", "bg_inter")}
    b = changed(a, **moved, fg_union=a.fg_union - one, bg_union=a.bg_union - one)
    without = np.mean(plain_bootstrap(b, 300) == plain_bootstrap(a, 300))
    found = paired_difference(a, b, CLASSES, resamples=300)
    assert 0.2 < without < 0.5
    assert (found.sign, found.p_like) == (1, pytest.approx(without))


def test_tables_of_the_same_episodes_are_known_in_any_order_and_without_images():
    for table in (random_table(), table_of_ways()):
        n = len(table)
        unnamed = changed(table, query=np.array([""] * n), supports=np.empty((n, 0), np.str_))
        assert same_episodes(table, table.select(np.arange(n)[::-1]))
        assert same_episodes(table, unnamed)
        check_same_episodes(table, table)


def test_other_episodes_are_refused_with_the_first_that_differs():
    table, ways = random_table(), table_of_ways()
    other = table.class_id.copy()
    other[3] = 6 if other[3] != 6 else 7
    for a, b, message in (
        (table, table.select(np.arange(10, 80)), "80 and 70 episodes, 10 in one only, .* seed 0, episode 0"),
        (table, changed(table, class_id=other), "first being seed 0, episode 3"),
        (ways, ways.select(ways.class_id != 0), "60 and 60 episodes, 60 in one only, the first being seed 0"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_difference(a, b, CLASSES)


@pytest.mark.parametrize("column", ["query", "supports"])
@pytest.mark.parametrize("of", [random_table, table_of_ways])
def test_the_same_numbers_of_other_images_are_refused(column, of):
    table = of()
    other = table.columns()[column].copy()
    other[4] = "x"
    with pytest.raises(ValueError, match="drew other images"):
        paired_difference(table, changed(table, **{column: other}), CLASSES)


def test_the_minimum_detectable_difference_is_found_as_often_as_the_power_says():
    error = 0.01
    difference = minimum_detectable_difference(error, episodes=100)
    assert difference == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)
    # a normal estimate around the difference leaves the two-sided 95 % zone around zero 8 times of 10
    assert 1 - NormalDist(difference, error).cdf(1.959964 * error) == pytest.approx(0.8, abs=1e-4)
    once = minimum_detectable_difference(error, episodes=1000)
    assert minimum_detectable_difference(error, episodes=1000, planned=4000) == pytest.approx(once / 2)


def test_one_way_intervals_never_change():
    interval = bootstrap_score(random_table(), CLASSES)
    expected = (0.3090545351402172, 0.3805300746291703, 0.018258284049948635)
    assert (interval.low, interval.high, interval.standard_error) == pytest.approx(expected, rel=1e-14)
    bootstrap_score(random_table(episodes=60), CLASSES)
    assert bootstrap_score(random_table(), CLASSES) == interval, "weights that are kept are those of the call"


def test_the_interval_over_images_is_that_of_a_plain_bootstrap_over_images():
    table = table_of_images(12)
    found = bootstrap_score(table, CLASSES, "miou", over="queries", resamples=130, seed=7)
    check_interval(found, plain_bootstrap_of_images(table, 130, 7))


def test_an_episode_without_a_named_query_is_an_image_of_its_own():
    table = table_of_images(12)
    places = zip(table.seed, table.episode, strict=True)
    own = changed(table, query=np.array([f"/{s}/{i}" for s, i in places]))
    unnamed = changed(table, query=np.full(len(table), ""))
    found = [bootstrap_score(t, CLASSES, "miou", over="queries", resamples=50) for t in (unnamed, own, table)]
    assert found[0] == found[1] != found[2]


def test_a_paired_difference_draws_the_same_images_from_both():
    a, b = table_of_images(12), table_of_images(12, better=0.2)
    found = paired_difference(a, b, CLASSES, over="queries", resamples=130, seed=7)
    check_interval(
        found.interval, plain_bootstrap_of_images(b, 130, 7) - plain_bootstrap_of_images(a, 130, 7)
    )
    over_episodes = paired_difference(a, b, CLASSES, resamples=130, seed=7)
    assert found.interval.standard_error > 2 * over_episodes.interval.standard_error


def test_all_ways_of_an_episode_are_of_its_query():
    table = table_of_images(6, episodes=20)
    second = changed(table, class_id=np.roll(np.array(CLASSES), 1)[table.class_id - 6])
    both = EpisodeCounts.join([table, second])
    found = bootstrap_score(both, CLASSES, "miou", over="queries", resamples=20)
    check_interval(found, plain_bootstrap_of_images(both, 20, 0))
