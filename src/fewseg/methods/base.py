"""The interface that every method fits."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewseg.backbones import Backbone, BackboneConfig, ScaledBackbone
from fewseg.methods.fusion import Fusion
from fewseg.types import (
    IGNORE,
    EncodedEpisodes,
    EncodedShots,
    Features,
    ImageEpisodes,
    LossTerms,
    RaggedShots,
    State,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of the methods' configs: frozen keyword-only dataclasses next to the method that they build.

    Attributes:
        method: the class that is built; ``register_method`` sets it.
        backbone: gives the maps.
    """

    method: ClassVar[type[FewShotSegmenter]]
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def build(self) -> FewShotSegmenter:
        """Builds the method with a randomly initialised head, in training mode."""
        return type(self).method(self)


class FewShotSegmenter(nn.Module, ABC):
    """Segments a query by a support set, in three steps that can be cached one by one.

    ``extract`` depends on the image alone, ``encode_support`` on the support set alone; ``segment`` joins
    the two, and ``forward`` does all three. No step keeps images or supports on the module, and none but
    ``training_losses`` sees a query mask.

    Attributes:
        config: what it was built from.
        backbone: gives the maps.
        fusions: the fusions that the method can use, with their default settings.
        fusion: how K shots become one answer. It has no parameters and may be changed at any time.
        trains_ways: whether ``training_losses`` takes episodes of several ways.
        compares_background: whether supports without the thing take part in ``encode_support``.
        fits_head: whether ``encode_support`` is a fit of seconds, so that quality does without further ones.
        image_scales: factors of an image's size at which queries are read too; none for most methods. Such a
            method is evaluated on images at their own size.
        query_levels: levels of the backbone that are read of queries alone.
    """

    backbone: Backbone
    fusions: tuple[Fusion, ...]
    fusion: Fusion
    trains_ways: bool = False
    compares_background: bool = False
    fits_head: bool = False
    image_scales: tuple[float, ...] = ()
    query_levels: tuple[str, ...] = ()

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        if config is not None:  # a method without a config sets these itself
            self.config = config
            self.fusion = config.fusion
            self.backbone = config.backbone.build()

    def forward(
        self,
        query_images: Tensor,
        support_images: Tensor,
        support_masks: Tensor,
        way_of: tuple[int, ...] = (),
    ) -> Tensor:
        """Segments B queries, each by a support set of its own, or all by the same one.

        Args:
            query_images: (B, 3, H, W) RGB in [0, 1].
            support_images: (B, K, 3, H, W), or (1, K, 3, H, W) for one support set; with several ways the
                images of all of them.
            support_masks: (B, K, H, W) integers in {0, 1, 255}; with several ways in {0, 1 .. N, 255}.
            way_of: the way, 1 .. N, that each of the K images was given for; all of way 1 by default.

        Returns:
            Logits (B, 1 + N, H, W), background first.

        Raises:
            ValueError: images and masks do not fit each other.
        """
        if support_images.ndim != 5 or support_masks.shape != support_images[:, :, 0].shape:
            raise ValueError(
                "support_images must be (B, K, 3, H, W) and support_masks (B, K, H, W), got "
                f"{tuple(support_images.shape)} and {tuple(support_masks.shape)}"
            )
        supports = self.extract(support_images.flatten(0, 1))
        shots = EncodedShots(features=supports, masks=support_masks, way_of=way_of)
        return self.segment(self.extract(query_images), self.encode_support(shots))

    @property
    def network(self) -> Backbone | ScaledBackbone:
        """What reads images for inference: the backbone, at several scales where the method has them."""
        return ScaledBackbone(self.backbone, self.image_scales) if self.image_scales else self.backbone

    def extract(self, images: Tensor) -> Features:
        """Runs the backbone and what the method does to its maps image by image.

        Args:
            images: (n, 3, H, W) RGB in [0, 1].

        Returns:
            The maps that this method reads.
        """
        return self.embed(self.network(images))

    def embed(self, features: Features) -> Features:
        """What the method does to an image's maps whatever the class is; nothing by default.

        A frozen backbone's maps may be kept while this part is trained. All other steps take features from
        before or after it: features that are embedded already come back unchanged.
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

    def check_support(self, support: EncodedShots | RaggedShots) -> None:
        """Checks a support set at the border of ``encode_support``.

        Raises:
            ValueError: the masks hold other labels than 0 .. N and 255, or the fusion is not the method's.
        """
        parts = support.shots if isinstance(support, RaggedShots) else (support,)
        unknown = {
            label
            for masks in (part.masks for part in parts)
            for label in masks[(masks > support.ways) & (masks != IGNORE)].unique().tolist()
        }
        if unknown:
            raise ValueError(
                f"the support masks hold {sorted(unknown)[:5]}; with {support.ways} ways they "
                f"must hold 0 .. {support.ways} and {IGNORE}: give way_of, the way of each support image"
            )
        self.fusion_named(self.fusion.kind)  # a ValueError where it has none

    def fusion_named(self, kind: str) -> Fusion:
        """Returns the method's fusion of a kind: the present one where it is of the kind, else the default.

        Raises:
            ValueError: the method has no fusion of the kind.
        """
        fusions = {fusion.kind: fusion for fusion in self.fusions}
        if kind not in fusions:
            raise ValueError(
                f"{type(self).__name__} cannot use the fusion {kind!r}: choose one of {', '.join(fusions)}"
            )
        return self.fusion if self.fusion.kind == kind else fusions[kind]

    def encode_episodes(self, episodes: ImageEpisodes) -> EncodedEpisodes:
        """Runs supports and queries of B episodes through the backbone together.

        Where its batch-norm learns though it is frozen, the queries have a pass of their own, and then the
        first shots, the second shots and so on, as in the released PFENet family; the shots' passes leave out
        the levels that are read of queries alone, whose statistics they must not move.
        """

        def read(images: Tensor, without: tuple[str, ...] = ()) -> Features:
            return self.embed(self.backbone(images, without=without))  # inference alone reads other scales

        shots, count = episodes.support_masks.shape[1], len(episodes.query_masks)
        if self.backbone.learns_statistics:
            query = read(episodes.query_images)
            shot_features = [read(images, self.query_levels) for images in episodes.support_images.unbind(1)]
            shot_of = torch.arange(count * shots).view(shots, count).T.flatten()
            supports = Features.stack(shot_features).select(shot_of)
        else:
            images = torch.cat([episodes.support_images.flatten(0, 1), episodes.query_images])
            features = read(images)
            supports = features.select(slice(count * shots))
            query = features.select(slice(count * shots, None))
        return EncodedEpisodes(
            support=EncodedShots(features=supports, masks=episodes.support_masks, way_of=episodes.way_of),
            query=query,
            query_masks=episodes.query_masks,
            pair_ids=episodes.pair_ids,
            labels=episodes.labels,
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
    def encode_support(self, support: Any) -> State:
        """Turns B support sets of any N and K, ``EncodedShots``, into a state.

        A method with ``image_scales`` takes one set of images of different sizes too, ``RaggedShots``.
        """

    @abstractmethod
    def segment(self, query: Features, state: Any) -> Tensor:
        """Segments queries.

        Args:
            query: n images.
            state: of n support sets, or of one that serves all n, from this method's ``encode_support``.

        Returns:
            Logits (n, 1 + N, H, W) at the images' size, background first.
        """

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Named losses of a batch of episodes of any K.

        Raises:
            ValueError: the method is fitted to each support set anew, or has no weights of its own.
        """
        raise ValueError(f"{type(self).__name__} has nothing to train: evaluate it without training")


def warn_of_square(method: FewShotSegmenter, size: int) -> None:
    """Warns where a method that is evaluated on images at their own size gets squares of ``size`` pixels."""
    if method.image_scales:
        scales = ", ".join(f"{scale:g}" for scale in method.image_scales)
        logger.warning(
            "%s is evaluated at %s times an image's own size; here each image is fitted into a square of %d "
            "pixels first, which can change its masks",
            type(method).__name__,
            scales,
            size,
        )


def sets_of_queries(per_set: Tensor, n: int) -> Tensor:
    """The support set (n,) of each of n queries: one serves all, or each has its own."""
    episodes = per_set.shape[0]
    if episodes not in (1, n):
        raise ValueError(
            f"got {n} queries for a state of {episodes} support sets: give one support set for all "
            "queries or one for each"
        )
    return torch.arange(n, device=per_set.device) if episodes == n else per_set.new_zeros(n, dtype=torch.long)


ABSENT = -1e4
"""Logit of a class that no support shows: finite, so that resizing and differences stay finite."""


def without_absent(logits: Tensor, present: Tensor) -> Tensor:
    """Puts the logits (n, P, h, w) of classes that no support shows (n, P) out of reach."""
    return logits.masked_fill(~present[..., None, None], ABSENT)


def warn_of_absent(present: Tensor) -> None:
    """Warns of classes that a support set does not show, of B sets' ``present`` (B, 1 + N)."""
    absent = (~present).any(dim=0).nonzero().flatten().tolist()
    for j in absent:
        name = f"way {j}" if j else "background"
        warnings.warn(
            f"a support set has no pixel of the {name}, which then wins nowhere: give a support image that "
            "shows it",
            RuntimeWarning,
            stacklevel=3,
        )
