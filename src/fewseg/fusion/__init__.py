"""How K shots become one answer."""

from fewseg.fusion.attention import ShotAttention
from fewseg.fusion.average import MeanVector, ScoreAverage
from fewseg.fusion.cross_guided import CrossGuided, CrossPath

GuideFusion = MeanVector | ShotAttention
"""Fusions that join the guides before the decoder: K shots cost one score."""

Fusion = GuideFusion | ScoreAverage | CrossGuided

__all__ = ["CrossGuided", "CrossPath", "Fusion", "GuideFusion", "MeanVector", "ScoreAverage", "ShotAttention"]
