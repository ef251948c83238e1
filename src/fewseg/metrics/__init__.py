"""Integer counts, the scores that follow from them, and how sure the scores are."""

from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts, count, count_ways
from fewseg.metrics.scores import (
    SIZE_EDGES,
    SizeBin,
    dice,
    dice_of_miou,
    fb_iou,
    miou,
    miou_by_size,
    per_class,
)
from fewseg.metrics.statistics import (
    Interval,
    PairedDifference,
    Score,
    bootstrap_score,
    mean_score,
    minimum_detectable_difference,
    paired_difference,
    std_over_seeds,
)
from fewseg.metrics.trainings import TrainingsDifference, trainings_difference, trainings_interval

__all__ = [
    "ANY_WAY",
    "SIZE_EDGES",
    "Counts",
    "EpisodeCounts",
    "Interval",
    "PairedDifference",
    "Score",
    "SizeBin",
    "TrainingsDifference",
    "bootstrap_score",
    "count",
    "count_ways",
    "dice",
    "dice_of_miou",
    "fb_iou",
    "mean_score",
    "minimum_detectable_difference",
    "miou",
    "miou_by_size",
    "paired_difference",
    "per_class",
    "std_over_seeds",
    "trainings_difference",
    "trainings_interval",
]
