"""What methods of two classes share whose core is the score of one query under one guide."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewseg.methods.base import FewShotSegmenter, MethodConfig, sets_of_queries
from fewseg.methods.fusion import (
    CrossGuided,
    CrossPath,
    Fusion,
    JoinedGuides,
    MeanVector,
    ScoreAverage,
    one_vs_rest,
)
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.ops.masks import SmallObjects, foreground_cells, labels_of_margins
from fewseg.ops.resize import resize
from fewseg.types import (
    EncodedEpisodes,
    EncodedShots,
    Features,
    Guides,
    LossTerms,
    QueryMaps,
    RaggedShots,
    SupportState,
    WaysState,
    check_choices,
)


@dataclass(frozen=True, kw_only=True)
class PairConfig(MethodConfig):
    """What configs of methods that score pairs share.

    Attributes:
        small_objects: which cells are foreground where an object is so small that bilinear sampling of its
            mask leaves no cell with half of it: "touched", those that it touches; "sampled", what sampling
            leaves, as in the released code. Where that is nothing, support vectors and prior maps are zero.

    Raises:
        ValueError: a field of this or of a method's own config has none of its values.
    """

    small_objects: SmallObjects = field(default="touched", metadata={"before": "touched"})

    def __post_init__(self) -> None:
        check_choices(self)


class PairScorer(FewShotSegmenter):
    """A two-class method whose core is G(I_q | I_k): the score of one query under one guide.

    The fusion joins K guides before the decoder or weighs the scores of the K pairs. Several ways are
    segmented one against the rest.

    Attributes:
        cross_iou_align_corners: whether predictions are brought to the masks' size with aligned corners
            where a fusion needs their IoU (SCL Eq. 16).
    """

    fusions: tuple[Fusion, ...] = (MeanVector(), ScoreAverage(), CrossGuided())
    cross_iou_align_corners: bool = True

    def cells(self, masks: Tensor, maps: Tensor) -> Tensor:
        """The share of foreground (n, 1, h, w) in each cell of maps (n, C, h, w), of masks (n, H, W)."""
        size, rule = (int(maps.shape[-2]), int(maps.shape[-1])), self.config.small_objects
        return foreground_cells(masks, size, maps.dtype, small_objects=rule)

    @abstractmethod
    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Encodes n shots, each on its own.

        Args:
            features: n support images.
            masks: (n, H, W) uint8 in {0, 1, 255}.

        Returns:
            n guides of one shot each.
        """

    def support_prototypes(self, features: Features, masks: Tensor) -> Tensor:
        """The first vector (n, d) of each of n shots that the decoder gets: the gated one, v_pri, ..."""
        return self.encode_shots(features, masks)["vectors"][:, 0]

    @abstractmethod
    def encode_query(self, features: Features) -> QueryMaps:
        """Computes what every guide needs of n queries."""

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """What of a score is a mean over the joined shots of a guide, whatever their vectors: prior maps.

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides.

        Returns:
            (n, P, h, w); zero channels for a method without prior maps.
        """
        return query.mid.new_zeros(len(guides), 0, *query.size)

    @abstractmethod
    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """G: logits (n, 2, h, w) of n (query, guide) pairs, at feature resolution.

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides.
            prior: their ``prior_map``, where it is known already; the guides' keys are then not read.
        """

    def cross_logits(self, support: EncodedShots, guides: Guides, path: CrossPath = "query") -> Tensor:
        """G(I_i | I_k): what every guide of a set predicts on every support image of it (SCL Eq. 15).

        Args:
            support: B sets of K support images.
            guides: B * G guides, those of a set next to each other.
            path: "query", G itself; "support" for a method that has a support path of its own.

        Returns:
            (B * G * K, 2, h, w), the target i running fastest, then the guide k.

        Raises:
            ValueError: the method has no such path.
        """
        if path != "query":
            raise ValueError(f"{type(self).__name__} has no support path: use CrossGuided(path='query')")
        of_guide, of_target = cross_pairs(support, guides)
        targets = self.encode_query(support.features)
        return self.score(targets.select(of_target), guides.select(of_guide))

    def cross_iou(self, support: EncodedShots, guides: Guides, fusion: CrossGuided) -> Tensor:
        """IoU of what every guide of a set predicts on every support image of it (SCL Eq. 15-16).

        Args:
            support: B sets of K support images.
            guides: B * G guides, those of a set next to each other; usually of its own K images.
            fusion: names the path of the prediction and the regions of the IoU.

        Returns:
            (B, G, K), [b, k, i] of guide k's prediction of image i.
        """
        episodes, shots = support.masks.shape[:2]
        _, of_target = cross_pairs(support, guides)
        masks = support.masks.flatten(0, 1)[of_target]
        logits = self.cross_logits(support, guides, fusion.path)
        return self.predicted_iou(logits, masks, fusion).view(episodes, -1, shots)

    def predicted_iou(self, logits: Tensor, masks: Tensor, fusion: CrossGuided) -> Tensor:
        """IoU of predictions with masks, at the masks' size.

        Args:
            logits: (n, 2, h, w).
            masks: (n, H, W) uint8 in {0, 1, 255}.
            fusion: names the regions of the IoU.

        Returns:
            (n,), in [0, 1].
        """
        size = (int(masks.shape[-2]), int(masks.shape[-1]))
        margins = logits[:, 1:].float() - logits[:, :1].float()
        margins = resize(margins, size, align_corners=self.cross_iou_align_corners)
        return fusion.iou_of(labels_of_margins(margins), masks)

    def encode_support(self, support: EncodedShots | RaggedShots) -> SupportState | WaysState:
        """Encodes every shot once and lets the fusion join or weigh them, way by way.

        Images of one set may differ in size where guides have no map, as those of CANet and SCL on it.
        """
        self.check_support(support)
        if support.ways == 1:
            return self._encode_way(support)
        return WaysState(ways=tuple(self._encode_way(support.one_way(j)) for j in range(1, support.ways + 1)))

    @property
    def training_fusion(self) -> JoinedGuides:
        """The first of ``fusions`` that joins guides."""
        return next(fusion for fusion in self.fusions if isinstance(fusion, JoinedGuides))

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query under its K shots, joined by ``training_fusion``."""
        support = episodes.support
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        joined = self.training_fusion.join(guides, support.shots)
        logits = self.score(self.encode_query(episodes.query), joined)
        return LossTerms(terms={"query": cross_entropy_full_size(logits, episodes.query_masks)})

    def _encode_way(self, support: EncodedShots | RaggedShots) -> SupportState:
        parts = support.shots if isinstance(support, RaggedShots) else (support,)
        episodes, shots = len(parts[0].masks), sum(part.shots for part in parts)
        fusion, device = self.fusion, parts[0].masks.device
        guides = Guides.stack([self.encode_shots(part.features, part.masks.flatten(0, 1)) for part in parts])
        cross_iou = None
        if isinstance(fusion, CrossGuided) and shots > 1:
            cross_iou = torch.cat([self.cross_iou(part, guides, fusion) for part in parts], dim=2)
        weights = fusion.weights(episodes, shots, device=device, cross_iou=cross_iou)
        return SupportState(
            guides=fusion.join(guides, shots) if isinstance(fusion, JoinedGuides) else guides, weights=weights
        )

    def segment(self, query: Features, state: SupportState | WaysState) -> Tensor:
        """Scores every (query, guide) pair once and sums the weighted scores (SCL Eq. 17)."""
        maps = self.encode_query(query)
        if isinstance(state, SupportState):
            return resize(self._fused(maps, len(query), state), query.image_size)
        scores = torch.stack([self._fused(maps, len(query), way) for way in state.ways], dim=1)
        return resize(one_vs_rest(scores), query.image_size)

    def _fused(self, maps: QueryMaps, n: int, state: SupportState) -> Tensor:
        """Scores (n, 2, h, w) of one way."""
        of_set = sets_of_queries(state.weights, n)
        scored = state.scored
        of_query = torch.arange(n, device=of_set.device).repeat_interleave(scored if n > 1 else 1)
        of_guide = (of_set.unsqueeze(1) * scored + torch.arange(scored, device=of_set.device)).flatten()
        scores = self.score(maps.select(of_query), state.guides.select(of_guide))
        weights = state.weights[of_set].to(scores.dtype)
        return self.fusion.fuse(scores.unflatten(0, (n, scored)), weights)


def cross_pairs(support: EncodedShots, guides: Guides) -> tuple[Tensor, Tensor]:
    """Indices of the guide k and of the target i of every pair of a set, each (B * G * K,)."""
    episodes, shots = support.masks.shape[:2]
    of_guide = torch.arange(len(guides)).view(episodes, -1, 1).expand(-1, -1, shots)
    of_target = torch.arange(episodes * shots).view(episodes, 1, shots).expand_as(of_guide)
    return of_guide.flatten(), of_target.flatten()
