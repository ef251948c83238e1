"""U_k against the IoU of each shot."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from fewseg.engine.evaluate import Evaluator
from fewseg.reports.figures.shot_weights import (
    SHOTS,
    binned,
    correlated,
    rank_correlations,
    weights_of,
)


def shots(n=40, k=5, noise=0.1, seed=0):
    generator = np.random.default_rng(seed)
    weights = generator.random((n, k))
    return weights, np.clip(0.7 * weights + noise * generator.normal(size=(n, k)), 0, 1)


def test_rank_correlation_is_that_of_scipy_with_ties_and_within_each_episode():
    weights, ious = (v.round(1) for v in shots())
    found = correlated(weights, ious)
    assert found.pooled.value == pytest.approx(spearmanr(weights.ravel(), ious.ravel()).statistic)
    each = rank_correlations(weights, ious)
    plain = [spearmanr(a, b).statistic for a, b in zip(weights, ious, strict=True) if np.ptp(a) and np.ptp(b)]
    assert each[np.isfinite(each)] == pytest.approx(plain)


def test_good_weights_correlate_and_random_ones_do_not():
    good = correlated(*shots())
    assert good.within.low > 0.5
    weights, ious = shots(n=200)
    order = np.random.default_rng(3).permuted(ious, axis=1)
    random = correlated(weights, order)
    assert random.within.low < 0 < random.within.high


def test_an_easy_class_correlates_over_all_shots_and_not_within_an_episode():
    generator = np.random.default_rng(0)
    easy = np.repeat(generator.random(200), 5).reshape(200, 5)
    weights, ious = (easy + 0.05 * generator.normal(size=easy.shape) for _ in range(2))
    found = correlated(weights, ious)
    assert found.pooled.low > 0.8
    assert abs(found.within.value) < 0.2


def test_episodes_whose_shots_are_alike_are_left_out():
    weights, ious = shots(n=6)
    weights[:2], ious[2] = 0.5, 0.25
    found = correlated(weights, ious)
    assert found.ranked == 3
    with pytest.raises(ValueError, match="the shots of no episode differ"):
        correlated(weights[:2], ious[:2])


def test_bins_hold_their_lower_end_and_the_last_also_one():
    weights, ious = np.array([[0.0, 0.1, 0.19, 1.0]]), np.array([[0.2, 0.4, 0.6, 0.8]])
    found = binned(weights, ious)
    assert [(i, n) for i, (_, n) in found.items()] == [(0, 1), (1, 2), (9, 1)]
    assert [mean.value for mean, _ in found.values()] == pytest.approx([0.2, 0.5, 0.8])


def test_u_k_is_the_mean_iou_of_what_shot_k_predicts_of_all_shots(model_of, monkeypatch):
    """Eq. 16: k predicts i. Scores that are not alike both ways tell shot k from what it is tested on."""
    asked = []

    def pair_ious(evaluator, pairs, fusion):
        asked.extend(pairs)
        return {pair: i / len(pairs) for i, pair in enumerate(asked)}

    monkeypatch.setattr(Evaluator, "pair_ious", pair_ious)
    model = model_of("scl", episodes=3)
    weights, ious = weights_of(model)
    specs = [spec for _, spec in model.episodes(SHOTS)]
    assert weights.shape == ious.shape == (len(specs), SHOTS)
    assert len(asked) == len(set(asked))
    score = {pair: i / len(asked) for i, pair in enumerate(asked)}
    for spec, of_weights, of_ious in zip(specs, weights, ious, strict=True):
        for k, support in enumerate(spec.supports):
            each = [score[spec.class_id, support, target] for target in spec.supports]
            assert of_weights[k] == pytest.approx(np.mean(each))
            assert of_ious[k] == score[spec.class_id, support, spec.query]
