"""One episode, image, shot and pair at a time: what the evaluator's shared work is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewseg.data.episodes import Way
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import CrossGuided, Fusion, JoinedGuides, one_vs_rest
from fewseg.methods.pair_scorer import PairScorer
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, Features, Guides, RaggedShots

ReadMasks = Callable[[str, Sequence[int]], Tensor]
"""(image, classes in order) -> (1, H, W)."""


def scores_pairs(method: FewShotSegmenter, fusion: Fusion, shots: int) -> bool:
    """Whether K shots are answered by scores of (support, target) pairs, and not by a path of their own."""
    if method.image_scales:
        return False  # what is fed back is the answer of all shots
    return isinstance(method, PairScorer) and (
        shots == 1 or not isinstance(fusion, CrossGuided) or fusion.path == "query"
    )


def encoded_shots(
    ways: Sequence[Way], features: Callable[[str], Features], masks: ReadMasks
) -> EncodedShots | RaggedShots:
    """One support set of N ways: its features, and its masks numbered by way."""
    supports, classes = [id for way in ways for id in way.supports], [way.class_id for way in ways]
    way_of = tuple(j for j, way in enumerate(ways, start=1) for _ in way.supports)
    shots = [features(id) for id in supports]
    truth = [masks(id, classes) for id in supports]
    if len({shot.image_size for shot in shots}) == 1:
        return EncodedShots(features=Features.stack(shots), masks=torch.cat(truth)[None], way_of=way_of)
    pairs = zip(shots, truth, strict=True)
    return RaggedShots(
        shots=tuple(EncodedShots(features=shot, masks=mask[None]) for shot, mask in pairs), way_of=way_of
    )


def plain_logits(
    method: FewShotSegmenter,
    ways: Sequence[Way],
    target: str,
    features: Callable[[str], Features],
    masks: Callable[[str, Sequence[int]], Tensor],
) -> Tensor:
    """Logits (1 + N, H, W) of one target under the method's own fusion; nothing is kept."""
    if isinstance(method, PairScorer) and scores_pairs(
        method, method.fusion, max(len(way.supports) for way in ways)
    ):
        query = features(target)
        scores = [_pairwise(method, method.fusion, way, query, features, masks) for way in ways]
        logits = scores[0] if len(scores) == 1 else one_vs_rest(torch.stack(scores, dim=1))
        return resize(logits, query.image_size)[0]
    support = encoded_shots(ways, features, masks)
    return method.segment(features(target), method.encode_support(support))[0].float()


def _pairwise(
    method: PairScorer,
    fusion: Fusion,
    way: Way,
    query: Features,
    features: Callable[[str], Features],
    masks: Callable[[str, Sequence[int]], Tensor],
) -> Tensor:
    """Scores (1, 2, h, w) of one way."""
    shots = len(way.supports)
    read = {id: features(id) for id in way.supports}
    truth = {id: masks(id, [way.class_id]) for id in way.supports}
    guides = [method.encode_shots(read[id], truth[id]) for id in way.supports]
    device, cross_iou = truth[way.supports[0]].device, None
    if shots > 1 and isinstance(fusion, JoinedGuides):
        guides = [fusion.join(Guides.stack(guides), shots)]
    elif shots > 1 and isinstance(fusion, CrossGuided):
        maps = {id: method.encode_query(shot) for id, shot in read.items()}
        ious = [
            [
                float(method.predicted_iou(method.score(maps[i], guide).float(), truth[i], fusion)[0])
                for i in way.supports
            ]
            for guide in guides
        ]
        cross_iou = torch.tensor([ious], device=device)
    weights = fusion.weights(1, shots, device=device, cross_iou=cross_iou)
    encoded = method.encode_query(query)
    scores = torch.stack([method.score(encoded, guide).float().contiguous() for guide in guides], dim=1)
    return fusion.fuse(scores, weights.to(scores.dtype))
