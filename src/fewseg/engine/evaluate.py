"""Evaluation: every distinct support set, pair and answer is computed once, whatever the episodes ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fewseg.data.episode_spec import EpisodeSpec, Way
from fewseg.data.protocols import LabelSize
from fewseg.data.recorded import Episodes
from fewseg.data.source import Source
from fewseg.data.transforms import EvalView, eval_view, way_labels
from fewseg.engine.byte_pool import MEMORY, BytePool
from fewseg.engine.feature_store import FeatureStore
from fewseg.engine.pair_scores import Asked, PairScores, judged_pairs, usual_batch
from fewseg.engine.plain import plain_logits
from fewseg.engine.shared_images import SharedImages
from fewseg.engine.shares import Pair, Question, Share, Target, by_support_set, by_target, questions_of
from fewseg.engine.workforce import Alone, Task, Workforce
from fewseg.fusion import CrossGuided, Fusion
from fewseg.fusion.one_vs_rest import one_vs_rest
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.pair_scorer import PairScorer
from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts
from fewseg.metrics.way_counts import count_ways
from fewseg.ops.geometry import resize_labels, restore
from fewseg.ops.heap import give_back
from fewseg.ops.progress import tracked
from fewseg.ops.regions import labels_of_margins
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, State

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]


class Evaluator:
    """Runs episodes of any N, K and fusion on one method, keeping what they share.

    A support set is encoded once, however many queries it serves, and a question that several episodes ask
    is answered once. Of methods that score pairs, a guide belongs to (class, support image) and a score to
    (class, support image, target image): 1-shot, 5-shot average and 5-shot cross-guided runs on the same
    object share them. ``plain`` answers one episode with nothing shared: with ``batch`` 1 both ways give the
    same counts, on a CPU to the pixel.

    Args:
        method: on its device, in eval mode.
        source: reads labels at their original size.
        store: features of the plain view (view 0).
        precision: "fp32", or "bf16" for autocast.
        batch: pairs, or queries of one support set, that go through the head at once; by default 8, on a CPU
            as many as have 4096 cells together: more take about the same time a pair, and more memory.
        memory: bytes that features, guides, scores and labels may take; what is beyond lies on the disk. The
            process takes beside them what the network works on at a time: a batch's maps.
        workforce: which processes share the work; this one by default.
        progress: show bars with the time left.

    Raises:
        ValueError: ``batch`` or ``memory`` is below 1, or the precision is unknown.
    """

    def __init__(
        self,
        method: FewShotSegmenter,
        source: Source,
        store: FeatureStore,
        *,
        precision: Precision = "fp32",
        batch: int | None = None,
        memory: int = MEMORY,
        workforce: Workforce | None = None,
        progress: bool = True,
    ) -> None:
        batch = usual_batch(store.size, method.backbone.mean.device) if batch is None else batch
        if batch < 1 or memory < 1 or precision not in ("fp32", "bf16"):
            raise ValueError(
                f"got precision {precision!r}, batch {batch} and memory {memory}: give fp32 or bf16, 1 item "
                "at least and a number of bytes"
            )
        self.method, self.source, self.store = method.eval(), source, store
        self.precision, self.batch, self.progress = precision, batch, progress
        self.pool = BytePool(memory)
        self.workforce: Workforce = workforce or Alone()
        self.images = SharedImages(method, store, self.pool, fp32=precision != "bf16")
        self._pairs: PairScores | None = None
        if isinstance(method, PairScorer):
            self._pairs = PairScores(method, self.images, self.pool, batch, progress)

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
        self._check_view(sampler.protocol.aspect)
        asked = list(dict.fromkeys(q for _, spec in specs for q in questions_of(spec, on)))
        task = Task(fusion=fusion, label_size=sampler.protocol.label_size)
        shares = self.shares(asked, fusion, self.workforce.shares)
        counts = self.workforce.run(self, shares, task)
        return _table(specs, [Counts.total([counts[q] for q in questions_of(spec, on)]) for _, spec in specs])

    def shares(self, asked: Sequence[Question], fusion: Fusion, parts: int) -> list[Share]:
        """Shares out different questions; ``judge`` and ``answer`` do a share."""
        if self._paired(asked, fusion) is None:
            return by_support_set(asked, parts)
        pairs = judged_pairs((one for q in asked for one in _asked(q)), fusion)
        return by_target(asked, pairs, parts)

    def judge(self, share: Share, task: Task) -> dict[Pair, float]:
        """Scores the pairs of a share.

        Returns:
            The IoUs that the share is to find out; those of all shares go to every ``answer``.
        """
        self.store.ensure(share.images, [0], progress=self.progress)
        pairs = self._paired(share.questions, task.fusion)
        if pairs is None:
            return {}
        with torch.no_grad(), self._autocast():
            asked = (one for question in share.questions for one in _asked(question))
            return pairs.prepare(asked, share.judged, task.fusion)

    def answer(self, share: Share, task: Task, ious: Mapping[Pair, float]) -> dict[Question, Counts]:
        """Counts of every question of a share.

        Args:
            share: of ``shares``.
            task: the fusion and the size of the labels.
            ious: what ``judge`` found for all shares.
        """
        self.judge(share, task)  # nothing, unless another process did it and is gone
        with torch.no_grad(), self._autocast():
            answers = self.answers(share, task, ious)
            return {question: self._count(question, said, task.label_size) for question, said in answers}

    def answers(
        self, share: Share, task: Task, ious: Mapping[Pair, float]
    ) -> Iterator[tuple[Question, Tensor]]:
        """Logits (1 + N, size, size) of every question of a share that ``judge`` has seen."""
        pairs = self._paired(share.questions, task.fusion)
        if pairs is None:
            return self._by_support_set(share.questions, task.fusion)
        return self._by_pairs(pairs, share.questions, task.fusion, ious)

    def plain(self, spec: EpisodeSpec, fusion: Fusion | None = None) -> Tensor:
        """Logits (1 + N, size, size) of one episode, from its images on; nothing is shared or kept."""
        with torch.no_grad(), self._autocast(), _fusing(self.method, fusion or self.method.fusion):
            return plain_logits(
                self.method,
                spec.ways,
                spec.query,
                self.images.fresh,
                self.images.fresh_masks,
            )

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        device = self.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def _paired(self, asked: Sequence[Question], fusion: Fusion) -> PairScores | None:
        """The scores of pairs, where the questions can be answered by them."""
        several = any(len(way.supports) > 1 for question in asked[:1] for way in question.ways)
        own_path = isinstance(fusion, CrossGuided) and fusion.path == "support" and several
        return None if own_path else self._pairs

    def _by_pairs(
        self, pairs: PairScores, asked: Sequence[Question], fusion: Fusion, ious: Mapping[Pair, float]
    ) -> Iterator[tuple[Question, Tensor]]:
        """Logits (1 + N, size, size) from scores that are there; ways are joined one against the rest."""
        size = (self.store.size, self.store.size)
        for question in tracked(self.progress, "counting", asked):
            scores = [pairs.fused(one, fusion, ious) for one in _asked(question)]
            logits = scores[0].unsqueeze(0) if len(scores) == 1 else one_vs_rest(torch.stack(scores)[None])
            yield question, resize(logits, size)[0]

    def _by_support_set(self, asked: Sequence[Question], fusion: Fusion) -> Iterator[tuple[Question, Tensor]]:
        """Encodes every distinct support set once and lets it answer all that it is asked."""
        by_set: dict[tuple[Way, ...], list[Question]] = {}
        for question in asked:
            by_set.setdefault(question.ways, []).append(question)
        for ways, questions in tracked(self.progress, "evaluating", by_set.items()):
            state = self._encoded(ways, fusion)
            for start in range(0, len(questions), self.batch):
                chunk = questions[start : start + self.batch]
                query = self.images.features([question.target for question in chunk])
                yield from zip(chunk, self.method.segment(query, state).float(), strict=True)
            give_back()

    def _encoded(self, ways: Sequence[Way], fusion: Fusion) -> State:
        classes = [way.class_id for way in ways]
        supports = [id for way in ways for id in way.supports]
        way_of = tuple(j for j, way in enumerate(ways, start=1) for _ in way.supports)
        masks = self.images.masks(supports, classes).unsqueeze(0)
        shots = EncodedShots(features=self.images.features(supports), masks=masks, way_of=way_of)
        with _fusing(self.method, fusion):
            return self.method.encode_support(shots)

    def _check_view(self, aspect: Literal["kept", "stretched"]) -> None:
        plain, wanted = self.store.views[0], eval_view(self.store.size, aspect)
        if plain != wanted:
            raise ValueError(
                f"the protocol's aspect is {aspect!r} and the stored features are of {plain}: make "
                f"{wanted} the first view of the store, as `fewseg evaluate` does"
            )

    def _count(self, question: Question, logits: Tensor, label_size: LabelSize) -> Counts:
        """Integer counts of one answer from its logits (1 + N, size, size)."""
        classes = [way.class_id for way in question.ways]
        if label_size == "network":
            truth = self.images.masks([question.target], classes)[0]
            return count_ways(labels_of_margins(_margins(logits))[0], truth, len(classes))
        labels = self._original(question.target)
        view = self.store.views[0]
        assert isinstance(view, EvalView)
        box = view.box((int(labels.shape[0]), int(labels.shape[1])))
        if isinstance(label_size, int):
            box = replace(box, original=replace(view, size=label_size).box(box.original).content)
            labels = resize_labels(labels, box.original)
        margins = restore(_margins(logits), box)  # labels depend on these alone: one map less to resize
        return count_ways(labels_of_margins(margins)[0], way_labels(labels, classes), len(classes))

    def _original(self, id: str) -> Tensor:
        kept = self.pool.get(("labels", id))
        if kept is None:
            kept = (self.source.read_labels(id),)
            self.pool.put(("labels", id), kept)
        return kept[0]


def _asked(question: Question) -> list[Asked]:
    """What is asked of each way."""
    return [(way.class_id, way.supports, question.target) for way in question.ways]


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
