"""Intervals of a figure's numbers: bootstrap or jackknife over episodes, supports or images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, t

from fewseg.metrics.statistics import resample_weights
from fewseg.reports.numbers import Estimate

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
_CHUNK = 64  # resamples at once: bounds the memory


def resampled(
    statistic: Callable[[Floats], npt.NDArray[Any]], n: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Floats:
    """A statistic of resamples of n items; equal seeds draw equal items, so differences are paired."""
    if n < 1:
        raise ValueError("an interval needs at least one item, got none")
    (weights,) = resample_weights(seed, (n,), resamples)
    chunks = (weights[start : start + _CHUNK] for start in range(0, resamples, _CHUNK))
    return np.concatenate([statistic(chunk.astype(np.float64)) for chunk in chunks]).astype(np.float64)


def with_percentiles(value: float, samples: Floats, level: float = 0.95) -> Estimate:
    """A value with the percentile interval of its resamples; undefined ones (NaN) are left out."""
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return Estimate(value=value, low=value, high=value)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def with_jackknife(value: float, without: Floats) -> Estimate:
    """A statistic of n items with Student's 95 % interval of its delete-one jackknife.

    Source: Efron & Tibshirani (1993), Eq. 11.5, for the standard error.
    """
    finite = without[np.isfinite(without)]
    n = len(finite)
    if n < 2:
        return Estimate(value=value, low=value, high=value)
    error = np.sqrt((n - 1) / n * np.square(finite - finite.mean()).sum())
    reach = float(error * t.ppf(0.975, n - 1))
    return Estimate(value=value, low=value - reach, high=value + reach)


def mean_estimate(values: npt.ArrayLike, *, seed: int = 0) -> Estimate:
    """The mean of n values with its interval."""
    array = np.asarray(values, dtype=np.float64)
    samples = resampled(lambda weights: weights @ array / len(array), len(array), seed=seed)
    return with_percentiles(float(array.mean()), samples)


def ratio_estimate(
    parts: npt.ArrayLike, wholes: npt.ArrayLike, *, less: tuple[npt.ArrayLike, ...] = (), seed: int = 0
) -> Estimate:
    """The sum of n parts over the sum of their wholes, with its interval.

    ``less`` has parts and wholes of the same n items, whose ratio is subtracted, paired.
    """
    first, *others = [
        [np.asarray(values, dtype=np.float64) for values in pair] for pair in ((parts, wholes), less) if pair
    ]
    if min(whole.sum() for _, whole in (first, *others)) <= 0:
        raise ValueError("a share needs wholes that sum to more than 0")

    def statistic(weights: Floats) -> Floats:
        ratios = _ratios(weights, *first)
        return ratios - _ratios(weights, *others[0]) if others else ratios

    n = len(first[0])
    return with_percentiles(float(statistic(np.ones((1, n)))[0]), resampled(statistic, n, seed=seed))


def _ratios(weights: Floats, part: Floats, whole: Floats) -> Floats:
    totals = weights @ whole
    ratios: Floats = np.divide(weights @ part, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return ratios


def rate_estimate(count: int, total: int) -> Estimate:
    """A rate with Wilson's 95 % interval, which assumes independent episodes."""
    if total < 1:
        raise ValueError("a rate needs at least one episode, got none")
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(value=count / total, low=float(interval.low), high=float(interval.high))
