"""How K shots become one answer."""

from fewseg.fusion.average import MeanVector, ScoreAverage
from fewseg.fusion.cross_guided import CrossGuided, CrossPath
from fewseg.fusion.iterative import Collected, IterativeInference

PairFusion = MeanVector | ScoreAverage | CrossGuided
"""Of methods that score (query, guide) pairs."""

PrototypeFusion = MeanVector | IterativeInference
"""Of methods that compare with prototypes."""

Fusion = MeanVector | ScoreAverage | CrossGuided | IterativeInference

__all__ = [
    "Collected",
    "CrossGuided",
    "CrossPath",
    "Fusion",
    "IterativeInference",
    "MeanVector",
    "PairFusion",
    "PrototypeFusion",
    "ScoreAverage",
]
