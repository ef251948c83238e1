"""mIoU by size with intervals, and gains on targets of one size."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fewseg.metrics import miou_by_size
from fewseg.reports.frame import fold_tables
from fewseg.reports.size_scores import mean_sizes, of_size, size_cells, size_gain, size_scores
from result_files import episode_table, make_counts, make_result


def table(better=0, n=40, seeds=2):
    generator = np.random.default_rng(0)
    total = n * seeds
    true = generator.integers(100, 7000, total)
    inter = np.minimum((true * generator.uniform(0.3, 0.6, total)).astype(np.int64) + better, true)
    pred = inter + generator.integers(0, 300, total)
    query = [f"q{i}" for i in range(total)]
    return episode_table([4, 5], inter, pred, true, seeds=seeds, pixels=50_000, query=query)


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
    for bin in found.itertuples():
        high = 10**9 if pd.isna(bin.pixels_below) else bin.pixels_below
        assert bin.episodes == int(((counts.fg_true >= bin.pixels_from) & (counts.fg_true < high)).sum())
        assert bin.miou == pytest.approx(plain_miou(counts, bin.pixels_from, high))
        assert bin.low <= bin.miou <= bin.high
    assert found.episodes.sum() == 80
    empty = size_scores(counts.select(counts.fg_true >= 500), [4, 5]).iloc[0]
    assert empty.episodes == 0
    assert pd.isna(empty.miou)


def test_the_interval_is_over_images_and_one_image_is_no_evidence():
    counts = table()
    one = replace(counts, query=np.where(counts.fg_true < 500, "the same", counts.query))
    few, many = (size_scores(each, [4, 5]).iloc[0] for each in (one, counts))
    assert (few.episodes, few.images) == (many.episodes, 1)
    assert many.images == many.episodes > 1
    assert few.low == few.miou == few.high
    assert many.low < many.high
    gain, images = size_gain(one, one, [4, 5], 0, 500)
    assert (gain.value, images) == (0, 1)


def test_a_gain_on_small_targets_is_of_the_same_episodes():
    less, more = table(), table(better=30)
    gain, episodes = size_gain(less, more, [4, 5], 0, 5000)
    assert episodes == int((less.fg_true < 5000).sum())
    assert gain.value == pytest.approx(plain_miou(more, 0, 5000) - plain_miou(less, 0, 5000))
    assert gain.low > 0
    assert size_gain(less, more, [4, 5], 90_000, None) is None
    other = replace(table(), query=np.array([f"other{i}" for i in range(80)]))
    with pytest.raises(ValueError, match="other images"):
        size_gain(table(), other, [4, 5], 0, None)


def test_a_bin_holds_its_lower_end_and_not_its_upper_and_sums_the_seeds():
    counts = table()
    size = int(counts.fg_true[7])
    assert size in of_size(counts, size, size + 1).fg_true
    inside = of_size(counts, 0, size)
    assert size not in inside.fg_true
    assert set(inside.seed.tolist()) == {0}
    assert inside.episode.tolist() == list(range(len(inside)))


def test_the_mean_over_folds_needs_every_fold():
    first, second = size_scores(table(), [4, 5]), size_scores(table(better=50), [4, 5])
    second.loc[4, "miou"] = np.nan
    found = mean_sizes([first, second])
    assert found.miou[3] == pytest.approx((first.miou[3] + second.miou[3]) / 2)
    assert found.low[3] < found.miou[3] < found.high[3]
    assert (found.episodes[3], found.classes[3], found.pixels_from[3]) == (2 * first.episodes[3], 4, 1500)
    assert np.isnan(found.miou[4])


def test_a_cell_is_the_mean_over_the_folds_with_the_number_of_episodes(frame_of):
    found = []
    for method, better, folds in (("pfenet", 0.0, (0, 1, 2, 3)), ("matcher", -0.1, (0, 1))):
        for fold in folds:
            counts = make_counts(fold, better)
            found.append((make_result(counts, fold, method=method), counts))
    (drawn,) = fold_tables(frame_of(found))
    cells = size_cells(drawn)
    headings, rows = list(cells.columns), cells.values.tolist()
    assert headings[:3] == ["pixels of the target", "0-499", "500-999"]
    for row, fold in zip(rows, (0, 1), strict=False):
        assert row[0] == f"matcher mean, fold {fold} (missing folds 2, 3: no mean)"
        ((result, counts),) = [(r, c) for r, c in found if (r.method, r.fold) == ("matcher", fold)]
        bin = miou_by_size(counts, result.classes)[1]
        assert row[2] == f"{100 * bin.miou:.1f} ({bin.episodes})"
    bins = [miou_by_size(c, r.classes)[1] for r, c in found if r.method == "pfenet"]
    mean = 100 * sum(b.miou for b in bins) / 4
    assert rows[2][0] == "pfenet mean"
    assert rows[2][2] == f"{mean:.1f} ({sum(b.episodes for b in bins)})"
    assert rows[2][3:] == ["-"] * 9, "no target of 1000 pixels"
