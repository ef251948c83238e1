"""Integer counts, the scores that follow from them, and how sure the scores are."""

from fewseg.metrics.by_size import SIZE_EDGES, SizeBin, miou_by_size
from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts, count
from fewseg.metrics.resampling import Score
from fewseg.metrics.scores import dice, fb_iou, miou, per_class
from fewseg.metrics.statistics import (
    Interval,
    PairedDifference,
    bootstrap_miou,
    bootstrap_score,
    mean_miou,
    mean_score,
    minimum_detectable_difference,
    paired_difference,
    std_over_seeds,
)
from fewseg.metrics.way_counts import count_ways

__all__ = [
    "ANY_WAY",
    "SIZE_EDGES",
    "Counts",
    "EpisodeCounts",
    "Interval",
    "PairedDifference",
    "Score",
    "SizeBin",
    "bootstrap_miou",
    "bootstrap_score",
    "count",
    "count_ways",
    "dice",
    "fb_iou",
    "mean_miou",
    "mean_score",
    "minimum_detectable_difference",
    "miou",
    "miou_by_size",
    "paired_difference",
    "per_class",
    "std_over_seeds",
]
