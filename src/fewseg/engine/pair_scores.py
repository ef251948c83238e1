"""Scores of (class, support, target) pairs, each computed once for all episodes, shots and fusions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fewseg.engine.shared_images import SharedImages
from fewseg.fusion import CrossGuided, Fusion, GuideFusion
from fewseg.methods.pair_scorer import PairScorer, fuse_scores, predicted_iou
from fewseg.ops.progress import tracked
from fewseg.types import Guides, QueryMaps

Pair = tuple[int, str, str]
"""(class, support image, target image)."""

Asked = tuple[int, tuple[str, ...], str]
"""(class, the K support images, target image)."""

_CHUNK = 8


class PairScores:
    """What a method of two classes keeps between episodes.

    Args:
        method: scores pairs.
        images: features and masks.
        progress: show bars with the time left.
    """

    def __init__(self, method: PairScorer, images: SharedImages, progress: bool) -> None:
        self.method, self.images, self.progress = method, images, progress
        self._guides: dict[tuple[int, str], Guides] = {}
        self._scores: dict[Pair, Tensor] = {}
        self._ious: dict[tuple[Pair, CrossGuided], float] = {}
        self._target: tuple[str, QueryMaps | None] = ("", None)

    def fused(self, asked: Sequence[Asked], fusion: Fusion) -> Iterator[Tensor]:
        """Scores (2, h, w) of each of ``asked``, in order, at feature resolution."""
        several = len(asked[0][1]) > 1
        if isinstance(fusion, GuideFusion) and several:
            scores = self._joined(asked, fusion)
        else:
            scores = self._pairwise(asked, fusion)
        return scores

    def _joined(self, asked: Sequence[Asked], fusion: GuideFusion) -> Iterator[Tensor]:
        """Shots joined before the decoder: guides are shared, and a target's sets are scored together."""
        by_target: dict[str, list[int]] = defaultdict(list)
        for place, (_, _, target) in enumerate(asked):
            by_target[target].append(place)
        found: dict[int, Tensor] = {}
        for target, places in tracked(self.progress, "scoring queries", by_target.items()):
            for start in range(0, len(places), _CHUNK):
                chunk = places[start : start + _CHUNK]
                guides = [self._joined_guide(asked[place], fusion) for place in chunk]
                found.update(zip(chunk, self._score_chunk(target, guides), strict=True))
        return (found[place] for place in range(len(asked)))

    def _joined_guide(self, asked: Asked, fusion: GuideFusion) -> Guides:
        class_id, supports, _ = asked
        guides = Guides.stack([self._guide(class_id, k) for k in supports])
        return self.method.join_shots(guides, len(supports), fusion)

    def _pairwise(self, asked: Sequence[Asked], fusion: Fusion) -> Iterator[Tensor]:
        """Scores the distinct pairs that are asked for, then fuses."""
        needed = {(c, k, target) for c, supports, target in asked for k in supports}
        if isinstance(fusion, CrossGuided) and len(asked[0][1]) > 1:
            needed |= {(c, k, i) for c, supports, _ in asked for k in supports for i in supports}
        self._score(needed)
        for class_id, supports, target in asked:
            scores = torch.stack([self._scores[class_id, k, target] for k in supports])
            weights = self._weights(class_id, supports, fusion).to(scores.dtype)
            yield fuse_scores(scores.unsqueeze(0), weights.unsqueeze(0))[0]

    def _weights(self, class_id: int, supports: Sequence[str], fusion: Fusion) -> Tensor:
        """(K,) shares of the shots."""
        shots = len(supports)
        if not isinstance(fusion, CrossGuided) or shots == 1:
            return torch.full((shots,), 1.0 / shots, device=self.images.device)
        ious = [[self._iou((class_id, k, i), fusion) for i in supports] for k in supports]
        return fusion.weights(torch.tensor([ious], device=self.images.device))[0]

    def _iou(self, pair: Pair, fusion: CrossGuided) -> float:
        key = (pair, fusion)
        if key not in self._ious:
            class_id, _, target = pair
            masks = self.images.masks([target], [class_id])
            self._ious[key] = float(predicted_iou(self._scores[pair].unsqueeze(0), masks, fusion)[0])
        return self._ious[key]

    def _score(self, pairs: Iterable[Pair]) -> None:
        """Scores the pairs that are not known yet, target by target: a target is encoded once."""
        by_target: dict[str, list[Pair]] = defaultdict(list)
        for pair in sorted(pairs):
            if pair not in self._scores:
                by_target[pair[2]].append(pair)
        for target, wanted in tracked(self.progress, "scoring pairs", by_target.items()):
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                guides = [self._guide(class_id, support) for class_id, support, _ in chunk]
                self._scores.update(zip(chunk, self._score_chunk(target, guides), strict=True))

    def _score_chunk(self, target: str, guides: Sequence[Guides]) -> list[Tensor]:
        """Logits (2, h, w) of one target under each guide."""
        if self._target[0] != target:
            self._target = (target, self.method.encode_query(self.images.features([target])))
        query = self._target[1]
        assert query is not None
        logits = self.method.score(query, Guides.stack(guides)).float()
        return [one.clone() for one in logits]

    def _guide(self, class_id: int, support: str) -> Guides:
        key = (class_id, support)
        if key not in self._guides:
            masks = self.images.masks([support], [class_id])
            self._guides[key] = self.method.encode_shots(self.images.features([support]), masks)
        return self._guides[key]
