"""How well classes part: distances between points, and silhouettes of them.

Intervals are of a delete-one-group jackknife (Efron & Tibshirani 1993, ch. 11), a group being the points of
one image. A bootstrap draws images twice: points of two copies are as near to one another as points of one
image are, so that there are twice as many such pairs in the mean distance to the own class, and the
silhouettes of the resamples lie above the one that they should surround. Without an image no pair is new. The
jackknife's variance is right where classes part, and up to twice too large where they do not (Efron & Stein
1981): such intervals are wide, never narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewseg.reports.figures.intervals import Floats, with_jackknife
from fewseg.reports.numbers import Estimate

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


def silhouette(apart: Floats, labels: Ints) -> float:
    """Mean silhouette, in [-1, 1].

    That of a point is (b - a) / max(a, b), a being its mean distance to its own class and b that to the
    nearest other class; of a point alone in its class it is 0.

    Source: Rousseeuw (1987), as scikit-learn computes it.

    Args:
        apart: (n, n) distances.
        labels: (n,) classes, two different ones at least.

    Raises:
        ValueError: there are fewer than two classes.
    """
    own, member = _memberships(labels)
    if member.shape[1] < 2:
        raise ValueError("a silhouette needs points of two classes at least")
    return _mean_silhouette(apart @ member, member.sum(axis=0), own)


def _memberships(labels: Ints) -> tuple[Ints, Floats]:
    """The class of each point, 0 .., and the same as (n, classes) of 0 and 1."""
    classes, own = np.unique(labels, return_inverse=True)
    return own, np.eye(len(classes))[own]


def _mean_silhouette(sums: Floats, sizes: Floats, own: Ints) -> float:
    """The mean silhouette of m points."""
    index = np.arange(len(own))
    others = sizes[own] - 1
    inside = np.divide(sums[index, own], others, out=np.zeros(len(own)), where=others > 0)
    means = np.divide(sums, sizes, out=np.full_like(sums, np.inf), where=sizes > 0)
    means[index, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    known = (others > 0) & (larger > 0)
    return float(np.divide(outside - inside, larger, out=np.zeros(len(own)), where=known).mean())


def silhouettes_without(apart: Floats, labels: Ints, groups: Ints) -> Floats:
    """The mean silhouette without each group in turn; NaN where one class is left.

    Args:
        apart: (n, n) distances.
        labels: (n,) classes.
        groups: (n,) group of each point, 0 ..
    """
    own, member = _memberships(labels)
    sums, sizes = apart @ member, member.sum(axis=0)
    found = np.full(int(groups.max()) + 1, np.nan)
    for group in range(len(found)):
        out = groups == group
        left = sizes - member[out].sum(axis=0)
        if np.count_nonzero(left) > 1:
            rest = sums[~out] - apart[np.ix_(~out, out)] @ member[out]
            found[group] = _mean_silhouette(rest, left, own[~out])
    return found


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far classes lie apart, in one space.

    Attributes:
        silhouette: mean silhouette with its interval over groups of points.
        without: (groups,) the silhouette without each group.
        within: mean distance of two points of one class (mean over the points).
        between: mean distance of two points of different classes.
    """

    silhouette: Estimate
    without: Floats
    within: float
    between: float


def separation(apart: Floats, labels: Ints, groups: Ints | None = None) -> Separation:
    """Scores points by their distances (n, n).

    Args:
        apart: (n, n); the interval takes them for given, also where they are of a plane that was fitted.
        labels: (n,) classes.
        groups: (n,) points that belong together (cells of one image), 0 ..; each point by default.

    Raises:
        ValueError: as :func:`silhouette`.
    """
    value = silhouette(apart, labels)
    without = silhouettes_without(apart, labels, np.arange(len(labels)) if groups is None else groups)
    same = labels[:, None] == labels[None]
    pairs = same & ~np.eye(len(labels), dtype=bool)
    return Separation(
        silhouette=with_jackknife(value, without),
        without=without,
        within=float(apart[pairs].mean()) if pairs.any() else 0.0,
        between=float(apart[~same].mean()),
    )


def silhouette_gain(a: Separation, b: Separation) -> Estimate:
    """Silhouette b less silhouette a of the same points and groups in two spaces, paired group by group."""
    return with_jackknife(b.silhouette.value - a.silhouette.value, b.without - a.without)
