"""Prototypes: pooling of N ways and K shots (SRPNet, Eq. 1-2) and the metrics D that compare cells with them.

Each metric has ``prepare``, done once for a map, and ``compare``, done for every set of prototypes, so that
iterated prototypes cost one matrix product each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.pooling import masked_averages
from fewseg.ops.resize import pixels_to_cells


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
        """The map, unchanged: lengths count."""
        return maps

    def start(self, prototypes: Tensor) -> Tensor:
        """The prototypes, unchanged."""
        return prototypes

    def compare(self, cells: Tensor, prototypes: Tensor) -> Tensor:
        """D of cells (n, C, h, w) and prototypes (n, P, C): (n, P, h, w)."""
        lengths = cells.square().sum(dim=1, keepdim=True)
        own = prototypes.square().sum(dim=2)[..., None, None]
        return 2 * dot_products(cells, prototypes) - lengths - own


Metric = Cosine | Fidelity | SquaredEuclidean


AREA_EPS = 1e-5
"""Added to a mask's area, in pixels, so that an empty mask pools to zeros (PANet's constant)."""


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """Prototypes (B, 1 + N, C) of B support sets, background first; zeros where a class is not shown.

    ``present`` (B, 1 + N): whether it is. ``vanished`` (B, S): whether a mask is so small that it fills half
    of no cell of the feature grid; its prototype is then that of the cells nearest to its pixels.
    """

    vectors: Tensor
    present: Tensor
    vanished: Tensor


def pool_prototypes(
    maps: Tensor, masks: Tensor, way_of: Sequence[int], *, align_corners: bool = True
) -> Prototypes:
    """Masked average pooling of each class over its shots, and of the background over all of them.

    The features (B * S, C, h, w) are pooled as if they were brought to the size of the masks (B, S, H, W)
    first (PANet), without ever being: the masks are brought to the cells by the adjoint instead. A shot
    without a pixel of the class takes no part in the class's mean.

    Source: SRPNet (Ding et al. 2022), Eq. 1 and 2; PANet (Wang et al. 2019), Eq. 1 and 2.
    """
    episodes, shots = masks.shape[:2]
    way = torch.tensor(tuple(way_of), device=masks.device).view(1, -1, 1, 1)
    foreground = (masks == way).flatten(0, 1)
    size = (int(maps.shape[-2]), int(maps.shape[-1]))
    regions = torch.stack([foreground, (masks == 0).flatten(0, 1)], dim=1)
    cells = pixels_to_cells(regions.flatten(0, 1), size, align_corners=align_corners)
    vectors = masked_averages(maps.float(), cells.view(-1, 2, *size), AREA_EPS)
    own, background = vectors.unflatten(0, (episodes, shots)).unbind(2)
    has_own = foreground.flatten(1).any(dim=1).view(episodes, shots)
    has_background = (masks == 0).flatten(2).any(dim=2)
    classes, present = [_mean(background, has_background)], [has_background.any(dim=1)]
    for j in range(1, max(way_of) + 1):
        places = [k for k, w in enumerate(way_of) if w == j]
        classes.append(_mean(own[:, places], has_own[:, places]))
        present.append(has_own[:, places].any(dim=1))
    area = pixels_to_cells(torch.ones_like(foreground[:1]), size, align_corners=align_corners)
    filled = cells.view(-1, 2, *size)[:, 0] / area[:, 0]
    covered = filled.flatten(1).amax(dim=1) >= 0.5
    return Prototypes(
        vectors=torch.stack(classes, dim=1),
        present=torch.stack(present, dim=1),
        vanished=has_own & ~covered.view(episodes, shots),
    )


def _mean(vectors: Tensor, counted: Tensor) -> Tensor:
    """Mean over the shots (B, K, C) that count (B, K); zeros where none does."""
    weights = counted.to(vectors.dtype).unsqueeze(2)
    return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
