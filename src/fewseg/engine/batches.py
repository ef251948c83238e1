"""Training batches: fresh views from images, or cached features of fixed views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewseg.data.draws import Draws
from fewseg.data.episode_spec import EpisodeSpec
from fewseg.data.source import Source
from fewseg.data.training_sampler import TrainingSampler
from fewseg.data.transforms import TrainView, binary_mask
from fewseg.engine.feature_store import FeatureStore
from fewseg.types import EncodedEpisodes, EncodedShots, ImageEpisodes


class Batches(Protocol):
    """A stream of training batches in which batch s is a function of s alone."""

    def stream(self, start: int, stop: int) -> Iterator[ImageEpisodes | EncodedEpisodes]:
        """Yields the batches of steps start .. stop - 1."""
        ...


def pair_id(spec: EpisodeSpec, view: int = 0) -> int:
    """Names a training pair: its class, its query, and the query's view where views come again.

    The supports are not part of it: with them hardly a pair would come twice, and what a method last said
    of the query under this class would never be asked for.

    Args:
        spec: the episode.
        view: number of the query's cached view; 0 where every view is a fresh one.

    Returns:
        An integer in [0, 2^63).
    """
    return Draws("training pair", spec.class_id, spec.query, view).below(1 << 63)


class CachedBatches:
    """Batches from a feature store: the backbone does not run.

    Args:
        sampler: says which images.
        store: holds view 0 (plain) and random views of each of them.
        batch: episodes a step and device.
        seed: of the choice of views.
        rank: of this process; it takes every ``world``-th episode.
        world: processes.
    """

    def __init__(
        self,
        sampler: TrainingSampler,
        store: FeatureStore,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sampler, self.store, self.batch, self.seed = sampler, store, batch, seed
        self.rank, self.world = rank, world

    def stream(self, start: int, stop: int) -> Iterator[EncodedEpisodes]:
        """Yields the batches of steps start .. stop - 1."""
        for step in range(start, stop):
            first = step * self.batch * self.world + self.rank
            yield self._encode([self.sampler.episode(first + j * self.world) for j in range(self.batch)])

    def _encode(self, specs: list[EpisodeSpec]) -> EncodedEpisodes:
        supports = [(spec, id, k) for spec in specs for k, id in enumerate(spec.supports)]
        features, masks, pairs = [], [], []
        for spec, id, place in [*supports, *((spec, spec.query, -1) for spec in specs)]:
            view = Draws("view of step", self.seed, spec.index, place).below(len(self.store.views))
            if place == -1:
                pairs.append(pair_id(spec, view))
            features.append(self.store.features([id], view))
            masks.append(binary_mask(self.store.labels([id], view)[0], spec.class_id))
        count, shots = len(specs), len(specs[0].supports)
        joined, stacked = type(features[0]).stack(features), torch.stack(masks)
        return EncodedEpisodes(
            support=EncodedShots(
                features=joined.select(slice(count * shots)),
                masks=stacked[: count * shots].unflatten(0, (count, shots)),
            ),
            query=joined.select(slice(count * shots, None)),
            query_masks=stacked[count * shots :],
            pair_ids=torch.tensor(pairs),
        )


class _EpisodeImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Episode i as (K + 1 images, K + 1 masks, the pair's name), the query last."""

    def __init__(self, sampler: TrainingSampler, source: Source, view: TrainView, seed: int) -> None:
        self.sampler, self.source, self.view, self.seed = sampler, source, view, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        spec = self.sampler.episode(index)
        images, masks = [], []
        for place, id in enumerate((*spec.supports, spec.query)):
            draws = Draws("fresh view", self.seed, index, place)
            image, labels = self.view(
                self.source.read_image(id), self.source.read_labels(id), draws, keep=spec.class_id
            )
            images.append(image)
            masks.append(binary_mask(labels, spec.class_id))
        return torch.stack(images), torch.stack(masks), pair_id(spec)


class FreshBatches:
    """Batches of images, each under a view of its own, read by worker processes.

    Args:
        sampler: says which images.
        source: reads them.
        view: the random view.
        batch: episodes a step and device.
        seed: of the views.
        workers: reading processes.
        rank: of this process; it takes every ``world``-th episode.
        world: processes.
    """

    def __init__(
        self,
        sampler: TrainingSampler,
        source: Source,
        view: TrainView,
        *,
        batch: int,
        seed: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset = _EpisodeImages(sampler, source, view, seed)
        self.batch, self.workers, self.rank, self.world = batch, workers, rank, world

    def stream(self, start: int, stop: int) -> Iterator[ImageEpisodes]:
        """Yields the batches of steps start .. stop - 1."""
        per_step = self.batch * self.world
        order = range(start * per_step + self.rank, stop * per_step, self.world)
        loader = DataLoader(
            self.dataset,
            batch_size=self.batch,
            sampler=order,
            num_workers=self.workers,
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        for images, masks, pairs in loader:
            yield ImageEpisodes(
                support_images=images[:, :-1],
                support_masks=masks[:, :-1],
                query_images=images[:, -1],
                query_masks=masks[:, -1],
                pair_ids=pairs,
            )
