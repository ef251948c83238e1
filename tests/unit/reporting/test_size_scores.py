"""mIoU by size with intervals, and gains on targets of one size."""

from dataclasses import replace

import numpy as np
import pytest

from fewseg.metrics import EpisodeCounts
from fewseg.reports.size_scores import mean_size_score, of_size, size_gain, size_scores


def table(better=0, n=40, seeds=(0, 1)):
    generator = np.random.default_rng(0)
    total = n * len(seeds)
    true = generator.integers(100, 7000, total)
    inter = np.minimum((true * generator.uniform(0.3, 0.6, total)).astype(np.int64) + better, true)
    pred = inter + generator.integers(0, 300, total)
    union = true + pred - inter
    return EpisodeCounts(
        seed=np.repeat(seeds, n),
        episode=np.tile(np.arange(n), len(seeds)),
        class_id=np.resize([4, 5], total),
        fg_inter=inter,
        fg_union=union,
        bg_inter=50_000 - union,
        bg_union=50_000 - inter,
        fg_pred=pred,
        fg_true=true,
        query=np.array([f"q{i}" for i in range(total)]),
        supports=np.empty((total, 0), np.str_),
    )


def plain_miou(counts, low, high):
    found = []
    for c in (4, 5):
        inside = (counts.class_id == c) & (counts.fg_true >= low) & (counts.fg_true < high)
        if inside.any():
            found.append(counts.fg_inter[inside].sum() / counts.fg_union[inside].sum())
    return np.mean(found)


def test_a_bin_has_the_score_of_its_episodes_and_an_interval_around_it():
    counts = table()
    found = size_scores(counts, [4, 5])
    assert len(found) == 11
    for bin in found:
        high = bin.high or 10**9
        assert bin.episodes == int(((counts.fg_true >= bin.low) & (counts.fg_true < high)).sum())
        if bin.miou is not None:
            assert bin.miou.value == pytest.approx(plain_miou(counts, bin.low, high))
            assert bin.miou.low <= bin.miou.value <= bin.miou.high
    assert sum(bin.episodes for bin in found) == 80


def test_a_bin_says_of_how_many_images_it_is_and_one_image_is_no_evidence():
    counts = table()
    one = replace(counts, query=np.where(counts.fg_true < 500, "the same", counts.query))
    few, many = size_scores(one, [4, 5])[0], size_scores(counts, [4, 5])[0]
    assert (few.episodes, few.queries) == (many.episodes, 1)
    assert many.queries == many.episodes > 1
    assert few.miou.low == few.miou.value == few.miou.high
    assert many.miou.low < many.miou.high
    gain, images = size_gain(one, one, [4, 5], 0, 500)
    assert (gain.value, images) == (0, 1)


def test_an_empty_bin_has_no_score():
    counts = table()
    found = size_scores(counts.select(counts.fg_true >= 500), [4, 5])
    assert (found[0].episodes, found[0].miou) == (0, None)


def test_a_gain_on_small_targets_is_of_the_same_episodes():
    less, more = table(), table(better=30)
    gain, episodes = size_gain(less, more, [4, 5], 0, 5000)
    assert episodes == int((less.fg_true < 5000).sum())
    assert gain.value == pytest.approx(plain_miou(more, 0, 5000) - plain_miou(less, 0, 5000))
    assert gain.low > 0
    assert size_gain(less, more, [4, 5], 90_000, None) is None


def test_episodes_of_two_runs_must_be_the_same():
    other = replace(table(), query=np.array([f"other{i}" for i in range(80)]))
    with pytest.raises(ValueError, match="other images"):
        size_gain(table(), other, [4, 5], 0, None)


def test_a_bin_holds_its_lower_end_and_not_its_upper():
    counts = table()
    size = int(counts.fg_true[7])
    assert size in of_size(counts, size, size + 1).fg_true
    assert size not in of_size(counts, 0, size).fg_true


def test_seeds_are_summed():
    inside = of_size(table(), 0, 5000)
    assert set(inside.seed.tolist()) == {0}
    assert inside.episode.tolist() == list(range(len(inside)))


def test_the_mean_over_folds_needs_every_fold():
    first, second = size_scores(table(), [4, 5]), size_scores(table(better=50), [4, 5])
    found = mean_size_score([first[3], second[3]])
    assert found.miou.value == pytest.approx((first[3].miou.value + second[3].miou.value) / 2)
    assert found.miou.low < found.miou.value < found.miou.high
    assert (found.episodes, found.classes, found.label) == (2 * first[3].episodes, 4, "1500-1999")
    assert mean_size_score([first[3], replace(second[3], miou=None)]) is None
