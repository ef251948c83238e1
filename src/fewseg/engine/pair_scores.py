"""Scores of (guide, target) pairs, each computed once for all episodes, shots and fusions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fewseg.engine.byte_pool import BytePool
from fewseg.engine.shared_images import SharedImages
from fewseg.engine.shares import Pair
from fewseg.fusion import CrossGuided, Fusion, GuideFusion
from fewseg.methods.pair_scorer import PairScorer, fuse_scores, predicted_iou
from fewseg.ops.heap import give_back
from fewseg.ops.progress import tracked
from fewseg.types import Guides, QueryMaps

Asked = tuple[int, tuple[str, ...], str]
"""(class, the K support images, target image)."""

Shot = tuple[int, str]
"""(class, support image)."""

Guide = tuple[int, tuple[str, ...], GuideFusion | None]
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
        self._ious: dict[tuple[Pair, CrossGuided], float] = {}

    def prepare(self, asked: Iterable[Asked], judged: Collection[Pair], fusion: Fusion) -> dict[Pair, float]:
        """Scores what ``asked`` and ``judged`` need and is not known yet.

        Returns:
            The IoU of each pair of ``judged``.
        """
        needed = [(guide, one[2]) for one in asked for guide in _guides(one, fusion)]
        needed += [((class_id, (support,), None), target) for class_id, support, target in judged]
        self._score(dict.fromkeys(needed))
        if not isinstance(fusion, CrossGuided):
            return {}
        return {pair: self._iou(pair, fusion) for pair in judged}

    def fused(self, asked: Asked, fusion: Fusion, ious: Ious) -> Tensor:
        """Scores (2, h, w) at feature resolution of one question that ``prepare`` has seen."""
        scores = torch.stack([self._known(guide, asked[2]) for guide in _guides(asked, fusion)])
        weights = self._weights(asked, len(scores), fusion, ious).to(scores.dtype)
        return fuse_scores(scores.unsqueeze(0), weights.unsqueeze(0))[0]

    def _weights(self, asked: Asked, scored: int, fusion: Fusion, ious: Ious) -> Tensor:
        """Shares of the ``scored`` guides."""
        if not isinstance(fusion, CrossGuided) or scored == 1:
            return torch.full((scored,), 1.0 / scored, device=self.images.device)
        class_id, supports, _ = asked
        table = [[ious[class_id, k, i] for i in supports] for k in supports]
        return fusion.weights(torch.tensor([table], device=self.images.device))[0]

    def _iou(self, pair: Pair, fusion: CrossGuided) -> float:
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
        return self.method.join_shots(Guides.stack(found), len(supports), fusion)

    def _single(self, class_id: int, support: str) -> Guides:
        """The guide of one shot: what depends on (image, class) alone, the masked layer4 among it."""
        kept = self.pool.get(("guide", class_id, support))
        if kept is None:
            masks = self.images.masks([support], [class_id])
            made = self.method.encode_shots(self.images.features([support]), masks)
            kept = (made.vectors, made.keys, made.valid)
            self.pool.put(("guide", class_id, support), kept)
            self._keys[class_id, support] = made.keys.numel() * made.keys.element_size()
        return Guides(vectors=kept[0], keys=kept[1], valid=kept[2])


def usual_batch(size: int, device: torch.device) -> int:
    """Images of ``size`` pixels, at 8 pixels a cell, that go through a head at once by default."""
    cells = ((size - 1) // 8 + 1) ** 2
    return _BATCH if device.type != "cpu" else max(1, min(_BATCH, _CELLS // cells))


def judged_pairs(asked: Iterable[Asked], fusion: Fusion) -> set[Pair]:
    """The pairs of support images whose IoU a fusion needs."""
    if not isinstance(fusion, CrossGuided):
        return set()
    sets = {(class_id, supports) for class_id, supports, _ in asked if len(supports) > 1}
    return {(class_id, k, i) for class_id, supports in sets for k in supports for i in supports}


def _guides(asked: Asked, fusion: Fusion) -> list[Guide]:
    """The guides whose scores a question is answered by."""
    class_id, supports, _ = asked
    if isinstance(fusion, GuideFusion) and len(supports) > 1:
        return [(class_id, supports, fusion)]
    return [(class_id, (support,), None) for support in supports]


def _mean_prior(guide: Guide, priors: Mapping[Shot, Tensor]) -> Tensor:
    """(P, h, w) of a guide: the mean over its shots."""
    class_id, supports, _ = guide
    return torch.stack([priors[class_id, id] for id in supports]).mean(dim=0)
