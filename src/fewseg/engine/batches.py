"""Training batches: fresh views from images, or cached features of fixed views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec, TrainingSampler
from fewseg.data.source import Source
from fewseg.data.transforms import TrainView, among, way_labels
from fewseg.engine.features import FeatureStore
from fewseg.types import IGNORE, EncodedEpisodes, EncodedShots, ImageEpisodes


class Batches(Protocol):
    """A stream of training batches in which batch s is a function of s alone."""

    def stream(self, start: int, stop: int) -> Iterator[ImageEpisodes | EncodedEpisodes]:
        """Yields the batches of steps start .. stop - 1."""
        ...


def pair_id(spec: EpisodeSpec, view: int = 0) -> int:
    """Names a training pair: its classes, its query, and the query's view where views come again.

    The supports are not part of it: with them hardly a pair would come twice, and a method's last prediction
    for the query under this class would never be used.
    """
    return Draws("training pair", spec.query, view, *spec.classes).below(1 << 63)


def base_labels(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The label map with background in the place of every class that is not in training."""
    return labels * among(labels, [*classes, IGNORE])


class CachedBatches:
    """Batches from a feature store: the backbone does not run."""

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
        supports = [(spec, id, k) for spec in specs for k, id in enumerate(spec.all_supports)]
        features, masks, pairs, labels = [], [], [], []
        for spec, id, place in [*supports, *((spec, spec.query, -1) for spec in specs)]:
            view = Draws("view of step", self.seed, spec.index, place).below(len(self.store.views))
            if place == -1:
                pairs.append(pair_id(spec, view))
            maps, (label_map,) = self.store.rows([id], view)
            features.append(maps)
            label_map = self.sampler.training_labels(label_map)
            masks.append(way_labels(label_map, spec.classes))
            if place == -1:
                labels.append(base_labels(label_map, self.sampler.classes))
        way_of = specs[0].way_of
        count, shots = len(specs), len(way_of)
        joined, stacked = type(features[0]).stack(features), torch.stack(masks)
        return EncodedEpisodes(
            support=EncodedShots(
                features=joined.select(slice(count * shots)),
                masks=stacked[: count * shots].unflatten(0, (count, shots)),
                way_of=way_of,
            ),
            query=joined.select(slice(count * shots, None)),
            query_masks=stacked[count * shots :],
            pair_ids=torch.tensor(pairs),
            labels=torch.stack(labels),
        )


class _EpisodeImages(Dataset[tuple[Tensor, Tensor, int, Tensor]]):
    """Episode i as (N K + 1 images and masks, pair, query's labels): supports way by way, the query last."""

    def __init__(self, sampler: TrainingSampler, source: Source, view: TrainView, seed: int) -> None:
        self.sampler, self.source, self.view, self.seed = sampler, source, view, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, Tensor]:
        spec = self.sampler.episode(index)
        shots = len(spec.supports)
        # Place K is the query's whatever N is, so that way 1 and the query look as in the 1-way episode.
        supports = zip(spec.all_supports, spec.way_of, strict=True)
        shown = [(k + (k >= shots), id, way) for k, (id, way) in enumerate(supports)]
        images, masks = [], []
        for place, id, way in (*shown, (shots, spec.query, 1)):
            draws = Draws("fresh view", self.seed, index, place)
            image, labels = self.view(
                self.source.read_image(id), self.source.read_labels(id), draws, keep=spec.classes[way - 1]
            )
            labels = self.sampler.training_labels(labels)
            images.append(image)
            masks.append(way_labels(labels, spec.classes))
        return (
            torch.stack(images),
            torch.stack(masks),
            pair_id(spec),
            base_labels(labels, self.sampler.classes),
        )


class FreshBatches:
    """Batches of images, each under a view of its own, read by worker processes.

    A crop keeps what it can of the class that its image was drawn for; for the query that is way 1.
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
        sampler = self.dataset.sampler
        way_of = tuple(j for j in range(1, sampler.ways + 1) for _ in range(sampler.shots))
        for images, masks, pairs, labels in loader:
            yield ImageEpisodes(
                support_images=images[:, :-1],
                support_masks=masks[:, :-1],
                query_images=images[:, -1],
                query_masks=masks[:, -1],
                way_of=way_of if sampler.ways > 1 else (),
                pair_ids=pairs,
                labels=labels,
            )
