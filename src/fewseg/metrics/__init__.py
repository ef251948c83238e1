"""Integer counts, the scores that follow from them, and how sure the scores are."""

from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts, count
from fewseg.metrics.scores import dice, fb_iou, miou, per_class
from fewseg.metrics.statistics import (
    Interval,
    PairedDifference,
    bootstrap_miou,
    mean_miou,
    minimum_detectable_difference,
    paired_difference,
    std_over_seeds,
)
from fewseg.metrics.way_counts import count_ways

__all__ = [
    "ANY_WAY",
    "Counts",
    "EpisodeCounts",
    "Interval",
    "PairedDifference",
    "bootstrap_miou",
    "count",
    "count_ways",
    "dice",
    "fb_iou",
    "mean_miou",
    "minimum_detectable_difference",
    "miou",
    "paired_difference",
    "per_class",
    "std_over_seeds",
]
