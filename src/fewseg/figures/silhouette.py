"""How well classes part: distances between points, and silhouettes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewseg.figures.intervals import RESAMPLES, Floats, resampled, with_percentiles
from fewseg.reporting.numbers import Estimate

Ints = npt.NDArray[Any]
MetricName = Literal["cosine", "fidelity", "euclidean"]


def distances(points: npt.ArrayLike, metric: MetricName) -> Floats:
    """Distances of n points: (n, d) to (n, n).

    "cosine" is 1 - cos, in [0, 2]; "fidelity" 1 - cos^2, in [0, 1] (SRPNet, Ding et al. 2022, Eq. 5-6, turned
    into a distance); "euclidean" the length of the difference. A zero vector is at right angles to all
    others.
    """
    values = np.asarray(points, dtype=np.float64)
    if metric == "euclidean":
        squares = np.square(values).sum(axis=1)
        found = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0.0))
    else:
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        unit = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
        cosine = np.clip(unit @ unit.T, -1.0, 1.0)
        found = 1.0 - (np.square(cosine) if metric == "fidelity" else cosine)
    np.fill_diagonal(found, 0.0)
    return np.asarray(found, dtype=np.float64)


def silhouette(apart: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """Mean silhouette, in [-1, 1].

    That of a point is (b - a) / max(a, b), a being its mean distance to its own class and b that to the
    nearest other class; of a point alone in its class it is 0.

    Source: Rousseeuw (1987), as scikit-learn computes it. With weights a point stands for so many copies, in
    the means and in the result; its own copies are not counted into a, where they would be at distance 0.

    Args:
        apart: (n, n) distances.
        labels: (n,) classes, two different ones at least.
        weights: (n,) at least 0; ones by default.

    Raises:
        ValueError: there are fewer than two classes with weight.
    """
    drawn = np.ones(len(labels)) if weights is None else weights
    classes, own = np.unique(labels, return_inverse=True)
    member = np.eye(len(classes))[own] * drawn[:, None]
    totals = member.sum(axis=0)
    if np.count_nonzero(totals) < 2:
        raise ValueError("a silhouette needs points of two classes at least")
    sums = apart @ member
    index = np.arange(len(own))
    others = totals[own] - drawn
    inside = np.divide(sums[index, own], others, out=np.zeros(len(own)), where=others > 0)
    means = np.divide(sums, totals, out=np.full_like(sums, np.inf), where=totals > 0)
    means[index, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    known = (others > 0) & (larger > 0)
    values = np.divide(outside - inside, larger, out=np.zeros(len(own)), where=known)
    return float((values * drawn).sum() / drawn.sum())


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far classes lie apart, in one space.

    Attributes:
        silhouette: mean silhouette with its interval over resampled groups of points.
        samples: the resampled silhouettes, drawn alike for equal groups, so that differences are paired.
        within: mean distance of two points of one class (mean over the points).
        between: mean distance of two points of different classes.
    """

    silhouette: Estimate
    samples: Floats
    within: float
    between: float


def separation(
    apart: Floats,
    labels: Ints,
    groups: Ints | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Separation:
    """Scores points by their distances (n, n).

    Args:
        apart: (n, n).
        labels: (n,) classes.
        groups: (n,) points that are drawn together (cells of one image), 0 ..; each point by default.
        seed: of the resamples.
        resamples: how many.

    Raises:
        ValueError: as :func:`silhouette`.
    """
    of_group = np.arange(len(labels)) if groups is None else groups
    value = silhouette(apart, labels)

    def scores(weights: Floats) -> Floats:
        return np.array([_or_nan(apart, labels, row[of_group]) for row in weights])

    samples = resampled(scores, int(of_group.max()) + 1, seed=seed, resamples=resamples)
    same = labels[:, None] == labels[None]
    pairs = same & ~np.eye(len(labels), dtype=bool)
    return Separation(
        silhouette=with_percentiles(value, samples),
        samples=samples,
        within=float(apart[pairs].mean()) if pairs.any() else 0.0,
        between=float(apart[~same].mean()),
    )


def _or_nan(apart: Floats, labels: Ints, weights: Floats) -> float:
    """The silhouette of a resample; NaN where it holds one class only."""
    kept = weights > 0
    if len(np.unique(labels[kept])) < 2:
        return float("nan")
    return silhouette(apart, labels, weights)


def silhouette_gain(a: Separation, b: Separation) -> Estimate:
    """Silhouette b less silhouette a of the same points in two spaces, resampled together."""
    return with_percentiles(b.silhouette.value - a.silhouette.value, b.samples - a.samples)
