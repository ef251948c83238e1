"""Formats numbers: scores are stored as fractions and shown in percent with one decimal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from fewseg.metrics import PairedDifference, TrainingsDifference, dice_of_miou


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score or a difference with its interval, all fractions."""

    value: float  # the estimate
    low: float  # lower end of its 95 % interval
    high: float  # upper end


def percent(value: float) -> str:
    """0.6183 as "61.8"."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign: 0.0103 as "+1.0"."""
    return f"{100 * value:+.1f}"


def with_interval(estimate: Estimate) -> str:
    """An estimate as "61.8 [60.9, 62.6]"."""
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def gain_with_interval(estimate: Estimate) -> str:
    """A difference as "+1.0 [+0.4, +1.6]"."""
    return f"{points(estimate.value)} [{points(estimate.low)}, {points(estimate.high)}]"


def fold_cells(folds: int, texts: Mapping[int, str]) -> dict[str, str]:
    """The text of each fold by the heading of its column; "-" for a fold without one."""
    return {f"fold {fold}": texts.get(fold, "-") for fold in range(folds)}


def estimate_of(paired: PairedDifference | TrainingsDifference) -> Estimate:
    """A difference with its interval."""
    return Estimate(value=paired.difference, low=paired.interval.low, high=paired.interval.high)


def dice_of(miou: Estimate, over: float = 0.0) -> Estimate:
    """Dice 2 m / (1 + m) of a mIoU m; of a gain over the mIoU ``over``, the gain in Dice."""
    ends = (min(max(over + end, 0.0), 1.0) for end in (miou.value, miou.low, miou.high))
    value, low, high = (dice_of_miou(end) - dice_of_miou(over) for end in ends)
    return Estimate(value=value, low=low, high=high)


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates, such as folds with different classes and models.

    The distance of each end from the mean is the root of the summed squares of the parts' distances, over
    their number: what errors of independent parts add up to. Lower and upper ends are kept apart.
    """
    if not estimates:
        raise ValueError("there is nothing to take the mean of: give one estimate at least")
    n = len(estimates)
    value = sum(e.value for e in estimates) / n
    below = sqrt(sum((e.value - e.low) ** 2 for e in estimates)) / n
    above = sqrt(sum((e.high - e.value) ** 2 for e in estimates)) / n
    return Estimate(value=value, low=value - below, high=value + above)
