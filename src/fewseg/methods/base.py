"""The interface that every method fits, and what methods that score (query, guide) pairs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.backbones import Backbone
from fewseg.fusion import (
    AttendedFusion,
    CrossGuided,
    CrossPath,
    Fusion,
    GuideFusion,
    MeanVector,
    ScoreAverage,
)
from fewseg.fusion.cross_guided import region_iou
from fewseg.fusion.one_vs_rest import one_vs_rest
from fewseg.ops.resize import resize
from fewseg.types import (
    IGNORE,
    EncodedEpisodes,
    EncodedShots,
    Features,
    Guides,
    ImageEpisodes,
    LossTerms,
    QueryMaps,
    State,
    SupportState,
    WaysState,
)


class FewShotSegmenter(nn.Module, ABC):
    """Segments a query by a support set, in three steps that can be cached one by one.

    ``extract`` depends on the image alone, ``encode_support`` on the support set alone; ``segment`` joins
    the two. No step keeps anything on the module, and none but ``training_losses`` sees a query mask.

    Attributes:
        backbone: gives the maps.
        fusions: the fusions that the method can use, with their default settings.
        fusion: how K shots become one answer. It has no parameters and may be changed at any time.
        trains_ways: whether ``training_losses`` takes episodes of several ways.
    """

    backbone: Backbone
    fusions: tuple[Fusion, ...]
    fusion: Fusion
    trains_ways: bool = False

    def extract(self, images: Tensor) -> Features:
        """Runs the backbone and what the method does to its maps image by image.

        Args:
            images: (n, 3, H, W) RGB in [0, 1].

        Returns:
            The maps that this method reads.
        """
        return self.embed(self.backbone(images))

    def embed(self, features: Features) -> Features:
        """What the method does to an image's maps whatever the class is; nothing by default.

        A frozen backbone's maps may be kept while this part is trained. All other steps take features from
        before or after it: features that are embedded already come back as they are.
        """
        return features

    def check_training_ways(self, ways: int) -> None:
        """Checks that the method can be trained on episodes of so many ways.

        Raises:
            ValueError: it cannot.
        """
        if ways > 1 and not self.trains_ways:
            raise ValueError(
                f"{type(self).__name__} is trained on episodes of one way, got {ways}: set train.ways to 1 "
                "(it still segments any number of ways, one against the rest)"
            )

    def check_support(self, support: EncodedShots) -> None:
        """Checks a support set at the border of ``encode_support``.

        Raises:
            ValueError: the masks hold other labels than 0 .. N and 255, or the fusion is not the method's.
        """
        strange = support.masks[(support.masks > support.ways) & (support.masks != IGNORE)]
        if strange.numel():
            raise ValueError(
                f"the support masks hold {sorted(set(strange.tolist()))[:5]}; with {support.ways} ways "
                f"accepted are 0 .. {support.ways} and {IGNORE}: give way_of, the way of each support image"
            )
        if not self.accepts(self.fusion):
            kinds = ", ".join(own.kind for own in self.fusions)
            raise ValueError(
                f"{type(self).__name__} cannot use the fusion {self.fusion.kind!r}; it can use {kinds}"
            )

    def accepts(self, fusion: Fusion) -> bool:
        """Whether the method can use a fusion."""
        return isinstance(fusion, tuple(type(own) for own in self.fusions))

    def encode_episodes(self, episodes: ImageEpisodes) -> EncodedEpisodes:
        """Runs supports and queries of B episodes through the backbone together."""
        shots, count = episodes.support_masks.shape[1], len(episodes.query_masks)
        images = torch.cat([episodes.support_images.flatten(0, 1), episodes.query_images])
        features = self.extract(images)
        return EncodedEpisodes(
            support=EncodedShots(
                features=features.select(slice(count * shots)),
                masks=episodes.support_masks,
                way_of=episodes.way_of,
            ),
            query=features.select(slice(count * shots, None)),
            query_masks=episodes.query_masks,
            pair_ids=episodes.pair_ids,
        )

    def losses(self, episodes: ImageEpisodes | EncodedEpisodes) -> LossTerms:
        """Named losses of a training batch, whether or not its images have been through the backbone.

        Raises:
            ValueError: several ways, and the method trains on one.
        """
        if isinstance(episodes, ImageEpisodes):
            episodes = self.encode_episodes(episodes)
        self.check_training_ways(episodes.support.ways)
        return self.training_losses(episodes)

    @abstractmethod
    def encode_support(self, support: EncodedShots) -> State:
        """Turns B support sets of any N and K into a state."""

    @abstractmethod
    def segment(self, query: Features, state: Any) -> Tensor:
        """Segments queries.

        Args:
            query: n images.
            state: of n support sets, or of one that serves all n, from this method's ``encode_support``.

        Returns:
            Logits (n, 1 + N, H, W) at the images' size, background first.
        """

    @abstractmethod
    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Named losses of a batch of episodes of any K."""


class PairScorer(FewShotSegmenter):
    """A two-class method whose core is G(I_q | I_k): the score of one query under one guide.

    How K shots become one answer is the fusion's business: ``MeanVector`` joins the guides before the
    decoder, the others weigh the scores of the K pairs. Several ways are segmented one against the rest.
    """

    fusion: AttendedFusion
    fusions: tuple[Fusion, ...] = (MeanVector(), ScoreAverage(), CrossGuided())

    def join_shots(self, guides: Guides, shots: int, fusion: GuideFusion) -> Guides:
        """Joins B * K guides of one shot each into B, before the decoder.

        Raises:
            ValueError: the fusion needs an attention over shots that this method has not.
        """
        if not self.accepts(fusion):
            kinds = ", ".join(own.kind for own in self.fusions)
            raise ValueError(f"{type(self).__name__} cannot use {fusion.kind!r}; it can use {kinds}")
        return fusion.join(guides, shots)

    @abstractmethod
    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Encodes n shots, each on its own.

        Args:
            features: n support images.
            masks: (n, H, W) uint8 in {0, 1, 255}.

        Returns:
            n guides of one shot each.
        """

    @abstractmethod
    def encode_query(self, features: Features) -> QueryMaps:
        """Computes what every guide needs of n queries."""

    @abstractmethod
    def score(self, query: QueryMaps, guides: Guides) -> Tensor:
        """G: logits (n, 2, h, w) of n (query, guide) pairs, at feature resolution.

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides.
        """

    def cross_logits(self, support: EncodedShots, guides: Guides, path: CrossPath = "query") -> Tensor:
        """G(I_i | I_k): every shot's prediction of every support image of its set (SCL Eq. 15).

        Args:
            support: B sets of K shots.
            guides: their B * K guides.
            path: "query", G itself; "support" for a method that has a support path of its own.

        Returns:
            (B * K * K, 2, h, w), the target i running fastest, then the guide k.
        """
        if path != "query":
            raise ValueError(f"{type(self).__name__} has no support path: use CrossGuided(path='query')")
        of_guide, of_target = cross_pairs(*support.masks.shape[:2])
        targets = self.encode_query(support.features)
        return self.score(targets.select(of_target), guides.select(of_guide))

    def cross_iou(self, support: EncodedShots, guides: Guides, fusion: CrossGuided) -> Tensor:
        """IoU of every shot's prediction of every support image: (B, K, K), [b, k, i] (SCL Eq. 15-16)."""
        episodes, shots = support.masks.shape[:2]
        _, of_target = cross_pairs(episodes, shots)
        masks = support.masks.flatten(0, 1)[of_target]
        logits = self.cross_logits(support, guides, fusion.path)
        return predicted_iou(logits, masks, fusion).view(episodes, shots, shots)

    def encode_support(self, support: EncodedShots) -> SupportState | WaysState:
        """Encodes every shot once and lets the fusion join or weigh them, way by way."""
        self.check_support(support)
        if support.ways == 1:
            return self._encode_way(support)
        return WaysState(ways=tuple(self._encode_way(support.one_way(j)) for j in range(1, support.ways + 1)))

    def _encode_way(self, support: EncodedShots) -> SupportState:
        episodes, shots = support.masks.shape[:2]
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        fusion = self.fusion
        if isinstance(fusion, GuideFusion):
            weights = torch.ones(episodes, 1, device=support.masks.device)
            return SupportState(guides=self.join_shots(guides, shots, fusion), weights=weights)
        if isinstance(fusion, CrossGuided):
            if shots == 1:  # a single shot has no other to be judged by
                fusion = ScoreAverage()
            else:
                weights = fusion.weights(self.cross_iou(support, guides, fusion))
                return SupportState(guides=guides, weights=weights)
        return SupportState(guides=guides, weights=fusion.weights(episodes, shots, support.masks.device))

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
        return fuse_scores(scores.unflatten(0, (n, scored)), weights)


def sets_of_queries(per_set: Tensor, n: int) -> Tensor:
    """The support set of each of n queries: one serves all, or each has its own.

    Args:
        per_set: any tensor with the support sets on its first axis.
        n: queries.

    Returns:
        (n,) indices on the tensor's device.

    Raises:
        ValueError: the numbers do not fit.
    """
    episodes = per_set.shape[0]
    if episodes not in (1, n):
        raise ValueError(
            f"got {n} queries for a state of {episodes} support sets: give one support set for all "
            "queries or one for each"
        )
    return torch.arange(n, device=per_set.device) if episodes == n else per_set.new_zeros(n, dtype=torch.long)


def cross_pairs(episodes: int, shots: int) -> tuple[Tensor, Tensor]:
    """Indices into B * K shots of the guide k and the target i of every pair, each (B * K * K,)."""
    index = torch.arange(episodes * shots).view(episodes, shots)
    of_guide = index.unsqueeze(2).expand(-1, -1, shots).flatten()
    of_target = index.unsqueeze(1).expand(-1, shots, -1).flatten()
    return of_guide, of_target


def fuse_scores(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the guides' scores.

    Source: SCL (Zhang et al. 2021), Eq. 17 before its softmax.

    Args:
        scores: (n, S, 2, h, w).
        weights: (n, S).

    Returns:
        (n, 2, h, w).
    """
    return (scores * weights[..., None, None, None]).sum(dim=1)


def predicted_iou(logits: Tensor, masks: Tensor, fusion: CrossGuided) -> Tensor:
    """IoU (n,) of the argmax of logits (n, 2, h, w), brought to the masks' size, with masks (n, H, W)."""
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    predicted = resize(logits.float(), size).argmax(dim=1)
    return region_iou(predicted, masks, fusion.iou)
