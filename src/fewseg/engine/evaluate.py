"""Evaluation: every distinct (class, support, target) pair is scored once, whatever the episodes ask for."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from fewseg.data.episode_spec import EpisodeSpec
from fewseg.data.recorded import Episodes
from fewseg.data.source import Source
from fewseg.data.transforms import binary_mask
from fewseg.engine.feature_store import FeatureStore
from fewseg.fusion import AnyFusion, CrossGuided, GuideFusion
from fewseg.methods.base import FewShotSegmenter, PairScorer, fuse_scores, predicted_iou
from fewseg.metrics.counts import Counts, EpisodeCounts, count
from fewseg.ops.geometry import letterbox, restore
from fewseg.ops.progress import progress_bar
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, Features, Guides, QueryMaps

logger = logging.getLogger(__name__)

Pair = tuple[int, str, str]
"""(class, support image, target image)."""

T = TypeVar("T")

_CHUNK = 8


class Evaluator:
    """Runs episodes of any K and fusion on one method, keeping what they share.

    A guide belongs to (class, support image) and a score to (class, support image, target image): 1-shot,
    5-shot average and 5-shot cross-guided runs on the same object share them. ``plain`` scores episodes one
    by one through ``encode_support`` and ``segment``; both ways give the same counts.

    Args:
        method: on its device, in eval mode.
        source: reads labels at their original size.
        store: features of the plain view (view 0).
        precision: "fp32", or "bf16" for autocast.
        progress: show bars with the time left.
    """

    def __init__(
        self,
        method: FewShotSegmenter,
        source: Source,
        store: FeatureStore,
        *,
        precision: str = "fp32",
        progress: bool = True,
    ) -> None:
        self.method, self.source, self.store = method.eval(), source, store
        self.precision, self.progress = precision, progress
        self.device = method.backbone.mean.device
        self._guides: dict[tuple[int, str], Guides] = {}
        self._scores: dict[Pair, Tensor] = {}
        self._ious: dict[tuple[Pair, CrossGuided], float] = {}
        self._labels: dict[str, Tensor] = {}
        self._target: tuple[str, QueryMaps | None] = ("", None)

    def run(
        self,
        sampler: Episodes,
        fusion: AnyFusion | None = None,
        seeds: Sequence[int] | None = None,
    ) -> EpisodeCounts:
        """Evaluates the sampler's episodes.

        Args:
            sampler: which episodes, and K.
            fusion: how K shots become one answer; the method's own by default.
            seeds: the protocol's by default.

        Returns:
            Counts of every episode, at the labels' original size unless the protocol says otherwise.
        """
        chosen = sampler.protocol.seeds if seeds is None else seeds
        specs = [(seed, spec) for seed in chosen for spec in sampler.episodes(seed)]
        ids = sorted({id for _, spec in specs for id in (spec.query, *spec.supports)})
        self.store.ensure(ids, [0], progress=self.progress)
        network_size = sampler.protocol.label_size == "network"
        with torch.no_grad(), self._autocast():
            scored = self._logits([spec for _, spec in specs], fusion)
            counts = [self._count(spec, scores, network_size) for spec, scores in scored]
        return EpisodeCounts.of(
            Counts.stack(counts),
            seed=[seed for seed, _ in specs],
            episode=[spec.index for _, spec in specs],
            class_id=[spec.class_id for _, spec in specs],
            query=[spec.query for _, spec in specs],
            supports=[spec.supports for _, spec in specs],
        )

    def plain(self, spec: EpisodeSpec, fusion: AnyFusion | None = None) -> Tensor:
        """Logits (2, size, size) of one episode by ``encode_support`` and ``segment``, nothing shared."""
        with torch.no_grad(), self._autocast():
            return next(iter(self._plain([spec], fusion)))[1]

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def _features(self, ids: Sequence[str]) -> Features:
        dtype = None if self.precision == "bf16" else torch.float32
        return self.store.features(ids).to(self.device, dtype)

    def _masks(self, ids: Sequence[str], class_id: int) -> Tensor:
        return binary_mask(self.store.labels(ids), class_id).to(self.device)

    def _logits(
        self, specs: Sequence[EpisodeSpec], fusion: AnyFusion | None
    ) -> Iterator[tuple[EpisodeSpec, Tensor]]:
        """Each episode's logits (2, size, size), in order, by the way that shares most."""
        method = self.method
        if not isinstance(method, PairScorer):
            return self._plain(specs, None)
        fusion = fusion or method.fusion
        several = len(specs[0].supports) > 1
        if isinstance(fusion, GuideFusion) and several:
            return self._joined(method, specs, fusion)
        if isinstance(fusion, CrossGuided) and fusion.path == "support" and several:
            return self._plain(specs, fusion)
        return self._pairwise(method, specs, fusion)

    def _plain(
        self, specs: Sequence[EpisodeSpec], fusion: AnyFusion | None
    ) -> Iterator[tuple[EpisodeSpec, Tensor]]:
        """Episodes one by one; only the features are shared."""
        method = self.method
        for spec in self._tracked("evaluating", specs):
            ids = list(spec.supports)
            masks = self._masks(ids, spec.class_id).unsqueeze(0)
            support = EncodedShots(features=self._features(ids), masks=masks)
            with _fusing(method, fusion):
                state = method.encode_support(support)
            yield spec, method.segment(self._features([spec.query]), state)[0].float()

    def _joined(
        self, method: PairScorer, specs: Sequence[EpisodeSpec], fusion: GuideFusion
    ) -> Iterator[tuple[EpisodeSpec, Tensor]]:
        """Shots joined before the decoder: guides are shared, and a query's episodes are scored together."""
        by_query: dict[str, list[int]] = defaultdict(list)
        for place, spec in enumerate(specs):
            by_query[spec.query].append(place)
        found: dict[int, Tensor] = {}
        for query, places in self._tracked("scoring queries", by_query.items()):
            for start in range(0, len(places), _CHUNK):
                chunk = places[start : start + _CHUNK]
                guides = [
                    method.join_shots(
                        Guides.stack([self._guide(method, specs[p].class_id, k) for k in specs[p].supports]),
                        len(specs[p].supports),
                        fusion,
                    )
                    for p in chunk
                ]
                found.update(zip(chunk, self._score_chunk(method, query, guides), strict=True))
        size = (self.store.size, self.store.size)
        for place, spec in enumerate(specs):
            yield spec, resize(found[place].unsqueeze(0), size)[0]

    def _pairwise(
        self, method: PairScorer, specs: Sequence[EpisodeSpec], fusion: AnyFusion
    ) -> Iterator[tuple[EpisodeSpec, Tensor]]:
        """Scores the distinct pairs that the episodes need, then fuses."""
        needed = {(s.class_id, k, s.query) for s in specs for k in s.supports}
        if isinstance(fusion, CrossGuided) and len(specs[0].supports) > 1:
            needed |= {(s.class_id, k, i) for s in specs for k in s.supports for i in s.supports}
        self._score(method, needed)
        size = (self.store.size, self.store.size)
        for spec in specs:
            scores = torch.stack([self._scores[spec.class_id, k, spec.query] for k in spec.supports])
            weights = self._weights(spec, fusion).to(scores.dtype)
            fused = fuse_scores(scores.unsqueeze(0), weights.unsqueeze(0))
            yield spec, resize(fused, size)[0]

    def _weights(self, spec: EpisodeSpec, fusion: AnyFusion) -> Tensor:
        """(K,) shares of the shots."""
        shots = len(spec.supports)
        if not isinstance(fusion, CrossGuided) or shots == 1:
            return torch.full((shots,), 1.0 / shots, device=self.device)
        ious = [[self._iou((spec.class_id, k, i), fusion) for i in spec.supports] for k in spec.supports]
        return fusion.weights(torch.tensor([ious], device=self.device))[0]

    def _iou(self, pair: Pair, fusion: CrossGuided) -> float:
        key = (pair, fusion)
        if key not in self._ious:
            class_id, _, target = pair
            masks = self._masks([target], class_id)
            self._ious[key] = float(predicted_iou(self._scores[pair].unsqueeze(0), masks, fusion)[0])
        return self._ious[key]

    def _score(self, method: PairScorer, pairs: Iterable[Pair]) -> None:
        """Scores the pairs that are not known yet, target by target: a target is encoded once."""
        by_target: dict[str, list[Pair]] = defaultdict(list)
        for pair in sorted(pairs):
            if pair not in self._scores:
                by_target[pair[2]].append(pair)
        for target, wanted in self._tracked("scoring pairs", by_target.items()):
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                guides = [self._guide(method, class_id, support) for class_id, support, _ in chunk]
                self._scores.update(zip(chunk, self._score_chunk(method, target, guides), strict=True))

    def _score_chunk(self, method: PairScorer, target: str, guides: Sequence[Guides]) -> list[Tensor]:
        """Logits (2, h, w) of one target under each guide."""
        if self._target[0] != target:
            self._target = (target, method.encode_query(self._features([target])))
        query = self._target[1]
        assert query is not None
        logits = method.score(query, Guides.stack(guides)).float()
        return [one.clone() for one in logits]

    def _guide(self, method: PairScorer, class_id: int, support: str) -> Guides:
        key = (class_id, support)
        if key not in self._guides:
            masks = self._masks([support], class_id)
            self._guides[key] = method.encode_shots(self._features([support]), masks)
        return self._guides[key]

    def _tracked(self, description: str, items: Iterable[T]) -> Iterator[T]:
        """Yields the items under a progress bar with the time left."""
        items = list(items)
        with progress_bar(self.progress) as bar:
            task = bar.add_task(description, total=len(items))
            for item in items:
                yield item
                bar.advance(task)

    def _count(self, spec: EpisodeSpec, logits: Tensor, network_size: bool) -> Counts:
        """Integer counts of one episode from its logits (2, size, size)."""
        if network_size:
            truth = self._masks([spec.query], spec.class_id)[0]
            return count((logits[1] > logits[0]).to(torch.uint8), truth)
        labels = self._original(spec.query)
        box = letterbox((int(labels.shape[0]), int(labels.shape[1])), self.store.size)
        difference = restore((logits[1:] - logits[:1]).unsqueeze(0), box)[0, 0]
        return count((difference > 0).to(torch.uint8), binary_mask(labels, spec.class_id))

    def _original(self, id: str) -> Tensor:
        if id not in self._labels:
            self._labels[id] = self.source.read_labels(id)
        return self._labels[id]


@contextmanager
def _fusing(method: FewShotSegmenter, fusion: AnyFusion | None) -> Iterator[None]:
    """Gives the method another fusion for the length of the block, and its own back."""
    if not isinstance(method, PairScorer) or fusion is None:
        yield
        return
    own, method.fusion = method.fusion, fusion
    try:
        yield
    finally:
        method.fusion = own
