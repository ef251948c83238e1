"""How like a cell's feature is to a prototype: the D of SRPNet's Eq. 3.

Each metric has ``prepare``, done once for a map, and ``compare``, done for every set of prototypes, so that
iterated prototypes cost one matrix product each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def dot_products(cells: Tensor, prototypes: Tensor) -> Tensor:
    """Dot product of every cell with every prototype: (n, C, h, w), (n, P, C) to (n, P, h, w)."""
    rows = cells.permute(0, 2, 3, 1).flatten(1, 2)  # a view of a channels-last map
    products: Tensor = torch.bmm(prototypes, rows.transpose(1, 2)).unflatten(2, cells.shape[-2:])
    return products


class UnitVectors:
    """What the metrics of directions share: cells and prototypes of unit length (SRPNet Eq. 5)."""

    def prepare(self, maps: Tensor) -> Tensor:
        """Scales every cell of (n, C, h, w) to unit length."""
        return F.normalize(maps, dim=1)

    def start(self, prototypes: Tensor) -> Tensor:
        """Scales every prototype of (n, P, C) to unit length; zeros stay zeros."""
        return F.normalize(prototypes, dim=2)

    def cosines(self, cells: Tensor, prototypes: Tensor) -> Tensor:
        """Cosines of prepared cells (n, C, h, w) and prototypes (n, P, C): (n, P, h, w)."""
        return dot_products(cells, self.start(prototypes))


@dataclass(frozen=True, kw_only=True)
class Cosine(UnitVectors):
    """The cosine of the angle, in [-1, 1]; 0 for a zero prototype.

    Source: PANet (Wang et al. 2019), Eq. 3; SRPNet's baseline "Cos" (Table 1).
    """

    kind: Literal["cosine"] = "cosine"

    def compare(self, cells: Tensor, prototypes: Tensor) -> Tensor:
        """D of prepared cells (n, C, h, w) and prototypes (n, P, C): (n, P, h, w)."""
        return self.cosines(cells, prototypes)


@dataclass(frozen=True, kw_only=True)
class Fidelity(UnitVectors):
    """The fidelity of the two density matrices, which is the squared cosine, in [0, 1].

    With unit vectors f and p: f (p^T p) f^T = (f . p)^2; the outer product is never formed.

    Source: SRPNet (Ding et al. 2022), Eq. 5-6.
    """

    kind: Literal["fidelity"] = "fidelity"

    def compare(self, cells: Tensor, prototypes: Tensor) -> Tensor:
        """D of prepared cells (n, C, h, w) and prototypes (n, P, C): (n, P, h, w)."""
        return self.cosines(cells, prototypes).square()


@dataclass(frozen=True, kw_only=True)
class SquaredEuclidean:
    """The negated squared distance, at most 0.

    Source: prototypical networks (Snell et al. 2017), named beside Eq. 5 of SRPNet (Ding et al. 2022).
    """

    kind: Literal["squared-euclidean"] = "squared-euclidean"

    def prepare(self, maps: Tensor) -> Tensor:
        """The map as it is: lengths count."""
        return maps

    def start(self, prototypes: Tensor) -> Tensor:
        """The prototypes as they are."""
        return prototypes

    def compare(self, cells: Tensor, prototypes: Tensor) -> Tensor:
        """D of cells (n, C, h, w) and prototypes (n, P, C): (n, P, h, w)."""
        lengths = cells.square().sum(dim=1, keepdim=True)
        own = prototypes.square().sum(dim=2)[..., None, None]
        return 2 * dot_products(cells, prototypes) - lengths - own


Metric = Cosine | Fidelity | SquaredEuclidean
