"""Prototypes: one vector a class, pooled from the supports, and how a cell is compared with it."""

from fewseg.prototypes.metric import Cosine, Fidelity, Metric, SquaredEuclidean
from fewseg.prototypes.pooling import Prototypes, pool_prototypes

__all__ = ["Cosine", "Fidelity", "Metric", "Prototypes", "SquaredEuclidean", "pool_prototypes"]
