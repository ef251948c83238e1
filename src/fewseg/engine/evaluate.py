"""Evaluation: every distinct support set, pair and answer is computed once, whatever the episodes ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.data.episode_spec import EpisodeSpec, Way
from fewseg.data.recorded import Episodes
from fewseg.data.source import Source
from fewseg.data.transforms import way_labels
from fewseg.engine.feature_store import FeatureStore
from fewseg.engine.pair_scores import PairScores
from fewseg.engine.shared_images import SharedImages
from fewseg.fusion import CrossGuided, Fusion
from fewseg.fusion.one_vs_rest import one_vs_rest
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.pair_scorer import PairScorer
from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts
from fewseg.metrics.way_counts import count_ways
from fewseg.ops.geometry import letterbox, restore
from fewseg.ops.progress import tracked
from fewseg.ops.regions import labels_of_margins
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, State

logger = logging.getLogger(__name__)

Target = Literal["query", "support"]


@dataclass(frozen=True)
class Question:
    """What several episodes may ask alike: these supports, segment that image."""

    ways: tuple[Way, ...]
    target: str


class Evaluator:
    """Runs episodes of any N, K and fusion on one method, keeping what they share.

    A support set is encoded once, however many queries it serves, and a question that several episodes ask
    is answered once. Of methods that score pairs, a guide belongs to (class, support image) and a score to
    (class, support image, target image): 1-shot, 5-shot average and 5-shot cross-guided runs on the same
    object share them. ``plain`` answers one episode by ``encode_support`` and ``segment`` alone; both ways
    give the same counts.

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
        self.images = SharedImages(method, store, fp32=precision != "bf16")
        self._pairs = PairScores(method, self.images, progress) if isinstance(method, PairScorer) else None
        self._labels: dict[str, Tensor] = {}

    def run(
        self,
        sampler: Episodes,
        fusion: Fusion | None = None,
        seeds: Sequence[int] | None = None,
        on: Target = "query",
    ) -> EpisodeCounts:
        """Evaluates the sampler's episodes.

        Args:
            sampler: which episodes, N and K.
            fusion: how K shots become one answer; the method's own by default.
            seeds: the protocol's by default.
            on: what is segmented: the query, or the support images themselves, each of them by all supports
                of its episode (SRPNet's "(sup)" rows; their counts are summed).

        Returns:
            Counts of every episode, at the labels' original size unless the protocol says otherwise.

        Raises:
            ValueError: the method cannot use the fusion.
        """
        fusion = fusion or self.method.fusion
        if not self.method.accepts(fusion):
            kinds = ", ".join(own.kind for own in self.method.fusions)
            raise ValueError(f"{type(self.method).__name__} cannot use {fusion.kind!r}; it can use {kinds}")
        chosen = sampler.protocol.seeds if seeds is None else seeds
        specs = [(seed, spec) for seed in chosen for spec in sampler.episodes(seed)]
        ids = sorted({id for _, spec in specs for id in spec.images})
        self.store.ensure(ids, [0], progress=self.progress)
        asked = list(dict.fromkeys(q for _, spec in specs for q in _questions(spec, on)))
        network_size = sampler.protocol.label_size == "network"
        counts: dict[Question, Counts] = {}
        with torch.no_grad(), self._autocast():
            for question, logits in self._answers(asked, fusion):
                counts[question] = self._count(question, logits, network_size)
        return _table(specs, [Counts.total([counts[q] for q in _questions(spec, on)]) for _, spec in specs])

    def plain(self, spec: EpisodeSpec, fusion: Fusion | None = None) -> Tensor:
        """Logits (1 + N, size, size) of one episode by ``encode_support`` and ``segment``, nothing shared."""
        with torch.no_grad(), self._autocast():
            state = self._encoded(spec.ways, fusion or self.method.fusion)
            return self.method.segment(self.images.features([spec.query]), state)[0].float()

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        device = self.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def _answers(self, asked: Sequence[Question], fusion: Fusion) -> Iterator[tuple[Question, Tensor]]:
        """Each question's logits (1 + N, size, size), by the way that shares most."""
        several = any(len(way.supports) > 1 for question in asked[:1] for way in question.ways)
        own_path = isinstance(fusion, CrossGuided) and fusion.path == "support" and several
        if self._pairs is None or own_path:
            return self._by_support_set(asked, fusion)
        return self._by_pairs(self._pairs, asked, fusion)

    def _by_pairs(
        self, pairs: PairScores, asked: Sequence[Question], fusion: Fusion
    ) -> Iterator[tuple[Question, Tensor]]:
        """Scores every distinct (class, support, image) once; ways are joined one against the rest."""
        ways = [
            pairs.fused([(q.ways[j].class_id, q.ways[j].supports, q.target) for q in asked], fusion)
            for j in range(len(asked[0].ways))
        ]
        size = (self.store.size, self.store.size)
        for question, *scores in zip(asked, *ways, strict=True):
            logits = scores[0].unsqueeze(0) if len(scores) == 1 else one_vs_rest(torch.stack(scores)[None])
            yield question, resize(logits, size)[0]

    def _by_support_set(self, asked: Sequence[Question], fusion: Fusion) -> Iterator[tuple[Question, Tensor]]:
        """Encodes every distinct support set once and lets it answer all that it is asked."""
        by_set: dict[tuple[Way, ...], list[Question]] = {}
        for question in asked:
            by_set.setdefault(question.ways, []).append(question)
        for ways, questions in tracked(self.progress, "evaluating", by_set.items()):
            state = self._encoded(ways, fusion)
            for question in questions:
                query = self.images.features([question.target])
                yield question, self.method.segment(query, state)[0].float()

    def _encoded(self, ways: Sequence[Way], fusion: Fusion) -> State:
        classes = [way.class_id for way in ways]
        supports = [id for way in ways for id in way.supports]
        way_of = tuple(j for j, way in enumerate(ways, start=1) for _ in way.supports)
        masks = self.images.masks(supports, classes).unsqueeze(0)
        shots = EncodedShots(features=self.images.features(supports), masks=masks, way_of=way_of)
        with _fusing(self.method, fusion):
            return self.method.encode_support(shots)

    def _count(self, question: Question, logits: Tensor, network_size: bool) -> Counts:
        """Integer counts of one answer from its logits (1 + N, size, size)."""
        classes = [way.class_id for way in question.ways]
        if network_size:
            truth = self.images.masks([question.target], classes)[0]
            return count_ways(labels_of_margins(_margins(logits))[0], truth, len(classes))
        labels = self._original(question.target)
        box = letterbox((int(labels.shape[0]), int(labels.shape[1])), self.store.size)
        margins = restore(_margins(logits), box)  # labels depend on these alone: one map less to resize
        return count_ways(labels_of_margins(margins)[0], way_labels(labels, classes), len(classes))

    def _original(self, id: str) -> Tensor:
        if id not in self._labels:
            self._labels[id] = self.source.read_labels(id)
        return self._labels[id]


def _questions(spec: EpisodeSpec, on: Target) -> Iterable[Question]:
    targets = (spec.query,) if on == "query" else spec.all_supports
    return [Question(spec.ways, target) for target in targets]


def _table(specs: Sequence[tuple[int, EpisodeSpec]], counts: Sequence[Counts]) -> EpisodeCounts:
    """One row an episode; of several ways one a way and one of any way, without supports."""
    rows: list[tuple[int, EpisodeSpec, int, tuple[str, ...]]] = []
    for seed, spec in specs:
        rows += [(seed, spec, way.class_id, way.supports) for way in spec.ways]
        if spec.others:
            rows.append((seed, spec, ANY_WAY, ("",) * len(spec.supports)))
    return EpisodeCounts.of(
        Counts.stack(counts),
        seed=[seed for seed, _, _, _ in rows],
        episode=[spec.index for _, spec, _, _ in rows],
        class_id=[class_id for _, _, class_id, _ in rows],
        query=[spec.query for _, spec, _, _ in rows],
        supports=[supports for _, _, _, supports in rows],
    )


def _margins(logits: Tensor) -> Tensor:
    """Each way's logit less the background's: (1 + N, H, W) to (1, N, H, W)."""
    return (logits[1:] - logits[:1]).unsqueeze(0)


@contextmanager
def _fusing(method: FewShotSegmenter, fusion: Fusion) -> Iterator[None]:
    """Gives the method another fusion for the length of the block, and its own back."""
    own, method.fusion = method.fusion, fusion
    try:
        yield
    finally:
        method.fusion = own
