"""Differences between methods of several trainings each, with the noise of training in the interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import variance

import numpy as np

from fewseg.metrics.counts import EpisodeCounts
from fewseg.metrics.statistics import (
    DETECTED,
    Floats,
    Interval,
    check_same_episodes,
    interval_of,
    mean_score,
    resampled_scores,
)


@dataclass(frozen=True, kw_only=True)
class TrainingsDifference:
    """Mean mIoU of the trainings of ``b`` less that of the trainings of ``a``, on the same episodes.

    Attributes:
        difference: a fraction in [-1, 1].
        interval: over resamples of the trainings of each method and of the query images.
        trainings: how many there are of a and of b. With one of either the interval does not hold the noise
            of that method's training.
        training_error: standard deviation, over pairs of trainings, of the difference between one training
            of b and one of a, a fraction. A method with one training adds nothing to it.
        image_error: standard error of the difference over query images alone, a fraction.
    """

    difference: float
    interval: Interval
    trainings: tuple[int, int]
    training_error: float
    image_error: float

    def trainings_needed(self) -> int | None:
        """How many trainings of each method would show a true difference of this size 8 times of 10.

        Returns:
            At least 2; None where no number is enough, since the query images are too few.
        """
        margin = (self.difference / DETECTED) ** 2 - self.image_error**2
        return max(2, ceil(self.training_error**2 / margin)) if margin > 0 else None


def trainings_difference(
    a: Sequence[EpisodeCounts],
    b: Sequence[EpisodeCounts],
    classes: Sequence[int],
    *,
    same: bool = False,
    resamples: int = 1000,
) -> TrainingsDifference:
    """Compares the mIoU of two methods on the same episodes by several trainings of each.

    Each resample draws query images, the same for all trainings, and of each method as many trainings as
    there are, with replacement. S drawn trainings vary less than new ones would, by (S - 1) / S of the
    variance; their distance from the mean is enlarged by the root of the inverse.

    Args:
        a: the counts of each training of the method that is measured against.
        b: those of the other.
        classes: the tested classes.
        same: whether the i-th of both are the same weights, used in two ways: they are drawn together.
        resamples: how many.

    Raises:
        ValueError: a method has no training, the tables do not hold the same episodes, or there are not as
            many of both where they are the same weights.
    """
    if not a or not b or (same and len(a) != len(b)):
        needed = "as many trainings as the other" if same else "1 training at least"
        raise ValueError(f"each method needs {needed}, got {len(a)} and {len(b)}")
    for table in (*a[1:], *b):
        check_same_episodes(a[0], table)
    scores = [[mean_score(table, classes) for table in of_method] for of_method in (a, b)]
    difference = float(np.mean(scores[1]) - np.mean(scores[0]))
    drawn = np.stack(resampled_scores([*a, *b], classes, resamples, 0, "miou", "queries"))
    of_a, of_b = drawn[: len(a)], drawn[len(a) :]
    generator = np.random.default_rng((0, 1))
    if same:
        differences = _drawn_trainings(of_b - of_a, generator)
        scores = [[second - first for first, second in zip(*scores, strict=True)]]
    else:
        differences = -_drawn_trainings(of_a, generator) + _drawn_trainings(of_b, generator)
    return TrainingsDifference(
        difference=difference,
        interval=interval_of(differences),
        trainings=(len(a), len(b)),
        training_error=sqrt(sum(variance(values) for values in scores if len(values) > 1)),
        image_error=float(np.std(of_b.mean(axis=0) - of_a.mean(axis=0), ddof=1)),
    )


def trainings_interval(
    tables: Sequence[EpisodeCounts], classes: Sequence[int], *, resamples: int = 1000
) -> Interval:
    """The interval of a method's mean mIoU over several trainings, resampled as in the difference.

    Raises:
        ValueError: there is no training, or the tables do not hold the same episodes.
    """
    if not tables:
        raise ValueError("a method needs 1 training at least, got 0")
    for table in tables[1:]:
        check_same_episodes(tables[0], table)
    drawn = np.stack(resampled_scores(tables, classes, resamples, 0, "miou", "queries"))
    return interval_of(_drawn_trainings(drawn, np.random.default_rng((0, 1))))


def _drawn_trainings(scores: Floats, generator: np.random.Generator) -> Floats:
    """The mean of S trainings drawn from S for each resample of the images: (S, n) to (n,)."""
    count, resamples = scores.shape
    mean: Floats = scores.mean(axis=0)
    if count == 1:
        return mean
    chosen = generator.integers(0, count, size=(count, resamples))
    drawn: Floats = np.take_along_axis(scores, chosen, axis=0).mean(axis=0)
    return mean + sqrt(count / (count - 1)) * (drawn - mean)
