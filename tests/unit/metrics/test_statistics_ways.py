"""Resampling and comparing episodes of several ways: an episode is drawn with all its rows."""

import numpy as np
import pytest

from fewseg.metrics import EpisodeCounts, bootstrap_miou, paired_difference
from fewseg.metrics.statistics import check_same_episodes, same_episodes

CLASSES = [6, 7, 8]


def plain_miou(rows, classes):
    """mIoU of a list of (class, intersection, union), classes without a row left out."""
    ratios = []
    for c in classes:
        of_class = [r for r in rows if r[0] == c]
        if of_class:
            ratios.append(sum(r[1] for r in of_class) / sum(r[2] for r in of_class))
    return sum(ratios) / len(ratios)


def changed(table, **columns):
    return EpisodeCounts(**table.columns() | columns)


def table_of_ways(seeds=2, episodes=30, ways=2, better=0.0):
    """Episodes of several classes each, with rows of any way whose counts are far from the others'."""
    generator = np.random.default_rng(8)
    classes = np.concatenate([[*generator.permutation(CLASSES)[:ways], 0] for _ in range(seeds * episodes)])
    n = len(classes)
    true = np.where(classes == 0, 4000, generator.integers(100, 1000, n))
    inter = (true * np.clip(generator.uniform(0.2, 0.8, n) + better, 0, 1)).astype(np.int64)
    pred = inter + generator.integers(0, 500, n)
    union = true + pred - inter
    place = np.arange(n) // (ways + 1)
    return EpisodeCounts(
        seed=place // episodes,
        episode=place % episodes,
        class_id=classes,
        fg_inter=inter,
        fg_union=union,
        bg_inter=5000 - union,
        bg_union=5000 - inter,
        fg_pred=pred,
        fg_true=true,
        query=np.array([f"q{i}" for i in place]),
        supports=np.where(classes == 0, "", np.array([f"s{i}" for i in range(n)]))[:, None],
    )


def plain_bootstrap_by_episode(table, classes, resamples, seed):
    """Draws episodes one by one and takes every row of each."""
    generator = np.random.default_rng(seed)
    scores = np.zeros(resamples)
    run_seeds = sorted(set(table.seed.tolist()))
    for run_seed in run_seeds:
        own = table.select(table.seed == run_seed)
        rows = {}
        for i, *row in zip(
            own.episode.tolist(),
            own.class_id.tolist(),
            own.fg_inter.tolist(),
            own.fg_union.tolist(),
            strict=True,
        ):
            rows.setdefault(i, []).append(row)
        for r in range(resamples):
            drawn = generator.integers(0, len(rows), size=len(rows))
            chosen = [row for i in drawn for row in rows[sorted(rows)[i]]]
            scores[r] += plain_miou(chosen, classes) / len(run_seeds)
    return scores


@pytest.mark.parametrize("ways", [1, 2, 3])
def test_a_resample_takes_all_ways_of_an_episode_together(ways):
    table = table_of_ways(ways=ways)
    table = table.select(np.random.default_rng(0).permutation(len(table)))
    scores = plain_bootstrap_by_episode(table, CLASSES, 130, seed=3)
    interval = bootstrap_miou(table, CLASSES, resamples=130, seed=3)
    assert interval.low == pytest.approx(np.quantile(scores, 0.025), abs=1e-12)
    assert interval.high == pytest.approx(np.quantile(scores, 0.975), abs=1e-12)
    assert interval.standard_error == pytest.approx(np.std(scores, ddof=1), abs=1e-12)


def test_the_episodes_need_not_be_numbered_without_gaps():
    table = table_of_ways()
    spread = changed(table, episode=7 * table.episode + 3)
    assert bootstrap_miou(spread, CLASSES, seed=1) == bootstrap_miou(table, CLASSES, seed=1)


def test_the_paired_difference_of_several_ways_takes_the_same_episodes_from_both():
    a, b = table_of_ways(), table_of_ways(better=0.01)
    of_a, of_b = (plain_bootstrap_by_episode(t, CLASSES, 100, seed=4) for t in (a, b))
    found = paired_difference(a, b, CLASSES, resamples=100, seed=4)
    assert found.interval.standard_error == pytest.approx(np.std(of_b - of_a, ddof=1), abs=1e-12)
    assert found.interval.low == pytest.approx(np.quantile(of_b - of_a, 0.025), abs=1e-12)


def test_tables_of_several_ways_are_compared_way_by_way():
    table = table_of_ways()
    n = len(table)
    assert same_episodes(table, table.select(np.arange(n)[::-1]))
    with pytest.raises(ValueError, match="60 and 60 episodes, 60 in one only, the first being seed 0"):
        check_same_episodes(table, table.select(table.class_id != 0))
    other = table.supports.copy()
    other[4] = "x"
    with pytest.raises(ValueError, match="drew other images"):
        check_same_episodes(table, changed(table, supports=other))
