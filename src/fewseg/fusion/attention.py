"""CANet's fusion: the shots stand side by side, and a learned attention weighs them inside the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewseg.fusion.average import MeanVector
from fewseg.types import Guides


@dataclass(frozen=True, kw_only=True)
class ShotAttention:
    """Weighs the K shots after the comparison with the query, by a branch of the decoder.

    The weights are the method's (``decoders.dense_comparison.ShotWeights``) and learned: train with
    K > 1, because with one shot its weight is 1 whatever the branch says and nothing is learned.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.4.
    """

    kind: Literal["attention"] = "attention"

    def join(self, guides: Guides, shots: int) -> Guides:
        """Puts B * K guides of one shot each side by side.

        Args:
            guides: shot axis running fastest, one shot each, V vectors a shot.
            shots: K.

        Returns:
            B guides of K * V vectors, those of one shot next to each other.
        """
        joined = MeanVector().join(guides, shots)
        vectors = guides.vectors.unflatten(0, (-1, shots)).flatten(1, 2)
        return Guides(vectors=vectors, keys=joined.keys, valid=joined.valid)
