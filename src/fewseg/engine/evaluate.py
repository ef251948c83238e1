"""Tensors under names, within a budget of memory: what was used longest ago moves to a file."""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fewseg.data.episodes import Episodes, EpisodeSpec, Way
from fewseg.data.protocols import LabelSize
from fewseg.data.source import Source
from fewseg.data.transforms import EvalView, eval_view, way_labels
from fewseg.engine.executors import (
    Alone,
    Pair,
    Question,
    Share,
    Target,
    Task,
    Workforce,
    by_support_set,
    by_target,
    questions_of,
)
from fewseg.engine.features import FeatureStore
from fewseg.engine.plain import plain_logits
from fewseg.engine.precision import Precision
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import Fusion, one_vs_rest
from fewseg.methods.multi_scale import added_probabilities
from fewseg.methods.pair_scorer import PairScorer, fuse_scores, predicted_iou
from fewseg.metrics.counts import ANY_WAY, Counts, EpisodeCounts, count_ways
from fewseg.ops.files import cache_folder
from fewseg.ops.geometry import resize_labels, restore
from fewseg.ops.masks import labels_of_margins
from fewseg.ops.memory import apart, give_back
from fewseg.ops.progress import tracked
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, Features, Guides, QueryMaps, State

logger = logging.getLogger(__name__)

MEMORY = 4 << 30
"""Bytes of memory that an evaluation keeps, unless it is told another number."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the file, and how it is laid out in memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channels_last: bool


class BytePool:
    """Keeps tuples of tensors by name; nothing that was put in by ``put`` is lost.

    The tensors in memory take ``budget`` bytes at most. What is beyond goes to a file that has no name, so
    that it is gone with the process however that ends, and is read from there by memory map. Where the disk
    is full the rest stays in memory, with a warning. What lies in another file anyway (``lend``) is let go
    first, and not written again.

    Args:
        budget: bytes in memory; one entry is kept however large it is.
        folder: of the file; ``$FEWSEG_CACHE`` by default.
    """

    def __init__(self, budget: int = MEMORY, folder: Path | None = None) -> None:
        self.budget, self.bytes, self.spilled = budget, 0, 0
        self._folder = folder
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._lent: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._places: dict[Hashable, tuple[_Place, ...]] = {}
        self._file: int | None = None
        self._full = False

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept or key in self._places

    def get(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """The tensors of a name, laid out as they were put in; None where there are none."""
        for held in (self._kept, self._lent):
            if key in held:
                held.move_to_end(key)
                return held[key]
        if key not in self._places:
            return None
        found = tuple(self._read(place) for place in self._places[key])
        self._keep(key, found)
        return found

    def put(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        """Keeps tensors under a name that has none yet. They must not be views into larger ones."""
        if key not in self:
            self._keep(key, tuple(apart(tensor) for tensor in tensors))

    def lend(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        """Keeps tensors as long as there is room; who asks for them later may get None."""
        if key not in self and key not in self._lent:
            self._lent[key] = tensors
            self.bytes += _bytes(tensors)
            self._let_go()

    def _let_go(self) -> None:
        while self.bytes > self.budget and self._lent:
            self.bytes -= _bytes(self._lent.popitem(last=False)[1])

    def _keep(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        self._kept[key] = tensors
        self.bytes += _bytes(tensors)
        self._let_go()
        while self.bytes > self.budget and len(self._kept) > 1 and not self._full:
            oldest = next(iter(self._kept))
            if oldest not in self._places and not self._spill(oldest):
                return
            self.bytes -= _bytes(self._kept.pop(oldest))

    def _spill(self, key: Hashable) -> bool:
        """Writes an entry; False where the disk is full."""
        end, places = self.spilled, []
        try:
            file = self._opened()
            for tensor in self._kept[key]:
                last = _is_channels_last(tensor)
                dense = (tensor.permute(0, 2, 3, 1) if last else tensor).contiguous().cpu()
                places.append(_Place(end, tuple(dense.shape), tensor.dtype, tensor.device, last))
                end = _append(file, dense.flatten().view(torch.uint8).numpy().tobytes(), end)
        except OSError as error:
            self._full = True
            logger.warning(
                "no more of what an evaluation keeps fits on the disk of %s (%s): it stays in memory, beyond "
                "the budget of %d MiB. Free some space or set FEWSEG_CACHE to a folder on another disk",
                self._folder or cache_folder(),
                error,
                self.budget >> 20,
            )
            return False
        self.spilled, self._places[key] = end, tuple(places)
        return True

    def _opened(self) -> int:
        if self._file is None:
            folder = self._folder or cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            self._anonymous = TemporaryFile(dir=folder)  # noqa: SIM115 - as long as the pool
            self._file = self._anonymous.fileno()
        return self._file

    def _read(self, place: _Place) -> Tensor:
        size = int(np.prod(place.shape)) * place.dtype.itemsize
        if size == 0:
            return torch.empty(place.shape, dtype=place.dtype, device=place.device)
        stored = np.memmap(self._anonymous, dtype=np.uint8, mode="r", offset=place.offset, shape=(size,))
        dense = torch.from_numpy(np.array(stored)).view(place.dtype).view(place.shape)
        return apart(dense.permute(0, 3, 1, 2) if place.channels_last else dense).to(place.device)


def _append(file: int, data: bytes, start: int) -> int:
    """Writes by system calls, so that a full disk is an error and not the end of the process."""
    written = 0
    while written < len(data):
        count = os.pwrite(file, data[written:], start + written)
        if count <= 0:
            raise OSError(errno.ENOSPC, "the disk is full")
        written += count
    return start + written


def _is_channels_last(tensor: Tensor) -> bool:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class SharedImages:
    """Gives features and masks of the store's plain view; features are kept as the pool has room.

    Args:
        method: whose ``embed`` is applied, once an image.
        store: the features.
        pool: keeps embedded maps, and stored ones that the network takes in another form than they are on
            the disk, while nothing else needs the room.
        fp32: turn stored features into float32.
    """

    def __init__(self, method: FewShotSegmenter, store: FeatureStore, pool: BytePool, *, fp32: bool) -> None:
        self.method, self.store, self.pool = method, store, pool
        self.device = method.backbone.mean.device
        self._dtype = torch.float32 if fp32 else None
        self._embeds = type(method).embed is not FewShotSegmenter.embed
        self._levels: tuple[str, ...] = ()
        self._as_on_disk = self.device.type == "cpu" and self._dtype in (None, store.dtype)

    def features(self, ids: Sequence[str]) -> Features:
        """Features of images, embedded where the method embeds."""
        found = [self._embedded(id) if self._embeds else self._stored(id) for id in ids]
        return found[0] if len(found) == 1 else Features.stack(found)

    def fresh(self, id: str) -> Features:
        """The same of one image, by a pass of its own through the backbone: nothing is read or kept."""
        pixels = self.store.view(id, 0)[0].unsqueeze(0)
        parameter = next(self.store.backbone.parameters())
        images = pixels.to(parameter.device, parameter.dtype)
        found = self.store.backbone(images.contiguous(memory_format=torch.channels_last))
        found = found.to(dtype=self.store.dtype).to(self.device, self._dtype)
        maps = {k: v.contiguous(memory_format=torch.channels_last) for k, v in found.maps.items()}
        return self.method.embed(Features(maps=maps, image_size=found.image_size))

    def fresh_masks(self, id: str, classes: Sequence[int]) -> Tensor:
        """Masks (1, size, size) of one image, read anew."""
        return way_labels(self.store.view(id, 0)[1].unsqueeze(0), classes).to(self.device)

    def masks(self, ids: Sequence[str], classes: Sequence[int]) -> Tensor:
        """Masks (n, size, size) of the classes in order, at the network's input size."""
        return way_labels(self.store.labels(ids), classes).to(self.device)

    def _embedded(self, id: str) -> Features:
        kept = self.pool.get(("embedded", id))
        if kept is None:
            found = self.method.embed(self._read(id))
            self._levels, kept = tuple(found.maps), tuple(found.maps.values())
            self.pool.put(("embedded", id), kept)
        return self._features(kept)

    def _stored(self, id: str) -> Features:
        kept = self.pool.get(("stored", id))
        if kept is None:
            found = self._read(id)
            if self._as_on_disk:  # the file's own pages, which are not ours to keep
                return found
            self._levels, kept = tuple(found.maps), tuple(found.maps.values())
            self.pool.lend(("stored", id), kept)
        return self._features(kept)

    def _read(self, id: str) -> Features:
        return self.store.features([id]).to(self.device, self._dtype)

    def _features(self, maps: Sequence[Tensor]) -> Features:
        size = (self.store.size, self.store.size)
        return Features(maps=dict(zip(self._levels, maps, strict=True)), image_size=size)


Asked = tuple[int, tuple[str, ...], str]
"""(class, the K support images, target image)."""

Shot = tuple[int, str]
"""(class, support image)."""

Guide = tuple[int, tuple[str, ...], Fusion | None]
"""(class, support images, how they are joined); of a single image it is not joined."""

Ious = Mapping[Pair, float]

_BATCH, _CELLS = 8, 4096

_KEY_BYTES = 512 << 20
"""Bytes of prior keys that are compared at once."""


class PairScores:
    """What a method of two classes keeps between episodes.

    Args:
        method: scores pairs.
        images: features and masks.
        pool: keeps guides and scores; what falls out of memory is read again, never computed again.
        batch: guides that one target is scored under at once. With 1 a score does not depend on its company.
        progress: show bars with the time left.
    """

    def __init__(
        self, method: PairScorer, images: SharedImages, pool: BytePool, batch: int, progress: bool
    ) -> None:
        self.method, self.images, self.pool = method, images, pool
        self.batch, self.progress = batch, progress
        self._keys: dict[Shot, int] = {}
        self._names: tuple[str, ...] = ()
        self._ious: dict[tuple[Pair, Fusion], float] = {}

    def prepare(self, asked: Iterable[Asked], judged: Collection[Pair], fusion: Fusion) -> dict[Pair, float]:
        """Scores what ``asked`` and ``judged`` need and is not known yet.

        Returns:
            The IoU of each pair of ``judged``.
        """
        needed = [(guide, one[2]) for one in asked for guide in _guides(one, fusion)]
        needed += [((class_id, (support,), None), target) for class_id, support, target in judged]
        self._score(dict.fromkeys(needed))
        if not fusion.needs_cross_iou:
            return {}
        return {pair: self._iou(pair, fusion) for pair in judged}

    def fused(self, asked: Asked, fusion: Fusion, ious: Ious) -> Tensor:
        """Scores (2, h, w) at feature resolution of one question that ``prepare`` has seen."""
        scores = torch.stack([self._known(guide, asked[2]) for guide in _guides(asked, fusion)])
        weights = self._weights(asked, len(scores), fusion, ious).to(scores.dtype)
        return fuse_scores(scores.unsqueeze(0), weights.unsqueeze(0))[0]

    def _weights(self, asked: Asked, scored: int, fusion: Fusion, ious: Ious) -> Tensor:
        """Shares of the ``scored`` guides."""
        cross_iou, (class_id, supports, _) = None, asked
        if fusion.needs_cross_iou and scored > 1:
            table = [[ious[class_id, k, i] for i in supports] for k in supports]
            cross_iou = torch.tensor([table], device=self.images.device)
        return fusion.weights(1, scored, device=self.images.device, cross_iou=cross_iou)[0]

    def _iou(self, pair: Pair, fusion: Fusion) -> float:
        key = (pair, fusion)
        if key not in self._ious:
            class_id, support, target = pair
            masks = self.images.masks([target], [class_id])
            logits = self._known((class_id, (support,), None), target).unsqueeze(0)
            self._ious[key] = float(predicted_iou(logits, masks, fusion)[0])
        return self._ious[key]

    def _known(self, guide: Guide, target: str) -> Tensor:
        found = self.pool.get(("score", guide, target))
        assert found is not None, "not prepared"
        return found[0]

    def _score(self, pairs: Iterable[tuple[Guide, str]]) -> None:
        """Scores pairs that are not known yet, target by target: a target is encoded once."""
        by_target: dict[str, list[Guide]] = defaultdict(list)
        for guide, target in pairs:
            if ("score", guide, target) not in self.pool:
                by_target[target].append(guide)
        shots = {(guide[0], id) for guides in by_target.values() for guide in guides for id in guide[1]}
        for class_id, support in tracked(self.progress, "encoding supports", sorted(shots)):
            self._single(class_id, support)
            give_back()
        in_order = sorted(by_target.items(), key=lambda item: min(guide[0] for guide in item[1]))
        for target, wanted in tracked(self.progress, "scoring pairs", in_order):  # a class's guides stay near
            query = self.method.encode_query(self.images.features([target]))
            priors = self._priors(query, {(guide[0], id) for guide in wanted for id in guide[1]})
            order = sorted(wanted, key=lambda guide: guide[:2])
            for start in range(0, len(order), self.batch):
                chunk = order[start : start + self.batch]
                guides = Guides.stack([self._guide(guide) for guide in chunk])
                prior = torch.stack([_mean_prior(guide, priors) for guide in chunk])
                logits = self.method.score(query, guides, prior).float()
                for guide, one in zip(chunk, logits, strict=True):
                    self.pool.put(("score", guide, target), (one.contiguous().clone(),))
                give_back()

    def _priors(self, query: QueryMaps, shots: set[Shot]) -> dict[Shot, Tensor]:
        """The prior map (P, h, w) of one target under each shot: joined shots share theirs between sets."""
        found: dict[Shot, Tensor] = {}
        for chunk in self._chunks(shots):
            guides = Guides.stack([self._single(*shot) for shot in chunk])
            found.update(zip(chunk, self.method.prior_map(query, guides), strict=True))
        return found

    def _chunks(self, shots: Iterable[Shot]) -> Iterator[list[Shot]]:
        """Shots compared at once: with about as many keys each, since the longest pads the others."""
        chunk: list[Shot] = []
        for shot in sorted(shots, key=lambda shot: (self._keys[shot], shot)):
            if chunk and (len(chunk) == self.batch or (len(chunk) + 1) * self._keys[shot] > _KEY_BYTES):
                yield chunk
                chunk = []
            chunk.append(shot)
        yield chunk

    def _guide(self, guide: Guide) -> Guides:
        """Without prior keys: the prior maps are known by then."""
        class_id, supports, fusion = guide
        found = [self._single(class_id, id).without_keys() for id in supports]
        if fusion is None:
            return found[0]
        return fusion.join(Guides.stack(found), len(supports))

    def _single(self, class_id: int, support: str) -> Guides:
        """The guide of one shot: what depends on (image, class) alone, the masked layer4 among it."""
        kept = self.pool.get(("guide", class_id, support))
        if kept is None:
            masks = self.images.masks([support], [class_id])
            made = self.method.encode_shots(self.images.features([support]), masks)
            self._names = tuple(made.maps)
            kept = (*made.maps.values(), made.keys, made.valid)
            self.pool.put(("guide", class_id, support), kept)
            self._keys[class_id, support] = made.keys.numel() * made.keys.element_size()
        *maps, keys, valid = kept
        return Guides(maps=dict(zip(self._names, maps, strict=True)), keys=keys, valid=valid)


def usual_batch(size: int, device: torch.device) -> int:
    """Images of ``size`` pixels, at 8 pixels a cell, that go through a head at once by default."""
    cells = ((size - 1) // 8 + 1) ** 2
    return _BATCH if device.type != "cpu" else max(1, min(_BATCH, _CELLS // cells))


def judged_pairs(asked: Iterable[Asked], fusion: Fusion) -> set[Pair]:
    """The pairs of support images whose IoU a fusion needs."""
    if not fusion.needs_cross_iou:
        return set()
    sets = {(class_id, supports) for class_id, supports, _ in asked if len(supports) > 1}
    return {(class_id, k, i) for class_id, supports in sets for k in supports for i in supports}


def _guides(asked: Asked, fusion: Fusion) -> list[Guide]:
    """The guides whose scores a question is answered by."""
    class_id, supports, _ = asked
    if fusion.joins_guides and len(supports) > 1:
        return [(class_id, supports, fusion)]
    return [(class_id, (support,), None) for support in supports]


def _mean_prior(guide: Guide, priors: Mapping[Shot, Tensor]) -> Tensor:
    """(P, h, w) of a guide: the mean over its shots."""
    class_id, supports, _ = guide
    return torch.stack([priors[class_id, id] for id in supports]).mean(dim=0)


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
        own_path = fusion.cross_path == "support" and several
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


class MultiScaleEvaluator(Evaluator):
    """Adds the probabilities that evaluators of one method give at different sizes (SD-AANet, Table IV).

    Every size has features, guides and scores of its own, kept as at a single one. Counts are made at the
    labels' size, or at the largest input where the protocol counts at the network's.

    Args:
        scales: one evaluator a size, of the same method, source and precision.

    Raises:
        ValueError: no evaluator, or two of one size.
    """

    def __init__(self, scales: Sequence[Evaluator]) -> None:
        sizes = [scale.store.size for scale in scales]
        if not sizes or len(set(sizes)) != len(sizes):
            raise ValueError(f"sizes {sizes}: give one evaluator or more, each of another size")
        largest = scales[sizes.index(max(sizes))]
        super().__init__(
            largest.method,
            largest.source,
            largest.store,
            precision=largest.precision,
            batch=largest.batch,
            workforce=largest.workforce,
            progress=largest.progress,
        )
        self.scales = tuple(scales)

    def judge(self, share: Share, task: Task) -> dict[Pair, float]:
        """Scores the pairs of a share at every size; see ``Evaluator.judge``.

        Raises:
            ValueError: the shots are fused cross-guided, whose weights differ between sizes.
        """
        if task.fusion.needs_cross_iou and share.judged:
            raise ValueError(
                "multi-scale evaluation cannot weigh shots across sizes: give --fusion mean or average"
            )
        for scale in self.scales:
            scale.judge(share, task)
        return {}

    def answers(
        self, share: Share, task: Task, ious: Mapping[Pair, float]
    ) -> Iterator[tuple[Question, Tensor]]:
        """Added probabilities (1 + N, S, S) of every question, S the largest size."""
        for same in zip(*(scale.answers(share, task, ious) for scale in self.scales), strict=True):
            (question,) = {question for question, _ in same}
            yield question, added_probabilities([logits.unsqueeze(0) for _, logits in same])[0]

    def plain(self, spec: EpisodeSpec, fusion: Fusion | None = None) -> Tensor:
        """Added probabilities (1 + N, S, S) of one episode; nothing is shared or kept."""
        return added_probabilities([scale.plain(spec, fusion).unsqueeze(0) for scale in self.scales])[0]
