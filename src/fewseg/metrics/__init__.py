"""Integer counts, the scores that follow from them, and how sure the scores are."""

from fewseg.metrics.counts import Counts, EpisodeCounts, count
from fewseg.metrics.scores import dice, fb_iou, miou, per_class

__all__ = ["Counts", "EpisodeCounts", "count", "dice", "fb_iou", "miou", "per_class"]
