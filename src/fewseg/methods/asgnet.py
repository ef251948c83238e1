"""ASGNet: as many prototypes as the object is large, and for each query cell the one that fits it best.

Source: ASGNet (Li et al., CVPR 2021; arXiv 2104.01893), Sec. 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.fusion import AllFusion, AllVectors, CrossGuided, ScoreAverage
from fewseg.methods.layers import MidLevel, PyramidOutput, PyramidTrunk, Rounding, bin_size
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.prototypical import dot_products
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.similarity import unit_cells
from fewseg.types import (
    EncodedEpisodes,
    Features,
    Guides,
    LossTerms,
    QueryMaps,
    check_above,
    check_at_least,
)


@dataclass(frozen=True, kw_only=True)
class ASGNetConfig(PairConfig):
    """ASGNet's parts and sizes; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        region_cells: S_sp, cells of the object for one prototype.
        regions: N_max, most prototypes of a shot.
        iterations: of the clustering.
        spread: r, cells that weigh as much as a distance of 1 between features.
        scales: pyramid scales, see ``PyramidConfig``.
        rounding: of fractional scales to cells.
        fusion: how K shots become one answer; the prototypes of all shots are the paper's.
        deep_weight: weight of the inner classifiers' mean cross-entropy.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d in the classifiers.

    Raises:
        ValueError: a number is out of range.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer3", "layer2")
    region_cells: int = 100
    regions: int = 5
    iterations: int = 10
    spread: float = 10.0
    scales: tuple[float, ...] = (60, 30, 15, 8)
    rounding: Rounding = "down"
    fusion: AllFusion = field(default_factory=AllVectors)
    deep_weight: float = 1.0
    mid_dropout: float = 0.5
    head_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "region_cells", "regions", "iterations")
        check_above(self, 0, "spread")


def number_of_regions(cells: int, region_cells: int, most: int) -> int:
    """N_sp = min(N_m / S_sp, N_max), never more than the foreground cells; 0 and 1 are one average.

    Source: ASGNet (Li et al. 2021), Eq. 5.
    """
    return min(cells // region_cells, most)


def spread_seeds(places: Tensor, outside: Tensor, count: int) -> Tensor:
    """Indices (count,) of cells (P, 2) that lie as far as they can from the border and from each other.

    Each seed is the cell farthest from all cells outside (O, 2) and from the seeds before it.

    Source: ASGNet (Li et al. 2021), Sec. 4.1, which places seeds by the distance transform.
    """
    nearest = torch.cdist(places, outside).amin(dim=1)
    seeds = []
    for _ in range(count):
        seeds.append(nearest.argmax())
        nearest = torch.minimum(nearest, (places - places[seeds[-1]]).norm(dim=1))
    return torch.stack(seeds)


def clustered(cells: Tensor, places: Tensor, seeds: Tensor, iterations: int, spread: float) -> Tensor:
    """Superpixel centroids (k, d) of cells (P, d) at places (P, 2), from the seeds (k,).

    Each centroid is the mean of the cells by Q = exp(-D^2), D^2 the squared distance of the features plus
    that of the places over ``spread``. The sum over the cells is a softmax, so that none of them is lost to
    rounding.

    Source: ASGNet (Li et al. 2021), Eq. 2-4.
    """
    joined = torch.cat([cells, places / spread], dim=1)
    centroids = joined[seeds]
    for _ in range(iterations):
        distance = (
            centroids.square().sum(dim=1, keepdim=True)
            - 2 * centroids @ joined.T
            + joined.square().sum(dim=1)
        )
        centroids = (-distance).softmax(dim=1) @ joined
    return centroids[:, : cells.shape[1]]


def allocated(query: Tensor, vectors: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """For each query cell the prototype of the largest cosine (n, d, h, w), and the sum of all (n, 1, h, w).

    Source: ASGNet (Li et al. 2021), Eq. 6-8.

    Args:
        query: (n or 1, d, h, w).
        vectors: (n, V, d).
        exists: (n, V, 1), 1 for prototypes that exist.
    """
    unit = unit_cells(query).expand(len(vectors), -1, -1, -1)
    cosine = dot_products(unit, F.normalize(vectors, dim=2))
    exists = exists[..., None] > 0
    best = cosine.masked_fill(~exists, -2.0).argmax(dim=1)
    guide = vectors.gather(1, best.flatten(1).unsqueeze(2).expand(-1, -1, vectors.shape[2]))
    total = (cosine * exists).sum(dim=1, keepdim=True)
    return guide.transpose(1, 2).unflatten(2, query.shape[2:]), total


@register_method("asgnet", ASGNetConfig)
class ASGNet(PairScorer):
    """Clusters the support to prototypes and gives each query cell the nearest, in PFENet's decoder.

    Deviations: r, which the paper leaves open, is ``spread``; training and inference cluster as often.
    """

    config: ASGNetConfig
    fusions = (AllVectors(), ScoreAverage(), CrossGuided())

    def __init__(self, config: ASGNetConfig) -> None:
        super().__init__(config)
        d, width = config.channels, self.backbone.width(config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout)
        self.joined = nn.Sequential(nn.Conv2d(2 * d + 1, d, 1, bias=False), nn.ReLU(inplace=True))
        self.trunk = PyramidTrunk(d, scales=len(config.scales), dropout=config.head_dropout)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Prototypes (n, N_max, d) of n shots, zero where there are fewer, and which exist (n, N_max, 1)."""
        maps = self.mid.of(features)
        cells = self.cells(masks, maps)
        means = masked_average(maps, cells).unsqueeze(1)
        most = self.config.regions
        vectors, exists = [], []
        for shot_maps, inside, mean in zip(maps, cells[:, 0] >= 0.5, means, strict=True):
            prototypes = self._prototypes(shot_maps, inside, mean)
            vectors.append(F.pad(prototypes, (0, 0, 0, most - len(prototypes))))
            exists.append(F.pad(prototypes.new_ones(len(prototypes), 1), (0, 0, 0, most - len(prototypes))))
        return Guides(maps={"vectors": torch.stack(vectors), "found": torch.stack(exists)})

    def _prototypes(self, maps: Tensor, inside: Tensor, mean: Tensor) -> Tensor:
        """Prototypes (k, d) of a map (d, h, w) in its mask (h, w); its mean (1, d) where one will do."""
        config = self.config
        count = number_of_regions(int(inside.sum()), config.region_cells, config.regions)
        if count < 2:
            return mean
        border = F.pad(inside, (1, 1, 1, 1))  # what lies beyond the image is outside
        places, outside = (mask.nonzero().to(maps.dtype) for mask in (border, ~border))
        seeds = spread_seeds(places.float(), outside.float(), count)
        return clustered(maps[:, inside].T, places, seeds, config.iterations, config.spread)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features))

    def decode(self, query: QueryMaps, guides: Guides, *, deep: bool) -> PyramidOutput:
        """Joins query, allocated prototypes and their summed cosines, and enriches them at every scale."""
        guide, total = allocated(query.mid, guides["vectors"], guides["found"])
        maps = query.mid.expand(len(guide), -1, -1, -1)
        joined = self.joined(torch.cat([maps, guide, total.to(maps.dtype)], dim=1))
        sizes = [bin_size(scale, query.size, self.config.rounding) for scale in self.config.scales]
        merged = [joined if size == query.size else F.adaptive_avg_pool2d(joined, size) for size in sizes]
        out: PyramidOutput = self.trunk(merged, query.size, deep=deep)
        return out

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        return self.decode(query, guides, deep=False).logits

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query and of the inner classifiers, on the prototypes of all K shots."""
        support, masks = episodes.support, episodes.query_masks
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        out = self.decode(
            self.encode_query(episodes.query), AllVectors().join(guides, support.shots), deep=True
        )
        terms = {
            "query": cross_entropy_full_size(out.logits, masks),
            "query_deep": deep_supervision(out.inner, masks),
        }
        return LossTerms(terms=terms, weights={"query_deep": self.config.deep_weight})
