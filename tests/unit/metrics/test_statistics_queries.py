"""Resamples that draw query images: what they are, and that many episodes of few images look no surer."""

from dataclasses import replace

import numpy as np
import pytest

from fewseg.metrics import EpisodeCounts, bootstrap_score, paired_difference

CLASSES = [6, 7, 8]
SEEDS = 2


def table_of(queries, episodes=60, better=0.0):
    """Episodes of a few images: all of one image are about as good. ``better`` lifts every second image."""
    generator = np.random.default_rng(3)
    n = SEEDS * episodes
    image = generator.integers(0, queries, n)
    quality = np.random.default_rng(4).uniform(0.2, 0.7, queries)[image] + generator.uniform(-0.02, 0.02, n)
    quality = quality + better * (image % 2)
    true = np.full(n, 1000)
    inter = (true * quality).astype(np.int64)
    return EpisodeCounts(
        seed=np.repeat(np.arange(SEEDS), episodes),
        episode=np.tile(np.arange(episodes), SEEDS),
        class_id=np.array(CLASSES)[image % 3],
        fg_inter=inter,
        fg_union=true,
        bg_inter=5000 - true,
        bg_union=5000 - inter,
        fg_pred=inter,
        fg_true=true,
        query=np.array([f"q{i}" for i in image]),
        supports=np.array([[f"s{i}"] for i in range(n)]),
    )


def plain_resamples(table, resamples, seed):
    """One resample after the other: images drawn by number, each with all its episodes, seed by seed."""
    names = sorted(set(table.query.tolist()))
    generator = np.random.default_rng(seed)
    scores = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(names), size=len(names)).tolist()
        of_seeds = []
        for run_seed in range(SEEDS):
            sums = {c: [0, 0] for c in CLASSES}
            for k in drawn:
                own = table.select((table.query == names[k]) & (table.seed == run_seed))
                for c, above, below in zip(own.class_id, own.fg_inter, own.fg_union, strict=True):
                    sums[int(c)][0] += int(above)
                    sums[int(c)][1] += int(below)
            of_seeds.append(np.mean([above / below for above, below in sums.values() if below]))
        scores.append(np.mean(of_seeds))
    return np.array(scores)


def test_the_interval_is_that_of_a_plain_bootstrap_over_images():
    table = table_of(12)
    found = bootstrap_score(table, CLASSES, "miou", over="queries", resamples=130, seed=7)
    plain = plain_resamples(table, 130, 7)
    low, high = np.quantile(plain, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert found.standard_error == pytest.approx(np.std(plain, ddof=1), abs=1e-12)


def test_more_episodes_of_the_same_images_make_nothing_surer():
    few, many = table_of(12, episodes=100), table_of(12, episodes=1600)
    of_images = [bootstrap_score(t, CLASSES, "miou", over="queries").standard_error for t in (few, many)]
    of_episodes = [bootstrap_score(t, CLASSES, "miou").standard_error for t in (few, many)]
    assert of_images[1] == pytest.approx(of_images[0], rel=0.3)
    assert of_episodes[1] == pytest.approx(of_episodes[0] / 4, rel=0.3)
    assert of_images[1] > 5 * of_episodes[1]


def test_an_episode_that_does_not_say_its_query_is_an_image_of_its_own():
    table = table_of(12)
    unsaid = replace(table, query=np.full(len(table), ""))
    own = replace(
        table, query=np.array([f"/{s}/{i}" for s, i in zip(table.seed, table.episode, strict=True)])
    )
    found = [bootstrap_score(t, CLASSES, "miou", over="queries", resamples=50) for t in (unsaid, own)]
    assert found[0] == found[1]
    assert found[0] != bootstrap_score(table, CLASSES, "miou", over="queries", resamples=50)


def test_a_paired_difference_draws_the_same_images_from_both():
    a, b = table_of(12), table_of(12, better=0.2)
    found = paired_difference(a, b, CLASSES, over="queries", resamples=130, seed=7)
    plain = plain_resamples(b, 130, 7) - plain_resamples(a, 130, 7)
    assert found.interval.low == pytest.approx(np.quantile(plain, 0.025), abs=1e-12)
    assert found.interval.high == pytest.approx(np.quantile(plain, 0.975), abs=1e-12)
    over_episodes = paired_difference(a, b, CLASSES, resamples=130, seed=7)
    assert found.interval.standard_error > 2 * over_episodes.interval.standard_error


def test_all_ways_of_an_episode_are_of_its_query():
    table = table_of(6, episodes=20)
    second = replace(table, class_id=np.roll(np.array(CLASSES), 1)[table.class_id - 6])
    both = EpisodeCounts.join([table, second])
    found = bootstrap_score(both, CLASSES, "miou", over="queries", resamples=20)
    assert found.low < found.high
