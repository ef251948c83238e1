"""How K shots become one answer."""

from fewseg.fusion.average import MeanVector, ScoreAverage
from fewseg.fusion.cross_guided import CrossGuided, CrossPath

Fusion = MeanVector | ScoreAverage | CrossGuided

__all__ = ["CrossGuided", "CrossPath", "Fusion", "MeanVector", "ScoreAverage"]
