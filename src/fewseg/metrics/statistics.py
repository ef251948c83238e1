"""How sure a score is: bootstrap over episodes, spread over seeds, paired differences.

The score of a run is the mean over its seeds of each seed's mIoU, as the papers report it. A resample draws,
within every seed, as many episodes as the seed has, with replacement and whatever their class, and scores
them like the run; an episode of several ways comes with all its ways. So an interval says how far the choice
of episodes moves the number for one trained model on one image list. It does not contain the spread of
training runs, nor that of other images. Where few images serve many episodes, that is far too little to say
that one method is better than another: over "queries" a resample draws query images, each with all its
episodes, which says how far other images of the same kind would move the number (other supports not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, stdev

import numpy as np

from fewseg.metrics.counts import EpisodeCounts
from fewseg.metrics.resampling import Floats, Over, Score, resampled_scores
from fewseg.metrics.scores import dice, fb_iou, miou


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile interval of bootstrap resamples, in the unit of the score (fractions).

    Attributes:
        low: lower end.
        high: upper end.
        level: share of the resamples between the ends, e.g. 0.95.
        standard_error: standard deviation of the resampled scores.
        resamples: how many there were.
    """

    low: float
    high: float
    level: float
    standard_error: float
    resamples: int


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Score of ``b`` less score of ``a`` on the same episodes.

    Attributes:
        difference: score (mIoU by default) of b minus that of a, a fraction in [-1, 1].
        interval: of the difference, over resamples that take the same episodes (or queries) from both.
        sign: 1, 0 or -1, of the difference.
        p_like: twice the share of resamples whose difference has not the sign found (a zero counts half), at
            most 1: small when the order of the two does not depend on the choice of episodes (or queries).
    """

    difference: float
    interval: Interval
    sign: int
    p_like: float


def mean_miou(table: EpisodeCounts, classes: Sequence[int]) -> float:
    """Mean over seeds of each seed's mIoU.

    Raises:
        ValueError: as :func:`fewseg.metrics.scores.per_class`, within any seed.
    """
    return mean_score(table, classes, "miou")


def mean_score(table: EpisodeCounts, classes: Sequence[int], score: Score) -> float:
    """Mean over seeds of each seed's score.

    Raises:
        ValueError: as the function of ``metrics.scores`` of that name, within any seed.
    """
    of_seeds = [table.select(table.seed == s) for s in np.unique(table.seed)]
    if score == "fb_iou":
        return float(np.mean([fb_iou(t) for t in of_seeds]))
    scored = dice if score == "dice" else miou
    return float(np.mean([scored(t, classes) for t in of_seeds]))


def std_over_seeds(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1) of one score a seed; None for a single seed, which has no spread."""
    return stdev(values) if len(values) > 1 else None


def bootstrap_miou(
    table: EpisodeCounts, classes: Sequence[int], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of :func:`mean_miou`; see :func:`bootstrap_score`.

    Raises:
        ValueError: as :func:`mean_miou`.
    """
    return bootstrap_score(table, classes, "miou", resamples=resamples, seed=seed, level=level)


def bootstrap_score(
    table: EpisodeCounts,
    classes: Sequence[int],
    score: Score,
    *,
    over: Over = "episodes",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of :func:`mean_score`.

    A class that a resample happens not to draw is left out of that resample's mean (it happens in runs of a
    few episodes only). The order of the rows does not matter; the same ``seed`` gives the same interval.

    Raises:
        ValueError: as :func:`mean_score`.
    """
    mean_score(table, classes, score)
    return _interval(resampled_scores([table], classes, resamples, seed, score, over)[0], level)


def paired_difference(
    a: EpisodeCounts,
    b: EpisodeCounts,
    classes: Sequence[int],
    *,
    score: Score = "miou",
    over: Over = "episodes",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Compares two methods on the same episodes, each resample drawing the same from both.

    Raises:
        ValueError: the two tables do not hold the same episodes (seed, index, class and, where both kept
            them, images), or as :func:`mean_score`.
    """
    check_same_episodes(a, b)
    difference = mean_score(b, classes, score) - mean_score(a, classes, score)
    of_a, of_b = resampled_scores([a, b], classes, resamples, seed, score, over)
    differences = of_b - of_a
    sign = (difference > 0) - (difference < 0)
    against = np.mean(np.sign(differences) == -sign) + np.mean(differences == 0) / 2 if sign else 1.0
    return PairedDifference(
        difference=difference,
        interval=_interval(differences, level),
        sign=sign,
        p_like=min(1.0, 2 * float(against)),
    )


def minimum_detectable_difference(
    standard_error: float,
    *,
    episodes: int,
    planned: int | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """Smallest true difference that ``planned`` episodes find with probability ``power`` at this level.

    Args:
        standard_error: of the difference, measured on ``episodes`` episodes (``PairedDifference.interval``).
            For two unpaired runs it is the root of the sum of the two squared standard errors.
        episodes: number of episodes behind ``standard_error``, all seeds together.
        planned: number of episodes asked about; the error falls with its root. Default ``episodes``.
        level: 1 less the rate of false alarms, two-sided.
        power: probability to find a difference of this size.

    Returns:
        The difference, in the unit of ``standard_error``.
    """
    normal = NormalDist()
    z = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return z * standard_error * float(np.sqrt(episodes / (planned or episodes)))


def same_episodes(a: EpisodeCounts, b: EpisodeCounts) -> bool:
    """Whether two tables, in any order of rows, are of the same episodes (also images, if both have them)."""
    return _keys(a) == _keys(b) and _images_agree(a, b)


def check_same_episodes(a: EpisodeCounts, b: EpisodeCounts) -> None:
    """Checks :func:`same_episodes`.

    Raises:
        ValueError: they are not the same; the message has the first that differs.
    """
    if same_episodes(a, b):
        return
    different = sorted(set(_keys(a)) ^ set(_keys(b)))
    if not different:
        raise ValueError(
            "the two runs drew other images for the same seeds and indices: evaluate both with one protocol "
            "on one image list"
        )
    seed, episode, class_id = different[0]
    apart = len({key[:2] for key in different})
    raise ValueError(
        f"the two runs are not of the same episodes: {a.episodes} and {b.episodes} episodes, "
        f"{apart} in one only, the first being seed {seed}, episode {episode}, class {class_id}: "
        "evaluate both with one protocol and the same seeds"
    )


def _keys(table: EpisodeCounts) -> list[tuple[int, int, int]]:
    return sorted(zip(table.seed.tolist(), table.episode.tolist(), table.class_id.tolist(), strict=True))


def _images_agree(a: EpisodeCounts, b: EpisodeCounts) -> bool:
    a, b = EpisodeCounts.join([a]), EpisodeCounts.join([b])
    query = (a.query == b.query) | (a.query == "") | (b.query == "")
    if a.supports.shape[1] == 0 or b.supports.shape[1] == 0:
        return bool(np.all(query))
    return bool(np.all(query)) and np.array_equal(a.supports, b.supports)


def _interval(scores: Floats, level: float) -> Interval:
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        low=float(low),
        high=float(high),
        level=level,
        standard_error=float(np.std(scores, ddof=1)),
        resamples=len(scores),
    )
