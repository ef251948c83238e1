"""How K shots become one answer."""

from fewseg.fusion.attention import ShotAttention
from fewseg.fusion.average import MeanVector, ScoreAverage
from fewseg.fusion.cross_guided import CrossGuided, CrossPath

Fusion = MeanVector | ScoreAverage | CrossGuided
"""Fusions that every pair scorer takes: they have no parameters."""

AnyFusion = Fusion | ShotAttention
"""The same, and the one that is learned by a method built for it."""

GuideFusion = MeanVector | ShotAttention
"""Fusions that join the guides before the decoder: K shots cost one score."""

__all__ = [
    "AnyFusion",
    "CrossGuided",
    "CrossPath",
    "Fusion",
    "GuideFusion",
    "MeanVector",
    "ScoreAverage",
    "ShotAttention",
]
