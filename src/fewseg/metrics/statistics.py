"""Intervals: bootstrap over episodes or query images, paired differences, spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, stdev
from typing import Literal

import numpy as np
import numpy.typing as npt

from fewseg.metrics.counts import ANY_WAY, EpisodeCounts
from fewseg.metrics.scores import check_classes, dice, fb_iou, miou

Score = Literal["miou", "fb_iou", "dice"]
Over = Literal["episodes", "queries"]
Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.uint16]

_LEVEL = 0.95  # share of the resamples within an interval
_CHUNK = 64  # resamples drawn and multiplied at once


def resampled_scores(
    tables: Sequence[EpisodeCounts],
    classes: Sequence[int],
    resamples: int,
    seed: int,
    score: Score,
    over: Over = "episodes",
) -> list[Floats]:
    """Scores of ``resamples`` resamples of each table, the same drawn from all: (resamples,) each.

    A resample is a weight an episode, so that the sums of all resamples are one matrix product; integers
    below 2 ** 53 stay exact in it. Over "queries" an image is drawn with all its episodes, whatever their
    seed; an episode that does not say its query is an image of its own.
    """
    for table in tables:
        check_classes(table, classes)
    tables = [EpisodeCounts.join([t]) for t in tables]
    run_seeds = np.unique(tables[0].seed)
    totals = np.zeros((len(tables), resamples))
    of_seeds = [tables[0].select(tables[0].seed == s) for s in run_seeds]
    if over == "queries":
        query_numbers = _query_numbers(of_seeds)
        numbers: list[npt.NDArray[np.intp] | None] = [*query_numbers]
        images = 1 + max(int(of_seed.max()) for of_seed in query_numbers)
        drawn = resample_weights(seed, (images,), resamples) * len(of_seeds)
    else:
        numbers = [None] * len(of_seeds)
        drawn = resample_weights(seed, tuple(t.episodes for t in of_seeds), resamples)
    for run_seed, of_seed, number in zip(run_seeds, drawn, numbers, strict=True):
        columns = np.stack([_columns(t.select(t.seed == run_seed), classes, score) for t in tables])
        if number is not None:  # an image's episodes are drawn together: their sum is
            of_images = np.zeros((len(tables), of_seed.shape[1], columns.shape[2]))
            for of_image, rows in zip(of_images, columns, strict=True):
                np.add.at(of_image, number, rows)
            columns = of_images
        for start in range(0, resamples, _CHUNK):
            stop = min(start + _CHUNK, resamples)
            sums = of_seed[start:stop].astype(np.float64) @ columns
            totals[:, start:stop] += _mean_ratio(sums)
    return list(totals / len(run_seeds))


def _query_numbers(of_seeds: Sequence[EpisodeCounts]) -> list[npt.NDArray[np.intp]]:
    """The number of each episode's query image, the same in all seeds: (episodes,) for each table."""
    names = []
    for table in of_seeds:
        _, first = np.unique(table.episode, return_index=True)
        seed, episode, query = table.seed[first], table.episode[first], table.query[first]
        names.append([q or f"/{s}/{i}" for s, i, q in zip(seed, episode, query.tolist(), strict=True)])
    _, numbers = np.unique(np.concatenate(names), return_inverse=True)
    return np.split(numbers, np.cumsum([len(part) for part in names])[:-1])


@lru_cache(maxsize=2)
def resample_weights(seed: int, sizes: tuple[int, ...], resamples: int) -> tuple[Weights, ...]:
    """How often each of n is drawn in each resample: (resamples, n) for each n of ``sizes``.

    Kept for the next call: runs of one protocol, of which a table has hundreds, are resampled alike.
    """
    generator, starts = np.random.default_rng(seed), range(0, resamples, _CHUNK)

    def drawn(rows: int, n: int) -> Weights:
        items = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        return np.bincount(items.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint16)

    return tuple(np.concatenate([drawn(min(_CHUNK, resamples - k), n) for k in starts]) for n in sizes)


def _columns(table: EpisodeCounts, classes: Sequence[int], score: Score) -> Floats:
    """What is summed over episodes: the numerators of the score's ratios, then their denominators.

    The ratios of mIoU and Dice are of the classes, 0 where no way of the episode is of it; those of FB-IoU
    are of foreground and background, over the rows that :func:`fewseg.metrics.scores.fb_iou` looks at.
    """
    if score == "fb_iou":
        any_way = table.class_id == ANY_WAY
        table = table.select(any_way) if np.any(any_way) else table
        rows = np.stack([table.fg_inter, table.bg_inter, table.fg_union, table.bg_union], axis=1)
    else:
        member = table.class_id[:, None] == np.asarray(classes)[None, :]
        above, below = table.fg_inter, table.fg_union
        if score == "dice":
            above, below = 2 * table.fg_inter, table.fg_pred + table.fg_true
        rows = np.concatenate([member * above[:, None], member * below[:, None]], axis=1)
    _, starts = np.unique(table.episode, return_index=True)
    episodes: Floats = np.add.reduceat(rows, starts, axis=0).astype(np.float64)
    return episodes


def _mean_ratio(sums: Floats) -> Floats:
    """Mean of the ratios of what was drawn (classes, or the two grounds): (..., 2 C) to (...)."""
    above, below = np.split(sums, 2, axis=-1)
    drawn = below > 0
    ratio = np.divide(above, below, out=np.zeros_like(above), where=drawn)
    result: Floats = ratio.sum(axis=-1) / np.maximum(drawn.sum(axis=-1), 1)
    return result


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The 95 % percentile interval of bootstrap resamples, in the unit of the score (fractions).

    Attributes:
        low: lower end.
        high: upper end.
        standard_error: standard deviation of the resampled scores.
    """

    low: float
    high: float
    standard_error: float


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


def mean_score(table: EpisodeCounts, classes: Sequence[int], score: Score = "miou") -> float:
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


def bootstrap_score(
    table: EpisodeCounts,
    classes: Sequence[int],
    score: Score = "miou",
    *,
    over: Over = "episodes",
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of :func:`mean_score`.

    A class that a resample happens not to draw is left out of that resample's mean (it happens in runs of a
    few episodes only). The order of the rows does not matter; the same ``seed`` gives the same interval.

    Raises:
        ValueError: as :func:`mean_score`.
    """
    mean_score(table, classes, score)
    return interval_of(resampled_scores([table], classes, resamples, seed, score, over)[0])


def paired_difference(
    a: EpisodeCounts,
    b: EpisodeCounts,
    classes: Sequence[int],
    *,
    score: Score = "miou",
    over: Over = "episodes",
    resamples: int = 1000,
    seed: int = 0,
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
        interval=interval_of(differences),
        sign=sign,
        p_like=min(1.0, 2 * float(against)),
    )


DETECTED = NormalDist().inv_cdf((1 + _LEVEL) / 2) + NormalDist().inv_cdf(0.8)
"""Standard errors of a true difference that a two-sided 95 % interval tells from zero 8 times of 10."""


def minimum_detectable_difference(
    standard_error: float, *, episodes: int, planned: int | None = None
) -> float:
    """Smallest true difference that ``planned`` episodes find 8 times of 10, by a two-sided 95 % interval.

    Args:
        standard_error: of the difference, measured on ``episodes`` episodes (``PairedDifference.interval``).
            For two unpaired runs it is the root of the sum of the two squared standard errors.
        episodes: number of episodes behind ``standard_error``, all seeds together.
        planned: number of episodes asked about; the error falls with its root. Default ``episodes``.

    Returns:
        The difference, in the unit of ``standard_error``.
    """
    return DETECTED * standard_error * float(np.sqrt(episodes / (planned or episodes)))


def same_episodes(a: EpisodeCounts, b: EpisodeCounts) -> bool:
    """Whether two tables, in any order of rows, are of the same episodes (also images, if both have them)."""
    return _keys(a) == _keys(b) and _images_agree(a, b)


def check_same_episodes(a: EpisodeCounts, b: EpisodeCounts) -> None:
    """Raises a ValueError that names the first episode that differs, unless :func:`same_episodes`."""
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


def interval_of(scores: Floats) -> Interval:
    """The percentile interval of resampled scores."""
    low, high = np.quantile(scores, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    return Interval(low=low, high=high, standard_error=float(np.std(scores, ddof=1)))
