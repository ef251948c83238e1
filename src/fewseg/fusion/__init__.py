"""How K shots become one answer."""

from fewseg.fusion.attention import ShotAttention
from fewseg.fusion.average import MeanVector, ScoreAverage
from fewseg.fusion.cross_guided import CrossGuided, CrossPath
from fewseg.fusion.iterative import Collected, IterativeInference

PairFusion = MeanVector | ScoreAverage | CrossGuided
"""Of methods that score (query, guide) pairs."""

PrototypeFusion = MeanVector | IterativeInference
"""Of methods that compare with prototypes."""

AttendedFusion = PairFusion | ShotAttention
"""Of methods that score pairs and can weigh the shots of one guide."""

GuideFusion = MeanVector | ShotAttention
"""Those that join the guides before the decoder: K shots cost one score."""

Fusion = MeanVector | ScoreAverage | CrossGuided | ShotAttention | IterativeInference

__all__ = [
    "AttendedFusion",
    "Collected",
    "CrossGuided",
    "CrossPath",
    "Fusion",
    "GuideFusion",
    "IterativeInference",
    "MeanVector",
    "PairFusion",
    "PrototypeFusion",
    "ScoreAverage",
    "ShotAttention",
]
