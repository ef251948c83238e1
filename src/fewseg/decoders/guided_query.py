"""PFENet's query path: mid-level feature, prior map and merge, in front of a trunk it may share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fewseg.decoders.merge import GuideMerge
from fewseg.decoders.mid_level import MidLevel
from fewseg.decoders.prior import PriorConfig
from fewseg.types import Features, Guides, QueryMaps


class GuidedQuery(nn.Module):
    """Encodes a query once and merges it with any number of guides.

    Source: PFENet (Tian et al. 2020), Sec. 3; SCL's query FPM (Zhang et al. 2021, Eq. 11) with V = 2.

    Args:
        mid: the query's mid-level feature.
        channels: d.
        vectors: V, guide vectors of one guide.
        prior: the prior map or none.
        scales: pyramid scales, see ``merge.bin_size``.
        extra_channels: of further maps that a method merges behind the prior (SD-AANet's attention).
    """

    def __init__(
        self,
        mid: MidLevel,
        *,
        channels: int,
        vectors: int,
        prior: PriorConfig,
        scales: Sequence[float],
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.mid = mid
        self.prior = prior
        planes = prior.channels + extra_channels
        self.merge = GuideMerge(channels, vectors=vectors, prior_channels=planes, scales=scales)

    def encode(self, features: Features) -> QueryMaps:
        """The query's mid-level feature, and the map that its prior compares."""
        return QueryMaps(mid=self.mid.of(features), prior=self.prior.query_map(features))

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """(n, 1, h, w) in [0, 1]; zero channels without a prior."""
        size = (query.mid.shape[-2], query.mid.shape[-1])
        return self.prior.compare(query.prior, guides.keys, guides.valid, size).to(query.mid.dtype)

    def forward(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> list[Tensor]:
        """Merged maps of n (query, guide) pairs, one (n, d, h_b, w_b) a scale.

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides.
            prior: their ``prior_map``, where it is known already.
        """
        planes = self.prior_map(query, guides) if prior is None else prior
        merged: list[Tensor] = self.merge(query.mid, guides.vectors, planes)
        return merged
