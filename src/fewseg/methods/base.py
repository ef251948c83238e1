"""The interface that every method fits, and what methods that score (query, guide) pairs share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fewseg.backbones import Backbone
from fewseg.fusion import AnyFusion, CrossGuided, CrossPath, GuideFusion, ScoreAverage, ShotAttention
from fewseg.fusion.cross_guided import region_iou
from fewseg.ops.resize import resize
from fewseg.types import (
    EncodedEpisodes,
    EncodedShots,
    Features,
    Guides,
    ImageEpisodes,
    LossTerms,
    QueryMaps,
    SupportState,
)


class FewShotSegmenter(nn.Module, ABC):
    """Segments a query by a support set, in three steps that can be cached one by one.

    ``extract`` depends on the image alone, ``encode_support`` on the support set alone; ``segment`` joins
    the two. No step keeps anything on the module, and none but ``training_losses`` sees a query mask.
    """

    backbone: Backbone

    def extract(self, images: Tensor) -> Features:
        """Runs the backbone.

        Args:
            images: (n, 3, H, W) RGB in [0, 1].

        Returns:
            The maps that this method reads.
        """
        out: Features = self.backbone(images)
        return out

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
        """Named losses of a training batch, whether or not its images have been through the backbone."""
        if isinstance(episodes, ImageEpisodes):
            episodes = self.encode_episodes(episodes)
        return self.training_losses(episodes)

    @abstractmethod
    def encode_support(self, support: EncodedShots) -> SupportState:
        """Turns B support sets of any K into a state."""

    @abstractmethod
    def segment(self, query: Features, state: SupportState) -> Tensor:
        """Segments queries.

        Args:
            query: n images.
            state: of n support sets, or of one that serves all n.

        Returns:
            Logits (n, 1 + N, H, W) at the images' size, background first.
        """

    @abstractmethod
    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Named losses of a batch of episodes of any K."""


class PairScorer(FewShotSegmenter):
    """A two-class method whose core is G(I_q | I_k): the score of one query under one guide.

    How K shots become one answer is the fusion's business: ``MeanVector`` joins the guides before the
    decoder, the others weigh the scores of the K pairs. ``fusion`` may be changed at any time; it has no
    parameters. ``ShotAttention`` weighs the shots inside the decoder and needs a method that can.
    """

    fusion: AnyFusion

    @property
    def attends(self) -> bool:
        """Whether ``score`` weighs shots that stand side by side in one guide (``ShotAttention``)."""
        return False

    def join_shots(self, guides: Guides, shots: int, fusion: GuideFusion) -> Guides:
        """Joins B * K guides of one shot each into B, before the decoder.

        Raises:
            ValueError: the fusion needs an attention over shots that this method has not.
        """
        if isinstance(fusion, ShotAttention) and not self.attends:
            raise ValueError(
                f"{type(self).__name__} was built without attention over shots: use MeanVector, ScoreAverage "
                "or CrossGuided, or a CANet whose config has fusion=ShotAttention()"
            )
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

    def encode_support(self, support: EncodedShots) -> SupportState:
        """Encodes every shot once and lets the fusion join or weigh them."""
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

    def segment(self, query: Features, state: SupportState) -> Tensor:
        """Scores every (query, guide) pair once and sums the weighted scores (SCL Eq. 17)."""
        maps = self.encode_query(query)
        n, scored = len(query), state.scored
        episodes = state.weights.shape[0]
        if episodes not in (1, n):
            raise ValueError(
                f"got {n} queries for a state of {episodes} support sets: give one support set for all "
                "queries or one for each"
            )
        device = state.weights.device
        of_set = torch.arange(n, device=device) if episodes == n else torch.zeros(n, dtype=torch.long)
        of_query = torch.arange(n, device=device).repeat_interleave(scored if n > 1 else 1)
        of_guide = (of_set.to(device).unsqueeze(1) * scored + torch.arange(scored, device=device)).flatten()
        scores = self.score(maps.select(of_query), state.guides.select(of_guide))
        weights = state.weights[of_set].to(scores.dtype)
        return resize(fuse_scores(scores.unflatten(0, (n, scored)), weights), query.image_size)


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
