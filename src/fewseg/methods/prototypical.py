"""What methods that compare every cell with a prototype a class share: PANet, SRPNet and the matcher.

The metrics D, the pooling of N ways and K shots, and the base class. A metric has ``prepare``, done once for
a map, and ``compare``, done for every set of prototypes: iterated ones cost one matrix product each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.methods.base import FewShotSegmenter, sets_of_queries, warn_of_absent, without_absent
from fewseg.methods.fusion import Fusion, IterativeInference, Judge, MeanVector
from fewseg.methods.losses import cross_entropy_full_size, cross_entropy_of_sets, margins_to_background
from fewseg.ops.masks import labels_of_margins, masked_averages, mean_region_iou
from fewseg.ops.resize import pixels_to_cells, resize, resize_by_products
from fewseg.types import EncodedEpisodes, EncodedShots, Features, LossTerms, PrototypeState


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
        prototype_lengths = prototypes.square().sum(dim=2)[..., None, None]
        return 2 * dot_products(cells, prototypes) - lengths - prototype_lengths


Metric = Cosine | Fidelity | SquaredEuclidean


PIXEL_EPS = 1e-5
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
    inside = (masks == way).flatten(0, 1)
    size = (int(maps.shape[-2]), int(maps.shape[-1]))
    regions = torch.stack([inside, (masks == 0).flatten(0, 1)], dim=1)
    cells = pixels_to_cells(regions.flatten(0, 1), size, align_corners=align_corners)
    vectors = masked_averages(maps.float(), cells.view(-1, 2, *size), PIXEL_EPS)
    foreground, background = vectors.unflatten(0, (episodes, shots)).unbind(2)
    has_foreground = inside.flatten(1).any(dim=1).view(episodes, shots)
    has_background = (masks == 0).flatten(2).any(dim=2)
    classes, present = [_mean(background, has_background)], [has_background.any(dim=1)]
    for j in range(1, max(way_of) + 1):
        places = [k for k, w in enumerate(way_of) if w == j]
        classes.append(_mean(foreground[:, places], has_foreground[:, places]))
        present.append(has_foreground[:, places].any(dim=1))
    area = pixels_to_cells(torch.ones_like(inside[:1]), size, align_corners=align_corners)
    filled = cells.view(-1, 2, *size)[:, 0] / area[:, 0]
    covered = filled.flatten(1).amax(dim=1) >= 0.5
    return Prototypes(
        vectors=torch.stack(classes, dim=1),
        present=torch.stack(present, dim=1),
        vanished=has_foreground & ~covered.view(episodes, shots),
    )


def _mean(vectors: Tensor, counted: Tensor) -> Tensor:
    """Mean over the shots (B, K, C) that count (B, K); zeros where none does."""
    weights = counted.to(vectors.dtype).unsqueeze(2)
    return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


EMBEDDING = "embedding"
"""The level of embedded features."""


class PrototypeSegmenter(FewShotSegmenter):
    """Segments any number of ways by the nearest prototype, background included.

    Attributes:
        metric: D.
        alpha: amplification of D in the softmax (Eq. 3).
        align_corners: how maps are resized.
    """

    fusions: tuple[Fusion, ...] = (MeanVector(), IterativeInference())
    trains_ways = True
    compares_background = True
    metric: Metric
    alpha: float
    align_corners: bool = True

    @abstractmethod
    def embed_maps(self, features: Features) -> Tensor:
        """The map that is compared, (n, C, h, w), of n images' backbone maps."""

    def embed(self, features: Features) -> Features:
        """The map that is compared as the only level, float32; of embedded features, themselves."""
        if EMBEDDING in features.maps:
            return features.to(dtype=torch.float32)  # stored ones may be of another type
        # one layout whatever came: sums over channels then do not depend on where the maps were made
        maps = {k: v.contiguous(memory_format=torch.channels_last) for k, v in features.maps.items()}
        embedded = self.embed_maps(Features(maps=maps, image_size=features.image_size))
        embedded = embedded.float().contiguous(memory_format=torch.channels_last)
        return Features(maps={EMBEDDING: embedded}, image_size=features.image_size)

    def scores(self, prepared: Tensor, prototypes: Tensor) -> Tensor:
        """Alpha D: the logits of SRPNet's Eq. 3 and 8.

        Args:
            prepared: (n, C, h, w), cells that the metric has prepared.
            prototypes: (n, 1 + N, C).

        Returns:
            (n, 1 + N, h, w).
        """
        return self.alpha * self.metric.compare(prepared, prototypes)

    def prepared(self, features: Features) -> Tensor:
        """The embedded map of n images in float32, prepared by the metric."""
        return self.metric.prepare(self.embed(features)[EMBEDDING])

    def pooled(self, support: EncodedShots) -> Prototypes:
        """Prototypes of B support sets (Eq. 1 and 2)."""
        maps = self.embed(support.features)[EMBEDDING]
        return pool_prototypes(maps, support.masks, support.way_of, align_corners=self.align_corners)

    def support_prototypes(self, features: Features, masks: Tensor) -> Tensor:
        """The foreground's prototype (n, d) of each of n shots."""
        return self.pooled(EncodedShots(features=features, masks=masks.unsqueeze(1))).vectors[:, 1]

    def encode_support(self, support: EncodedShots) -> PrototypeState:
        """Pools the prototypes, and iterates them where the fusion does."""
        self.check_support(support)
        with torch.autocast(support.masks.device.type, enabled=False):
            support = EncodedShots(
                features=self.embed(support.features), masks=support.masks, way_of=support.way_of
            )
            pooled = self.pooled(support)
            warn_of_absent(pooled.present)
            out = self.fusion.collect(pooled.vectors, pooled.present, lambda: self._begin(support, pooled))
        return PrototypeState(
            sets=out.sets,
            weights=out.weights,
            present=pooled.present,
            vanished=pooled.vanished,
            diverged=out.diverged,
        )

    def _begin(self, support: EncodedShots, pooled: Prototypes) -> tuple[Tensor, Judge]:
        """What a fusion that iterates starts from, and how it scores prototypes."""
        cells, start = (
            values.clone() if values.is_inference() else values  # those cannot take part in a gradient
            for values in (self.prepared(support.features), self.metric.start(pooled.vectors))
        )
        return start, lambda sets: self.judged(cells, support.masks, sets, pooled.present)

    def judged(
        self, cells: Tensor, masks: Tensor, prototypes: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How well prototypes restore the masks of their own supports.

        Source: SRPNet (Ding et al. 2022), L_sup of Eq. 10 and rho of Eq. 13: the IoU summed over the S
        images, its mean over the ways.

        Args:
            cells: (B * S, C, h, w), prepared.
            masks: (B, S, H, W) in {0, 1 .. N, 255}.
            prototypes: (B, 1 + N, C).
            present: (B, 1 + N), which of them exist.

        Returns:
            The loss (B,) and the IoU (B,) in [0, 1].
        """
        episodes, shots = masks.shape[:2]
        logits = self.scores(cells, prototypes.repeat_interleave(shots, dim=0))
        logits = without_absent(logits, present.repeat_interleave(shots, dim=0))
        size = (int(masks.shape[-2]), int(masks.shape[-1]))
        margins = margins_to_background(logits)
        margins = resize_by_products(margins, size, align_corners=self.align_corners)
        labels = labels_of_margins(margins.detach()).unflatten(0, (episodes, shots))
        rho = mean_region_iou(labels, masks, prototypes.shape[1] - 1)
        return cross_entropy_of_sets(margins, masks), rho

    def segment(self, query: Features, state: PrototypeState) -> Tensor:
        """The logits of one prototype set, or the log of the rho-weighted mean of several sets' maps.

        Both are made on the feature grid and then brought to the images' size. A class that no support
        shows wins nowhere: without a way's prototype nothing is that way, and without a background's every
        pixel is of some way.

        Source: SRPNet (Ding et al. 2022), Eq. 3, 4 and 13.
        """
        with torch.autocast(state.sets.device.type, enabled=False):
            cells = self.prepared(query)
            of_set = sets_of_queries(state.sets, len(query))
            sets, weights = state.sets[of_set], state.weights[of_set]
            count, classes = sets.shape[1:3]
            present = state.present[of_set]
            if count == 1:
                logits = without_absent(self.scores(cells, sets[:, 0]), present)
            else:
                scores = self.scores(cells, sets.flatten(1, 2))
                scores = without_absent(scores, present.repeat(1, count)).unflatten(1, (count, classes))
                logits = mixed(scores, weights)
            return resize(logits, query.image_size, align_corners=self.align_corners)

    def query_logits(self, episodes: EncodedEpisodes, pooled: Prototypes) -> Tensor:
        """Training logits (B, 1 + N, h, w) of the queries."""
        return self.scores(self.prepared(episodes.query), pooled.vectors)

    def embedded(self, episodes: EncodedEpisodes) -> EncodedEpisodes:
        """The same episodes with embedded features, supports and queries in one pass."""
        support, query = episodes.support, episodes.query
        if EMBEDDING in query.maps:
            return episodes
        count = len(support.features)
        features = self.embed(Features.stack([support.features, query]))
        return EncodedEpisodes(
            support=EncodedShots(
                features=features.select(slice(count)), masks=support.masks, way_of=support.way_of
            ),
            query=features.select(slice(count, None)),
            query_masks=episodes.query_masks,
        )

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """The query's cross-entropy (Eq. 7) and what the method adds to it."""
        episodes = self.embedded(episodes)
        device = episodes.query_masks.device.type
        with torch.autocast(device, enabled=False):
            pooled = self.pooled(episodes.support)
            logits = self.query_logits(episodes, pooled)
            masks = episodes.query_masks
            query = cross_entropy_full_size(logits, masks, align_corners=self.align_corners)
            added = self.added_losses(episodes, pooled, logits)
        return LossTerms(terms={"query": query, **added.terms}, weights=added.weights)

    def added_losses(self, episodes: EncodedEpisodes, pooled: Prototypes, logits: Tensor) -> LossTerms:
        """What the method adds to the query's loss; nothing by default.

        Args:
            episodes: embedded.
            pooled: prototypes of the support sets.
            logits: (B, 1 + N, h, w) of the queries.
        """
        del episodes, pooled, logits
        return LossTerms(terms={})


def mixed(logits: Tensor, weights: Tensor) -> Tensor:
    """The log of the rho-weighted mean of T probability maps (n, T, 1 + N, h, w): (n, 1 + N, h, w).

    Its argmax is that of the weighted sum; its softmax is the weighted mean itself.

    Source: SRPNet (Ding et al. 2022), Eq. 13.
    """
    shares = (weights / weights.sum(dim=1, keepdim=True))[..., None, None, None]
    return (logits.softmax(dim=2) * shares).sum(dim=1).clamp(min=1e-12).log()
