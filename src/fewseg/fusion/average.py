"""Fusions that weigh every shot alike: of vectors before the decoder, or of scores after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.types import Guides


@dataclass(frozen=True, kw_only=True)
class MeanVector:
    """Mean of the K support vectors and of the K prior maps, then one decoding.

    Source: the K-shot default of PFENet (Tian et al. 2020) and of SCL's baselines (Table 4, "Baseline").
    """

    kind: Literal["mean"] = "mean"

    def join(self, guides: Guides, shots: int) -> Guides:
        """Joins B * K guides of one shot each into B guides.

        Args:
            guides: shot axis running fastest, one shot each.
            shots: K.

        Returns:
            B guides: the mean vectors, and the K shots' keys side by side.
        """
        vectors = guides.vectors.unflatten(0, (-1, shots)).mean(dim=1)
        keys = guides.keys.squeeze(1).unflatten(0, (-1, shots))
        valid = guides.valid.squeeze(1).unflatten(0, (-1, shots))
        return Guides(vectors=vectors, keys=keys, valid=valid)


@dataclass(frozen=True, kw_only=True)
class ScoreAverage:
    """Mean of the K shots' scores.

    Source: SCL (Zhang et al. 2021), Table 4, "Avg.".
    """

    kind: Literal["average"] = "average"

    def weights(self, episodes: int, shots: int, device: torch.device) -> Tensor:
        """(B, K), each 1 / K."""
        return torch.full((episodes, shots), 1.0 / shots, device=device)
