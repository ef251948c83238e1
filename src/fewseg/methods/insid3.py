"""INSID3: clusters of the query's own cells that match the support are gathered, without training.

Source: after INSID3 (Cuttano et al., CVPR 2026; arXiv 2603.28480). The paper's text was not at hand: the
order of the steps is its own; their formulas are this file's, so they bear no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import ABSENT, FewShotSegmenter, MethodConfig, sets_of_queries, warn_of_absent
from fewseg.methods.fusion import AllVectors, one_vs_rest
from fewseg.methods.registry import register_method
from fewseg.ops.masks import foreground_cells
from fewseg.ops.resize import resize
from fewseg.ops.similarity import best_match, foreground_keys, unit_cells
from fewseg.types import IGNORE, EncodedShots, Features, State, check_above, check_at_least

_LEAST_SIDE = 8
"""Cells of a grid's side below which there is nothing to cluster."""

_STEP = 0.1
"""Width of the step between cosines from which a cell is a candidate or not."""


@dataclass(frozen=True, kw_only=True)
class INSID3Config(MethodConfig):
    """What is clustered and compared.

    Attributes:
        backbone: the frozen network; any of timm's vision transformers, DINOv3 in the paper.
        level: the level that is clustered and compared.
        rank: most directions of the positional subspace, never more than half the channels.
        clusters: of a query's cells.
        threshold: evidence, in (0, 1), above which a cluster belongs to the object.
        alpha: factor of the evidence less the threshold in the logits.
        fusion: the cells of all shots are compared with.

    Raises:
        ValueError: a level is not the backbone's, or a number is out of range.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(name="vit_small_patch16_dinov3", levels=("layer4",))
    )
    level: str = "layer4"
    rank: int = 16
    clusters: int = 32
    threshold: float = 0.5
    alpha: float = 20.0
    fusion: AllVectors = field(default_factory=AllVectors)

    def __post_init__(self) -> None:
        self.backbone.check_gives((self.level,))
        check_at_least(self, 0, "rank")
        check_at_least(self, 2, "clusters")
        check_above(self, 0, "alpha")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {self.threshold}")


def positional_basis(maps: Tensor, rank: int) -> Tensor:
    """Orthonormal directions (C, rank) of the map (1, C, h, w) of an image that shows nothing.

    What varies there is place alone. They are the right singular vectors of its cells; directions that it
    does not have are zero.
    """
    cells = maps[0].flatten(1).T.float()
    _, values, directions = torch.linalg.svd(cells, full_matrices=False)
    rank = min(rank, len(maps[0]) // 2, len(values))
    basis: Tensor = (directions[:rank] * (values > 1e-3 * values[0])[:rank, None]).T
    return basis


def without_place(maps: Tensor, basis: Tensor) -> Tensor:
    """The maps (n, C, h, w) less their part in the subspace of a basis (C, r): (I - B B^T) F.

    Cells of which rounding alone is left become zeros.
    """
    rest = maps - torch.einsum("nchw,cr,dr->ndhw", maps, basis, basis)
    own: Tensor = rest.norm(dim=1, keepdim=True) > 1e-4 * maps.norm(dim=1, keepdim=True)
    return rest * own


def cluster_of_cells(maps: Tensor, count: int) -> Tensor:
    """The cluster (n, h * w), 0 .. count - 1, of each cell of maps (n, C, h, w).

    Cells of unit length are merged bottom up by Ward's criterion, until ``count`` clusters are left.
    """
    each = [
        torch.from_numpy(fcluster(linkage(cells, method="ward"), count, criterion="maxclust") - 1)
        for cells in unit_cells(maps).flatten(2).transpose(1, 2).cpu().double().numpy()
    ]
    return torch.stack(each).to(maps.device, torch.int64)


def cluster_means(maps: Tensor, cluster: Tensor, count: int) -> Tensor:
    """The mean (n, count, C) of the cells of maps (n, C, h, w) by their cluster (n, h * w)."""
    belongs = F.one_hot(cluster, count).to(maps.dtype)
    sizes = belongs.sum(dim=1).clamp(min=1).unsqueeze(2)
    return belongs.transpose(1, 2) @ maps.flatten(2).transpose(1, 2) / sizes


def candidates(foreground: Tensor, background: Tensor) -> Tensor:
    """1 for a cell whose best cosine to the support's foreground exceeds that to its background, else 0.

    The step has a width, so that rounding moves no cell by much.
    """
    return (0.5 + (foreground - background) / _STEP).clamp(0, 1)


def evidence(share: Tensor, across: Tensor, means: Tensor) -> Tensor:
    """How much each cluster belongs to the object: (n, k), 0 and above.

    The seed is the cluster whose share of candidate cells (n, k) times cosine to the support's prototype
    ``across`` (n, k) is largest. A cluster's evidence is its share, times its cosine to the prototype over
    the seed's, times the cosine of its mean (n, k, C) to the seed's. The seed's is thus its share.
    """
    across = across.clamp(min=0)
    rows, seed = torch.arange(len(share), device=share.device), (share * across).argmax(dim=1)
    unit = F.normalize(means, dim=2)
    alike = (unit @ unit[rows, seed].unsqueeze(2)).squeeze(2).clamp(min=0)
    return share * alike * across / across[rows, seed].clamp(min=1e-6).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class WayKeys:
    """What the K shots of one way show, of B support sets.

    Attributes:
        foreground, background: (B, P, C), cells of all shots without place, of unit length.
        is_foreground, is_background: (B, P), which of them are real.
        vectors: (B, C), mean of the foreground, of unit length.
    """

    foreground: Tensor
    is_foreground: Tensor
    background: Tensor
    is_background: Tensor
    vectors: Tensor


@dataclass(frozen=True, kw_only=True)
class INSID3State(State):
    """The cells of each of N ways."""

    ways: tuple[WayKeys, ...]


@register_method("insid3", INSID3Config)
class INSID3(FewShotSegmenter):
    """Clusters the query, finds the cluster most like the support, and gathers what is like both.

    Positions are taken out where cells of two images are compared, and left in where the cells of one image
    are clustered. Several ways are segmented one against the rest.

    Deviations: written from the paper's abstract and its outline, not from its formulas: the grey image,
    the rank, Ward's clusters of a given number, candidates by the nearest support cell, and the product that
    gathers clusters are choices of this file. Masks are not refined after the clusters.
    """

    config: INSID3Config
    fusions = (AllVectors(),)

    def __init__(self, config: INSID3Config) -> None:
        super().__init__(config)
        self._bases: dict[tuple[tuple[int, int], torch.device], Tensor] = {}
        self.backbone.register_load_state_dict_post_hook(self._forget_bases)  # type: ignore[no-untyped-call]

    def _forget_bases(self, *_: object) -> None:
        self._bases.clear()

    def basis(self, features: Features) -> Tensor:
        """The positional basis (C, r) at the images' size, of a grey image.

        It depends on the backbone alone, so that a model computes it once for each size; new weights make it
        anew.
        """
        device = features[self.config.level].device
        place = (features.image_size, device)
        if place not in self._bases:
            with torch.inference_mode(False), torch.no_grad():
                grey = torch.full((1, 3, *features.image_size), 0.5, device=device)
                self._bases[place] = positional_basis(self.maps(self.backbone(grey)), self.config.rank)
        return self._bases[place]

    def maps(self, features: Features) -> Tensor:
        """The level's map (n, C, h, w) in float32.

        Raises:
            ValueError: its grid is too small to be clustered.
        """
        maps: Tensor = features[self.config.level].float()
        clusters = self.config.clusters
        h, w = maps.shape[-2:]
        if min(h, w) < _LEAST_SIDE or h * w < clusters:
            raise ValueError(
                f"INSID3 needs a grid of {_LEAST_SIDE} x {_LEAST_SIDE} cells and as many cells as clusters "
                f"({clusters}), got {h} x {w} for images of {features.image_size}: give larger images"
                f"{' or fewer clusters' if min(h, w) >= _LEAST_SIDE else ''}"
            )
        return maps

    def encode_support(self, support: EncodedShots) -> INSID3State:
        """Keeps the supports' cells of both classes, without place."""
        self.check_support(support)
        with torch.autocast(support.masks.device.type, enabled=False):
            ways = tuple(self._way(support.one_way(j)) for j in range(1, support.ways + 1))
        present = [way.is_foreground.any(dim=1) for way in ways]
        warn_of_absent(torch.stack([torch.ones_like(present[0]), *present], dim=1))
        return INSID3State(ways=ways)

    def _way(self, support: EncodedShots) -> WayKeys:
        maps, basis = self.maps(support.features), self.basis(support.features)
        maps, masks = without_place(maps, basis), support.masks.flatten(0, 1)
        size, shots = (int(maps.shape[-2]), int(maps.shape[-1])), support.shots
        foreground = foreground_cells(masks, size) >= 0.5
        others = ((masks != 1) & (masks != IGNORE)).to(masks.dtype)
        background = (foreground_cells(others, size, small_objects="sampled") >= 0.5) & ~foreground

        def in_one_row(of_shots: Tensor) -> Tensor:
            rows: Tensor = of_shots.unflatten(0, (-1, shots)).transpose(1, 2).flatten(2, 3)
            return rows

        keys, valid = foreground_keys(in_one_row(maps), in_one_row(foreground))
        other_keys, other_valid = foreground_keys(in_one_row(maps), in_one_row(background))
        return WayKeys(
            foreground=keys,
            is_foreground=valid,
            background=other_keys,
            is_background=other_valid,
            vectors=F.normalize(keys.sum(dim=1), dim=1),
        )

    def segment(self, query: Features, state: INSID3State) -> Tensor:
        """Clusters every query once, and weighs its clusters for each way."""
        maps = self.maps(query)
        with torch.autocast(maps.device.type, enabled=False):
            clean = unit_cells(without_place(maps, self.basis(query)))
            cluster = cluster_of_cells(maps, self.config.clusters)
            margins = torch.stack([self._margins(maps, clean, cluster, way) for way in state.ways], dim=1)
        scores = torch.stack([torch.zeros_like(margins), margins], dim=2)
        return resize(scores[:, 0] if len(state.ways) == 1 else one_vs_rest(scores), query.image_size)

    def _margins(self, maps: Tensor, unit: Tensor, cluster: Tensor, way: WayKeys) -> Tensor:
        """The foreground's log-odds (n, h, w) of n queries under one way.

        Args:
            maps: (n, C, h, w), place included.
            unit: the same without place, cells of unit length.
            cluster: (n, h * w), of each cell.
            way: what the supports show.
        """
        config, of_set = self.config, sets_of_queries(way.vectors, len(maps))
        candidate = candidates(
            best_match(unit, way.foreground[of_set], way.is_foreground[of_set]),
            best_match(unit, way.background[of_set], way.is_background[of_set]),
        )
        share = cluster_means(candidate.unsqueeze(1), cluster, config.clusters).squeeze(2)
        compared = F.normalize(cluster_means(unit, cluster, config.clusters), dim=2)
        across = (compared @ way.vectors[of_set].unsqueeze(2)).squeeze(2)
        weights = evidence(share, across, cluster_means(unit_cells(maps), cluster, config.clusters))
        margins = config.alpha * (weights - config.threshold)
        margins = margins.masked_fill(~way.is_foreground[of_set].any(dim=1, keepdim=True), ABSENT)
        return margins.gather(1, cluster).view(-1, *maps.shape[-2:])
