"""PPNet: each class is a set of part prototypes, found by k-means and aware of each other.

Source: PPNet (Liu et al., ECCV 2020; arXiv 2007.06309), Sec. 3, in the form without unlabelled images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import MethodConfig
from fewseg.methods.fusion import AllVectors
from fewseg.methods.prototypical import (
    EMBEDDING,
    Cosine,
    Prototypes,
    PrototypeSegmenter,
    pool_prototypes,
)
from fewseg.methods.registry import register_method
from fewseg.ops.resize import pixels_to_cells
from fewseg.types import EncodedShots, Features, check_above, check_at_least


@dataclass(frozen=True, kw_only=True)
class PPNetConfig(MethodConfig):
    """PPNet's parts.

    Attributes:
        backbone: trained end to end.
        level: the level that is compared.
        parts: N_p, prototypes of a class; fewer where the supports show fewer cells of it.
        context: lambda_p of Eq. 4, the weight of the other parts in each.
        iterations: of k-means.
        alpha: amplification of the cosine.
        fusion: the cells of all shots are clustered together.

    Raises:
        ValueError: a level is not the backbone's, or a number is out of range.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(levels=("layer4",), trainable=True)
    )
    level: str = "layer4"
    parts: int = 5
    context: float = 0.8
    iterations: int = 10
    alpha: float = 20.0
    fusion: AllVectors = field(default_factory=AllVectors)

    def __post_init__(self) -> None:
        self.backbone.check_gives((self.level,))
        check_above(self, 0, "alpha")
        check_at_least(self, 1, "parts", "iterations")
        check_at_least(self, 0, "context")


def k_means(cells: Tensor, count: int, iterations: int = 10) -> Tensor:
    """Means (k, C) of the clusters of cells (P, C) by direction, k the smaller of ``count`` and P.

    The first centre is the cell nearest to the mean, each other one the cell farthest from those before, so
    that nothing is drawn. A cluster that loses all its cells keeps its centre. Gradients reach the cells
    through the means.

    Source: PPNet (Liu et al. 2020), Eq. 3.
    """
    with torch.no_grad():
        unit = F.normalize(cells, dim=1)
        centres = unit[(unit @ unit.mean(dim=0)).argmax()].unsqueeze(0)
        for _ in range(min(count, len(cells)) - 1):
            centres = torch.cat([centres, unit[(unit @ centres.T).amax(dim=1).argmin()].unsqueeze(0)])
        for _ in range(iterations):
            assignment = F.one_hot((unit @ centres.T).argmax(dim=1), len(centres)).to(unit.dtype)
            empty = (assignment.sum(dim=0) == 0).unsqueeze(1)
            centres = torch.where(empty, centres, F.normalize(assignment.T @ unit, dim=1))
        assignment = F.one_hot((unit @ centres.T).argmax(dim=1), len(centres)).to(unit.dtype)
    sums, sizes = assignment.T.to(cells.dtype) @ cells, assignment.sum(dim=0).unsqueeze(1)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), centres.to(cells.dtype))


def with_context(parts: Tensor, weight: float) -> Tensor:
    """Adds to each part (k, C) the others, weighted by their share of its cosines.

    Source: PPNet (Liu et al. 2020), Eq. 4-5.
    """
    if len(parts) < 2:
        return parts
    unit = F.normalize(parts, dim=1)
    similarity = (unit @ unit.T).clamp(min=0) * (1 - torch.eye(len(parts), device=parts.device))
    return parts + weight * (similarity / similarity.sum(dim=1, keepdim=True).clamp(min=1e-6)) @ parts


@register_method("ppnet", PPNetConfig)
class PPNet(PrototypeSegmenter):
    """Compares each cell with several parts of a class and takes the best, background included.

    Deviations: without unlabelled images, so without the graph network that enriches the parts by them, and
    without the semantic loss, which needs the class names of the training episodes; k-means starts from
    far-apart cells.
    """

    config: PPNetConfig
    fusions = (AllVectors(),)

    def __init__(self, config: PPNetConfig) -> None:
        super().__init__(config)
        self.metric, self.alpha = Cosine(), config.alpha

    def embed_maps(self, features: Features) -> Tensor:
        """The backbone's map, unchanged."""
        return features[self.config.level]

    def pooled(self, support: EncodedShots) -> Prototypes:
        """The parts of B support sets side by side (B, (1 + N) * N_p, C), background first."""
        maps, masks = self.embed(support.features)[EMBEDDING], support.masks
        averages = pool_prototypes(maps, masks, support.way_of)
        size, shots = (int(maps.shape[-2]), int(maps.shape[-1])), support.shots
        cells = maps.flatten(2).transpose(1, 2).unflatten(0, (-1, shots))
        vectors = []
        for j in range(1 + support.ways):
            of_class = pixels_to_cells((masks == j).flatten(0, 1), size).flatten(1).unflatten(0, (-1, shots))
            places = [k for k, way in enumerate(support.way_of) if j in (0, way)]
            for b in range(len(masks)):
                vectors.append(self._parts(cells[b, places], of_class[b, places], averages.vectors[b, j]))
        parts = torch.stack(vectors).unflatten(0, (1 + support.ways, -1)).transpose(0, 1).flatten(1, 2)
        return Prototypes(vectors=parts, present=averages.present, vanished=averages.vanished)

    def _parts(self, cells: Tensor, shares: Tensor, mean: Tensor) -> Tensor:
        """Parts (N_p, C) of the cells (K, P, C) with pixels of a class (K, P); its mean where none has."""
        most = shares.amax(dim=1, keepdim=True)
        inside = (shares >= 0.5 * most) & (most > 0)
        count = self.config.parts
        if not bool(inside.any()):
            return mean.expand(count, -1)
        parts = with_context(k_means(cells[inside], count, self.config.iterations), self.config.context)
        return torch.cat([parts, parts[:1].expand(count - len(parts), -1)])

    def scores(self, prepared: Tensor, prototypes: Tensor) -> Tensor:
        """Alpha times the largest cosine among the parts of each class, (n, 1 + N, h, w) (Eq. 6)."""
        cosines = super().scores(prepared, prototypes)
        best: Tensor = cosines.unflatten(1, (-1, self.config.parts)).amax(dim=2)
        return best
