"""Do the weights U_k of SCL's cross-guided module know which shot is good?

Source: SCL (Zhang et al. 2021), Eq. 15-17: U_k is the mean IoU of shot k's predictions of all K supports.
What it should be worth is the IoU of shot k's own prediction of the query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fewseg.reports.figures.intervals import Floats, mean_estimate, resampled, with_percentiles
from fewseg.reports.numbers import Estimate

_POOLED_RESAMPLES = 200  # each ranks all shots anew
BINS = 10


@dataclass(frozen=True, kw_only=True)
class ShotWeights:
    """U_k against what it predicts, over n episodes of K shots.

    Attributes:
        weights: (n, K) U_k.
        ious: (n, K) IoU of shot k's own prediction of the query.
        pooled: Spearman's rank correlation over all n K shots. It also holds that some classes are easier
            than others, for supports and queries alike.
        within: mean over the episodes of the rank correlation between the K shots of one episode: what the
            weights, which only compare shots of one episode, can use.
        ranked: in how many episodes neither U_k nor the IoU is alike for all shots; the others have no rank
            correlation and are left out of ``within``.
    """

    weights: Floats
    ious: Floats
    pooled: Estimate
    within: Estimate
    ranked: int


def correlated(weights: Floats, ious: Floats, *, seed: int = 0) -> ShotWeights:
    """Correlates U_k with the IoU; intervals are over episodes.

    Args:
        weights: (n, K).
        ious: (n, K).
        seed: of the resamples.

    Raises:
        ValueError: there is no episode, or in none do both differ between the shots.
    """
    each = within_episodes(weights, ious)
    known = each[np.isfinite(each)]
    if not len(known):
        raise ValueError("the shots of no episode differ: nothing can be ranked")

    def pooled(drawn: Floats) -> Floats:
        rows = [np.repeat(np.arange(len(row)), row.astype(np.int64)) for row in drawn]
        return np.array([spearman(weights[row].ravel(), ious[row].ravel()) for row in rows])

    samples = resampled(pooled, len(weights), seed=seed, resamples=_POOLED_RESAMPLES)
    return ShotWeights(
        weights=weights,
        ious=ious,
        pooled=with_percentiles(spearman(weights.ravel(), ious.ravel()), samples),
        within=mean_estimate(known, seed=seed),
        ranked=len(known),
    )


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where all of one are alike."""
    return float(_pearson(rankdata(a)[None], rankdata(b)[None])[0])


def within_episodes(a: Floats, b: Floats) -> Floats:
    """Spearman's rank correlation of each row of (n, K); NaN where all of a row are alike."""
    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _pearson(a: Floats, b: Floats) -> Floats:
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    below = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    found: Floats = np.divide((a * b).sum(axis=1), below, out=np.full(len(a), np.nan), where=below > 0)
    return found


@dataclass(frozen=True, kw_only=True)
class WeightBin:
    """The shots whose U_k lies in [low, high)."""

    low: float
    high: float
    shots: int
    iou: Estimate


def binned(weights: Floats, ious: Floats, *, seed: int = 0) -> list[WeightBin]:
    """Mean IoU of the shots in each of ``BINS`` equal bins of U_k in [0, 1]; empty bins are left out."""
    place = np.clip((weights.ravel() * BINS).astype(np.int64), 0, BINS - 1)
    found = []
    for i in np.unique(place).tolist():
        inside = ious.ravel()[place == i]
        found.append(
            WeightBin(
                low=i / BINS, high=(i + 1) / BINS, shots=len(inside), iou=mean_estimate(inside, seed=seed)
            )
        )
    return found
