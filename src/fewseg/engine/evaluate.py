"""The evaluation: target by target, all lines of a table together, and what they share computed once."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewseg.data.episodes import Episodes, EpisodeSpec, Way
from fewseg.data.protocols import LabelSize
from fewseg.data.source import Source
from fewseg.data.transforms import EvalView, eval_view, way_labels
from fewseg.engine.answering import Answering
from fewseg.engine.choices import Precision, Target
from fewseg.engine.executors import (
    SHARDS,
    Array,
    CrossPair,
    Executor,
    LineQuestions,
    Pair,
    Question,
    Shard,
    ShardFiles,
    SingleProcess,
    questions_of,
    split,
)
from fewseg.engine.features import FeatureStore
from fewseg.engine.plain import encoded_shots, plain_logits, scores_pairs
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import CrossGuided, Fusion, JoinedGuides, one_vs_rest
from fewseg.methods.multi_scale import added_probabilities
from fewseg.methods.pair_scorer import PairScorer
from fewseg.metrics.counts import ANY_WAY, COUNT_NAMES, Counts, EpisodeCounts, as_counts, count_ways
from fewseg.ops.geometry import resize_labels, restore
from fewseg.ops.masks import labels_of_margins
from fewseg.ops.memory import give_back
from fewseg.ops.resize import resize
from fewseg.types import Features, Guides, QueryMaps

MEMORY = 4 << 30
"""Default bytes of what an evaluation keeps."""

T = TypeVar("T", Features, Guides, Tensor)


class ByteCache:
    """An LRU cache with a budget in bytes; a value that was dropped is computed again when needed."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self._values: OrderedDict[Hashable, Features | Guides | Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The cached value of a key; computed by ``make`` if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]  # type: ignore[return-value] # a key has values of one type
        value = self._values[key] = make()
        self.bytes += _bytes(value)
        while self.bytes > self.budget and len(self._values) > 1:
            self.bytes -= _bytes(self._values.popitem(last=False)[1])
        return value


def _bytes(value: Features | Guides | Tensor) -> int:
    tensors = [value] if isinstance(value, Tensor) else list(value.maps.values())
    if isinstance(value, Guides):
        tensors += [value.keys, value.valid]
    return sum(t.numel() * t.element_size() for t in tensors)


class ImageFeatures:
    """Features and masks of the plain view of images."""

    def __init__(
        self, method: FewShotSegmenter, store: FeatureStore, cache: ByteCache, *, fp32: bool
    ) -> None:
        self.method, self.store, self._cache = method, store, cache
        self.device = method.backbone.mean.device
        self._dtype = torch.float32 if fp32 else None
        embeds = type(method).embed is not FewShotSegmenter.embed
        mapped = self.device.type == "cpu" and self._dtype in (None, store.dtype)
        self._cached = embeds or not mapped  # what is mapped from the disk takes no memory of ours

    def features(self, ids: Sequence[str]) -> Features:
        """Features of images, embedded where the method embeds."""
        features = [
            self._cache.get(("features", self.store.size, id), lambda id=id: self._read(id))  # type: ignore[misc]
            if self._cached
            else self._read(id)
            for id in ids
        ]
        return features[0] if len(features) == 1 else Features.stack(features)

    def _read(self, id: str) -> Features:
        return self.method.embed(self.store.features([id]).to(self.device, self._dtype))

    def masks(self, ids: Sequence[str], classes: Sequence[int]) -> Tensor:
        """Masks (n, size, size) of the classes in order, at the network's input size."""
        return way_labels(self.store.labels(ids), classes).to(self.device)

    def fresh(self, id: str) -> Features:
        """Features of one image by a pass of its own through the backbone: nothing is read or kept."""
        pixels = self.store.view(id, 0)[0].unsqueeze(0)
        parameter = next(self.store.backbone.parameters())
        images = pixels.to(parameter.device, parameter.dtype)
        features = self.store.backbone(images.contiguous(memory_format=torch.channels_last))
        features = features.to(dtype=self.store.dtype).to(self.device, self._dtype)
        maps = {k: v.contiguous(memory_format=torch.channels_last) for k, v in features.maps.items()}
        return self.method.embed(Features(maps=maps, image_size=features.image_size))

    def fresh_masks(self, id: str, classes: Sequence[int]) -> Tensor:
        """Masks (1, size, size) of one image, read anew."""
        return way_labels(self.store.view(id, 0)[1].unsqueeze(0), classes).to(self.device)


Shot = tuple[int, str]
"""(class, support image)."""

Guide = tuple[int, tuple[str, ...], JoinedGuides | None]
"""(class, support images, how they are joined); of a single image it is not joined."""

Groups = Mapping[str, Sequence[Sequence[Guide]]]
"""Target -> the guides that it is scored under, those of a line together and each once."""

_BATCH, _CELLS = 8, 4096

_KEY_BYTES = 512 << 20
"""Bytes of prior keys that are compared at once."""


class PairScores:
    """Scores of one target under many guides."""

    def __init__(self, method: PairScorer, images: ImageFeatures, cache: ByteCache, batch: int) -> None:
        self.method, self.images, self._cache, self.batch = method, images, cache, batch
        self._key_bytes: dict[Shot, int] = {}

    def scores(
        self, target: str, groups: Sequence[Sequence[Guide]], wanted: Collection[Guide]
    ) -> dict[Guide, Tensor]:
        """Scores (2, h, w) of a target; it is encoded once."""
        query = self.method.encode_query(self.images.features([target]))
        scores: dict[Guide, Tensor] = {}
        for group in groups:
            chunks = [group[start : start + self.batch] for start in range(0, len(group), self.batch)]
            chunks = [chunk for chunk in chunks if any(guide in wanted for guide in chunk)]
            priors = self._priors(query, group, chunks)
            for chunk in chunks:
                guides = Guides.stack([self._guide(guide) for guide in chunk])
                prior = torch.stack([_mean_prior(guide, priors) for guide in chunk])
                logits = self.method.score(query, guides, prior).float()
                for guide, score in zip(chunk, logits, strict=True):
                    scores[guide] = score.contiguous().clone()
        return scores

    def _priors(
        self, query: QueryMaps, group: Sequence[Guide], chunks: Sequence[Sequence[Guide]]
    ) -> dict[Shot, Tensor]:
        """The prior map (P, h, w) of one target under each shot: joined shots share theirs between sets."""
        needed = set(_shots(guide for chunk in chunks for guide in chunk))
        priors: dict[Shot, Tensor] = {}
        for shots in self._compared_at_once(set(_shots(group))) if needed else ():
            if not needed.isdisjoint(shots):
                guides = Guides.stack([self._single(*shot) for shot in shots])
                priors.update(zip(shots, self.method.prior_map(query, guides), strict=True))
        return priors

    def _compared_at_once(self, shots: Iterable[Shot]) -> Iterator[list[Shot]]:
        """Shots with about as many keys each, since the longest pads the others."""
        sizes = {shot: self._bytes_of_keys(shot) for shot in shots}
        chunk: list[Shot] = []
        for shot in sorted(sizes, key=lambda shot: (sizes[shot], shot)):
            if chunk and (len(chunk) == self.batch or (len(chunk) + 1) * sizes[shot] > _KEY_BYTES):
                yield chunk
                chunk = []
            chunk.append(shot)
        yield chunk

    def _bytes_of_keys(self, shot: Shot) -> int:
        if shot not in self._key_bytes:
            self._single(*shot)
        return self._key_bytes[shot]

    def _guide(self, guide: Guide) -> Guides:
        """Without prior keys: the prior maps are known by then."""
        class_id, supports, fusion = guide
        shots = [self._single(class_id, id).without_keys() for id in supports]
        return shots[0] if fusion is None else fusion.join(Guides.stack(shots), len(supports))

    def _single(self, class_id: int, support: str) -> Guides:
        """The guide of one shot: what depends on (image, class) alone, the masked layer4 among it."""

        def encode() -> Guides:
            masks = self.images.masks([support], [class_id])
            guides = self.method.encode_shots(self.images.features([support]), masks)
            self._key_bytes[class_id, support] = guides.keys.numel() * guides.keys.element_size()
            return guides

        return self._cache.get(("guide", self.images.store.size, class_id, support), encode)


def usual_batch(size: int, device: torch.device) -> int:
    """Images of ``size`` pixels, at 8 pixels a cell, that go through a head at once by default."""
    cells = ((size - 1) // 8 + 1) ** 2
    return _BATCH if device.type != "cpu" else max(1, min(_BATCH, _CELLS // cells))


def _guides(way: Way, fusion: Fusion) -> list[Guide]:
    """The guides whose scores a way is answered by."""
    if isinstance(fusion, JoinedGuides) and len(way.supports) > 1:
        return [(way.class_id, way.supports, fusion)]
    return [(way.class_id, (support,), None) for support in way.supports]


def _shots(guides: Iterable[Guide]) -> Iterator[Shot]:
    return ((class_id, id) for class_id, supports, _ in guides for id in supports)


def _mean_prior(guide: Guide, priors: Mapping[Shot, Tensor]) -> Tensor:
    """(P, h, w) of a guide: the mean over its shots."""
    class_id, supports, _ = guide
    return torch.stack([priors[class_id, id] for id in supports]).mean(dim=0)


def _groups(shard: Shard, size: int) -> Groups:
    """The guides of each target at one input size: those that a line needs and no line before it."""
    groups: dict[str, list[list[Guide]]] = defaultdict(list)
    known: set[tuple[str, Guide]] = set()
    for number, line in enumerate(shard.lines):
        if size not in line.sizes or not line.by_pairs:
            continue
        needed: dict[str, dict[Guide, None]] = defaultdict(dict)
        for question in line.questions:
            for way in question.ways:
                needed[question.target].update(dict.fromkeys(_guides(way, line.fusion)))
        for of_line, class_id, support, target in shard.cross:
            if of_line == number:
                needed[target][class_id, (support,), None] = None
        for target, guides in needed.items():
            fresh = [guide for guide in guides if (target, guide) not in known]
            if fresh:
                groups[target].append(sorted(fresh, key=lambda guide: guide[:2]))
                known.update((target, guide) for guide in fresh)
    return groups


@dataclass(frozen=True, kw_only=True)
class Line(Answering):
    """One line of a table: which episodes, and how they are answered."""

    episodes: Episodes  # which, with their N and K and their protocol
    seeds: Sequence[int] | None = None  # the protocol's by default

    def specs(self) -> list[tuple[int, EpisodeSpec]]:
        """(seed, episode) of all episodes."""
        seeds = self.episodes.protocol.seeds if self.seeds is None else self.seeds
        return [(seed, spec) for seed in seeds for spec in self.episodes.episodes(seed)]


class Evaluator:
    """Runs all lines of a table on one method, and computes once what they share.

    A question that several episodes share is answered once. Of methods that score pairs, a target is encoded
    once for all lines and scored once under each guide; a guide, of (class, support image), is made once as
    far as the memory allows. Of the others a support set is encoded once, however many queries it serves.
    Cross-guided fusions are done in two steps: first the supports' IoUs, then the answers; scores that both
    need are kept as far as the memory allows.

    ``plain`` answers one episode with nothing shared: with ``batch`` 1 both ways give the same counts, on a
    CPU to the pixel.
    """

    def __init__(
        self,
        method: FewShotSegmenter,  # on its device; it is put in eval mode
        source: Source,  # reads labels at their original size
        # features of the plain view at each input size, the default first; of images' own size, at size 0
        stores: FeatureStore | Sequence[FeatureStore],
        *,
        precision: Precision = "fp32",  # "bf16" for autocast
        # pairs, or queries of one support set, that go through the head at once; by default 8, on a CPU as
        # many as have 4096 cells together: more take about the same time a pair, and more memory
        batch: int | None = None,
        # bytes of what is kept: features, guides, labels, and at most half of it scores; what does not fit is
        # computed again, and a batch's maps come on top
        memory: int = MEMORY,
        executor: Executor | None = None,  # which processes share the work; this one by default
        progress: bool = True,
    ) -> None:
        stores = [stores] if isinstance(stores, FeatureStore) else list(stores)
        self.stores = {store.size: store for store in stores}
        if not stores or len(self.stores) != len(stores):
            raise ValueError(f"stores must have different sizes, got {[store.size for store in stores]}")
        if (batch is not None and batch < 1) or memory < 1 or precision not in ("fp32", "bf16"):
            raise ValueError(
                "precision must be fp32 or bf16, batch and memory at least 1, "
                f"got {precision!r}, {batch} and {memory}"
            )
        self.method, self.source, self.store = method.eval(), source, stores[0]
        self.precision, self.progress = precision, progress
        self.executor = executor or SingleProcess()
        device = method.backbone.mean.device
        cache = self._cache = ByteCache(max(1, memory // 2))
        self._batches = {size: (batch or usual_batch(size, device)) if size else 1 for size in self.stores}
        self._images = {
            size: ImageFeatures(method, store, cache, fp32=precision != "bf16")
            for size, store in self.stores.items()
        }
        self.images = self._images[self.store.size]
        self._pairs: dict[int, PairScores] = {}
        if isinstance(method, PairScorer):
            for size, images in self._images.items():
                self._pairs[size] = PairScores(method, images, cache, self._batches[size])
        self._scores: dict[tuple[int, str], dict[Guide, Tensor]] = {}
        self._score_bytes, self._most_score_bytes = 0, memory // 2

    def run(self, lines: Sequence[Line], work: Path | None = None) -> list[EpisodeCounts]:
        """Counts of every line; finished shards are kept in ``work``, where a killed run goes on."""
        questions = []
        for line in lines:
            protocol = line.episodes.protocol
            line_questions = self._questions([spec for _, spec in line.specs()], line, protocol.label_size)
            self._check_view(protocol.aspect, line_questions.sizes)
            questions.append(line_questions)
        shards = split(questions, _cross_pairs(questions), max(SHARDS, 4 * self.executor.workers))
        files, show = ShardFiles(work), self.progress
        self._scores, self._score_bytes = {}, 0
        with self.executor as executor:
            ious: dict[CrossPair, float] = {}
            if any(shard.cross for shard in shards):
                results = executor.run(self, "cross_iou", shards, files, progress=show)
                for shard, values in zip(shards, results, strict=True):
                    ious.update(zip(shard.cross, values.tolist(), strict=True))
            counts = executor.run(self, "counts", shards, files, ious, progress=show)
        by_line: list[dict[Question, Counts]] = [{} for _ in lines]
        for shard, rows in zip(shards, counts, strict=True):
            start = 0
            for counted, of_shard in zip(by_line, shard.lines, strict=True):
                for question in of_shard.questions:
                    counted[question] = as_counts(rows[start : start + question.rows].T)
                    start += question.rows
        return [_table(line.specs(), line.on, counted) for line, counted in zip(lines, by_line, strict=True)]

    def _questions(
        self, specs: Sequence[EpisodeSpec], how: Answering, label_size: LabelSize = "original"
    ) -> LineQuestions:
        """The questions of episodes, each once."""
        fusion, sizes = how.fusion or self.method.fusion, how.sizes or (self.store.size,)
        self.method.fusion_named(fusion.kind)  # a ValueError where it has none
        if not set(sizes) <= set(self.stores) or len(set(sizes)) != len(sizes):
            raise ValueError(
                f"sizes must be different ones of {sorted(self.stores)}, those of the stores, got {sizes}"
            )
        questions = tuple(dict.fromkeys(q for spec in specs for q in questions_of(spec, how.on)))
        shots = max((len(way.supports) for q in questions for way in q.ways), default=1)
        if isinstance(fusion, CrossGuided) and shots > 1 and len(sizes) > 1:
            raise ValueError(
                "multi-scale evaluation cannot weigh shots across sizes: give --fusion mean or average"
            )
        return LineQuestions(
            questions=questions,
            fusion=fusion,
            on=how.on,
            sizes=sizes,
            output_sizes=how.output_sizes,
            by_pairs=scores_pairs(self.method, fusion, shots),
            label_size=label_size,
        )

    def _check_view(self, aspect: Literal["kept", "stretched"], sizes: Sequence[int]) -> None:
        for size in sizes:
            plain, wanted = self.stores[size].views[0], eval_view(size, aspect)
            if plain != wanted:
                raise ValueError(
                    f"the protocol's aspect is {aspect!r} and the stored features are of {plain}: make "
                    f"{wanted} the first view of the store, as `fewseg evaluate` does"
                )

    def prepare(self, images: Sequence[str]) -> None:
        """Computes the features of images that are not on the disk yet."""
        for store in self.stores.values():
            store.ensure(images, [0], progress=self.progress)

    def cross_iou(self, shard: Shard) -> Array:
        """IoUs (len(shard.cross),) of what each support predicts on the supports of its set."""
        by_target: dict[tuple[int, str], list[CrossPair]] = defaultdict(list)
        for pair in shard.cross:
            by_target[shard.lines[pair[0]].sizes[0], pair[-1]].append(pair)
        groups = {size: _groups(shard, size) for size in self.stores}
        answers = self._answer_guides(shard)
        ious: dict[CrossPair, float] = {}
        with torch.no_grad(), self._autocast():
            for (size, target), pairs in by_target.items():
                single: set[Guide] = {(class_id, (support,), None) for _, class_id, support, _ in pairs}
                has_room = self._score_bytes < self._most_score_bytes
                needed = answers.get((size, target), set()) if has_room else set()
                pairs_of = self._pairs[size]
                scores = pairs_of.scores(target, groups[size][target], single | needed)
                masks: dict[int, Tensor] = {}
                for pair in pairs:
                    number, class_id, support, _ = pair
                    if class_id not in masks:
                        masks[class_id] = self._images[size].masks([target], [class_id])
                    logits = scores[class_id, (support,), None].unsqueeze(0)
                    fusion = shard.lines[number].fusion
                    assert isinstance(fusion, CrossGuided)  # of the pairs of a shard
                    ious[pair] = float(pairs_of.method.predicted_iou(logits, masks[class_id], fusion)[0])
                self._keep(size, target, {guide: scores[guide] for guide in needed})
                give_back()
        return np.array([ious[pair] for pair in shard.cross], dtype=np.float64)

    def _answer_guides(self, shard: Shard) -> dict[tuple[int, str], set[Guide]]:
        """(size, target) -> the guides whose scores answers need."""
        guides: dict[tuple[int, str], set[Guide]] = defaultdict(set)
        for line in shard.lines:
            for question in line.questions if line.by_pairs else ():
                for size in line.sizes:
                    for way in question.ways:
                        guides[size, question.target].update(_guides(way, line.fusion))
        return guides

    def _keep(self, size: int, target: str, scores: dict[Guide, Tensor]) -> None:
        total = sum(_bytes(score) for score in scores.values())
        if self._score_bytes + total <= self._most_score_bytes:
            self._scores[size, target] = scores
            self._score_bytes += total

    def _taken(self, size: int, target: str) -> dict[Guide, Tensor]:
        """Scores that the cross-IoU stage kept; their bytes are free again."""
        scores = self._scores.pop((size, target), {})
        self._score_bytes -= sum(_bytes(score) for score in scores.values())
        return scores

    def counts(self, shard: Shard, ious: Mapping[CrossPair, float]) -> Array:
        """Counts (rows, 6) of the shard's questions, line by line."""
        by_line: list[dict[Question, Array]] = [{} for _ in shard.lines]
        with torch.no_grad(), self._autocast():
            for number, question, logits in self._logits(shard, ious):
                counts = self._count(shard.lines[number], question, logits)
                by_line[number][question] = np.stack([getattr(counts, name) for name in COUNT_NAMES], axis=1)
        lines = zip(shard.lines, by_line, strict=True)
        rows = [counted[question] for line, counted in lines for question in line.questions]
        return np.concatenate(rows) if rows else np.empty((0, len(COUNT_NAMES)), np.int64)

    def answers(
        self, specs: Sequence[EpisodeSpec], fusion: Fusion | None = None
    ) -> Iterator[tuple[Question, Tensor]]:
        """Logits (1 + N, size, size) of each different question of episodes, in this process."""
        self._scores, self._score_bytes = {}, 0
        questions = [self._questions(specs, Answering(fusion=fusion))]
        (shard,) = split(questions, _cross_pairs(questions), 1)
        self.prepare(shard.images)
        ious = dict(zip(shard.cross, self.cross_iou(shard).tolist(), strict=True))
        stream = self._logits(shard, ious)
        while True:
            with torch.no_grad(), self._autocast():
                answer = next(stream, None)
            if answer is None:
                return
            yield answer[1:]

    def pair_ious(self, pairs: Collection[Pair], fusion: Fusion) -> dict[Pair, float]:
        """IoUs of what supports predict on targets, as a cross-guided fusion measures them."""
        size = (self.store.size,)
        line = LineQuestions(questions=(), fusion=fusion, sizes=size, by_pairs=True)
        shard = Shard((line,), tuple((0, *pair) for pair in sorted(pairs)))
        self.prepare(shard.images)
        values = self.cross_iou(shard).tolist()
        return {(c, k, i): value for (_, c, k, i), value in zip(shard.cross, values, strict=True)}

    def plain(
        self,
        spec: EpisodeSpec,
        fusion: Fusion | None = None,
        sizes: Sequence[int] = (),
        output_sizes: Sequence[int] = (),
    ) -> Tensor:
        """Logits (1 + N, size, size) of one episode, from its images on; nothing is shared or kept.

        At several sizes, of inputs or of outputs, they are the added probabilities, at the largest.
        """
        with torch.no_grad(), self._autocast(), _fusing(self.method, fusion or self.method.fusion):
            logits = []
            for size in sizes or (self.store.size,):
                images = self._images[size]
                logits.append(
                    plain_logits(self.method, spec.ways, spec.query, images.fresh, images.fresh_masks)
                )
        return _joined(logits, output_sizes)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def _logits(
        self, shard: Shard, ious: Mapping[CrossPair, float]
    ) -> Iterator[tuple[int, Question, Tensor]]:
        """The answer of every question of a shard, with the number of its line."""
        by_target: dict[str, list[tuple[int, Question]]] = defaultdict(list)
        for number, line in enumerate(shard.lines):
            if line.by_pairs:
                for question in line.questions:
                    by_target[question.target].append((number, question))
            else:
                of_sizes = [self._by_support_set(line, size) for size in line.sizes]
                for same in zip(*of_sizes, strict=True):
                    yield number, same[0][0], _joined([logits for _, logits in same], line.output_sizes)
        groups = {size: _groups(shard, size) for size in self.stores} if by_target else {}
        needed = self._answer_guides(shard)
        for target, of_target in by_target.items():
            scores = {}
            for size in self.stores:
                if (size, target) in needed:
                    scores[size] = self._taken(size, target) or self._pairs[size].scores(
                        target, groups[size][target], needed[size, target]
                    )
            for number, question in of_target:
                line = shard.lines[number]
                logits = [
                    self._from_scores(number, line, question, scores[size], size, ious) for size in line.sizes
                ]
                yield number, question, _joined(logits, line.output_sizes)
            give_back()

    def _from_scores(
        self,
        number: int,
        line: LineQuestions,
        question: Question,
        scores: Mapping[Guide, Tensor],
        size: int,
        ious: Mapping[CrossPair, float],
    ) -> Tensor:
        """Logits (1 + N, size, size); ways are joined one against the rest."""
        fused = []
        for way in question.ways:
            way_scores = torch.stack([scores[guide] for guide in _guides(way, line.fusion)])
            table = None
            if isinstance(line.fusion, CrossGuided) and len(way.supports) > 1:
                values = [[ious[number, way.class_id, k, i] for i in way.supports] for k in way.supports]
                table = torch.tensor([values], device=way_scores.device)
            weights = line.fusion.weights(1, len(way.supports), device=way_scores.device, cross_iou=table)
            fused.append(line.fusion.fuse(way_scores.unsqueeze(0), weights.to(way_scores.dtype))[0])
        logits = fused[0].unsqueeze(0) if len(fused) == 1 else one_vs_rest(torch.stack(fused)[None])
        return resize(logits, (size, size))[0]

    def _by_support_set(self, line: LineQuestions, size: int) -> Iterator[tuple[Question, Tensor]]:
        """Encodes every different support set once and lets it answer all its questions."""
        images, batch = self._images[size], self._batches[size]
        by_set: dict[tuple[Way, ...], list[Question]] = {}
        for question in line.questions:
            by_set.setdefault(question.ways, []).append(question)
        for ways, questions in by_set.items():
            with _fusing(self.method, line.fusion):
                shots = encoded_shots(
                    ways, lambda id: images.features([id]), lambda id, classes: images.masks([id], classes)
                )
                state = self.method.encode_support(shots)
            for start in range(0, len(questions), batch):
                chunk = questions[start : start + batch]
                query = images.features([question.target for question in chunk])
                yield from zip(chunk, self.method.segment(query, state).float(), strict=True)
            give_back()

    def _count(self, line: LineQuestions, question: Question, logits: Tensor) -> Counts:
        """Integer counts of one answer from its logits (1 + N, S, S)."""
        classes, size = [way.class_id for way in question.ways], max(line.sizes)
        margins = (logits[1:] - logits[:1]).unsqueeze(0)  # labels depend on these alone: a map less to resize
        if line.label_size == "network":
            truth = self._images[size].masks([question.target], classes)[0]
            predicted = labels_of_margins(resize(margins, (int(truth.shape[-2]), int(truth.shape[-1]))))[0]
            return count_ways(predicted, truth, len(classes))
        labels = self._cache.get(
            ("labels", question.target), lambda: self.source.read_labels(question.target)
        )
        view = self.stores[size].views[0]
        assert isinstance(view, EvalView)
        if line.output_sizes:
            view = replace(view, size=int(logits.shape[-1]))  # larger than the input's
        box = view.box((int(labels.shape[0]), int(labels.shape[1])))
        if isinstance(line.label_size, int):
            shown = replace(view, size=line.label_size) if size else EvalView(line.label_size)
            box = replace(box, original=shown.box(box.original).content)
            labels = resize_labels(labels, box.original)
        predicted = labels_of_margins(restore(margins, box))[0]
        return count_ways(predicted, way_labels(labels, classes), len(classes))


def _cross_pairs(lines: Sequence[LineQuestions]) -> list[CrossPair]:
    """The pairs within the support sets of several whose IoU a fusion needs."""
    pairs: dict[CrossPair, None] = {}
    for number, line in enumerate(lines):
        if isinstance(line.fusion, CrossGuided) and line.by_pairs:
            for way in {way for q in line.questions for way in q.ways if len(way.supports) > 1}:
                combinations = product(way.supports, repeat=2)
                pairs.update(((number, way.class_id, k, i), None) for k, i in combinations)
    return list(pairs)


def _joined(logits: Sequence[Tensor], output_sizes: Sequence[int]) -> Tensor:
    """The answer (1 + N, S, S) of one or of several sizes of inputs or outputs.

    A map of k + 1 cells at 8k + 1 pixels is the same bilinear function as at its own size, to be resized on.
    """
    maps = [answer.unsqueeze(0) for answer in logits]
    if output_sizes:
        maps = [resize(answer, (size, size)) for answer in maps for size in output_sizes]
    return maps[0][0] if len(maps) == 1 else added_probabilities(maps)[0]


def _table(
    specs: Sequence[tuple[int, EpisodeSpec]], on: Target, counts: Mapping[Question, Counts]
) -> EpisodeCounts:
    """One row an episode; of several ways one a way and one of any way, without supports."""
    rows: list[tuple[int, EpisodeSpec, int, tuple[str, ...]]] = []
    for seed, spec in specs:
        rows += [(seed, spec, way.class_id, way.supports) for way in spec.ways]
        if spec.others:
            rows.append((seed, spec, ANY_WAY, ("",) * len(spec.supports)))
    totals = [Counts.total([counts[q] for q in questions_of(spec, on)]) for _, spec in specs]
    return EpisodeCounts.of(
        Counts.stack(totals),
        seed=[seed for seed, _, _, _ in rows],
        episode=[spec.index for _, spec, _, _ in rows],
        class_id=[class_id for _, _, class_id, _ in rows],
        query=[spec.query for _, spec, _, _ in rows],
        supports=[supports for _, _, _, supports in rows],
    )


@contextmanager
def _fusing(method: FewShotSegmenter, fusion: Fusion) -> Iterator[None]:
    """Gives the method a different fusion within the block and restores the previous one after it."""
    previous, method.fusion = method.fusion, fusion
    try:
        yield
    finally:
        method.fusion = previous
