"""How far a segmentation can be trusted, by signs that need no label."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.inference.model import EncodedImage, Model, Window
from fewseg.inference.segmentation import ClassQuality, Quality, probabilities
from fewseg.inference.supports import SupportSet
from fewseg.methods.fusion import region_iou
from fewseg.ops.masks import labels_of_margins
from fewseg.types import IGNORE, EncodedShots, Features, State

_ASKED = 5  # supports of a class that are asked at most, so that quality has a bounded cost
_DOUBT = 2.0  # supports' worth of belief that a raw score is right as it is


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """What the supports of one class can say of a prediction.

    Attributes:
        features: of R views that show the class.
        masks: (R, S, S) uint8 in {0, 1, 255}.
        others: the state without each of those images in turn; empty with one image.
        own: IoU in [0, 1] that the others reach on each left-out image: their own known error.
        factor: what a raw score is multiplied by, so that on the supports it comes near the known IoU in the
            mean; 1 with one image.
    """

    features: Features
    masks: Tensor
    others: tuple[State, ...]
    own: tuple[float, ...]
    factor: float


class Judge:
    """Judges predictions of one support set; a value that threads share.

    Source of the parts: reverse check after PANet's alignment (Wang et al. 2019) used as a test; agreement
    after SCL's U_k (Zhang et al. 2021, Eq. 16), leave-one-out.

    Args:
        model: the network.
        supports: the set.
    """

    def __init__(self, model: Model, supports: SupportSet) -> None:
        self.model, self.supports = model, supports
        self._lock = threading.Lock()
        self._witnesses: dict[str, Witnesses] = {}

    def witnesses(self, name: str) -> Witnesses:
        """What the supports of a class can say; computed when first asked for."""
        with self._lock:
            if name not in self._witnesses:
                self._witnesses[name] = self._call(name)
            return self._witnesses[name]

    def _call(self, name: str) -> Witnesses:
        places = self.supports.positives(name)[:_ASKED]
        rows = [self._row(place, name) for place in places]
        features = Features.stack([row for row, _ in rows]) if len(rows) > 1 else rows[0][0]
        masks = torch.stack([mask for _, mask in rows]).to(self.model.device)
        if len(self.supports.positives(name)) == 1:
            return Witnesses(features=features, masks=masks, others=(), own=(), factor=1.0)
        others, own, raw = [], [], []
        for k, place in enumerate(places):
            rest = self.supports.without(name, self.supports.shots[place].image.digest)
            others.append(self.model.state(rest.encoded(self.model.takes_negatives)))
            alone = features.select([k])
            margins = self.model.margins(alone, others[-1])
            counted = masks[k : k + 1] != IGNORE
            said = self._said(margins, self.supports.classes.index(name), counted)
            own.append(float(region_iou(said.to(torch.uint8), masks[k : k + 1])))
            rest_rows = [i for i in range(len(places)) if i != k]
            back = self._reverse(alone, said, counted, features.select(rest_rows), masks[rest_rows])
            chance = probabilities(margins[0])[self.supports.classes.index(name)]
            raw.append(_raw(back if bool(said.any()) else None, _margin(chance, said[0], counted[0])))
        factor = (sum(own) + _DOUBT) / (sum(raw) + _DOUBT)
        return Witnesses(features=features, masks=masks, others=tuple(others), own=tuple(own), factor=factor)

    def _row(self, place: int, name: str) -> tuple[Features, Tensor]:
        """The view of a shot that shows most of a class."""
        shot = self.supports.shots[place]
        mask = shot.masks[name]
        view = int((mask == 1).flatten(1).sum(dim=1).argmax())
        return shot.image.features.select([view]), mask[view]

    def judge(self, image: EncodedImage, margins: Tensor) -> Quality:
        """Judges a prediction.

        Args:
            image: the query.
            margins: (n, N, S, S) of its views.
        """
        counted = content_of(image.windows).to(margins.device)
        found: dict[str, ClassQuality] = {}
        occurs: list[str] = []
        for j, name in enumerate(self.supports.classes):
            said = self._said(margins, j, counted)
            known = self.witnesses(name)
            present = bool(said.any())
            chance = torch.stack([probabilities(view)[j] for view in margins])
            if present:
                occurs.append(name)
                reverse = self._reverse(image.features, said, counted, known.features, known.masks)
            else:
                reverse = None
            agreement = self._agreement(image, said, counted, j, known) if known.others else None
            margin = _margin(chance, said, counted)
            raw = _raw(reverse, margin) * (known.factor if present else 1.0)
            found[name] = ClassQuality(
                reverse=reverse,
                agreement=agreement,
                margin=margin,
                score=_score(raw, agreement),
                calibrated=bool(known.others),
            )
        score = min(found[name].score for name in occurs or found)
        return Quality(classes=found, score=score, calibrated=all(part.calibrated for part in found.values()))

    def _said(self, margins: Tensor, j: int, counted: Tensor) -> Tensor:
        """(n, S, S) bool: where the class of place j wins, within the image."""
        return (labels_of_margins(margins) == j + 1) & counted

    def _reverse(
        self, features: Features, said: Tensor, counted: Tensor, asked: Features, masks: Tensor
    ) -> float:
        """IoU of the supports' masks with what the prediction, as a support, finds on them."""
        view = int(said.flatten(1).sum(dim=1).argmax())
        if not bool(said[view].any()) or bool((said[view] | ~counted[view]).all()):
            return 0.0
        mask = said[view].to(torch.uint8).masked_fill(~counted[view], IGNORE)
        support = EncodedShots(features=features.select([view]), masks=mask[None, None])
        back = self.model.margins(asked, self.model.state(support))[:, 0] > 0
        return float(region_iou(back.to(torch.uint8), masks).mean())

    def _agreement(
        self, image: EncodedImage, said: Tensor, counted: Tensor, j: int, known: Witnesses
    ) -> float:
        """Mean IoU of the prediction with those of the sets that leave one image out."""
        shares = []
        for state in known.others:
            other = self._said(self.model.margins(image.features, state), j, counted)
            union = int((other | said).sum())
            shares.append(float((other & said).sum()) / union if union else 1.0)
        return sum(shares) / len(shares)


def content_of(windows: Sequence[Window]) -> Tensor:
    """(n, S, S) bool: where n views show their image and not the padding."""
    found = torch.zeros(len(windows), windows[0].box.size, windows[0].box.size, dtype=torch.bool)
    for view, window in zip(found, windows, strict=True):
        h, w = window.box.content
        view[:h, :w] = True
    return found


def _margin(chance: Tensor, said: Tensor, counted: Tensor) -> float:
    """Mean of |2 p - 1| where a class was found; where it was not, how far its best pixels stay from it."""
    if bool(said.any()):
        return float((2 * chance[said] - 1).abs().mean())
    inside = chance[counted]
    best = inside.topk(max(1, round(len(inside) * 0.01))).values.mean()
    return float((1 - 2 * best).clamp(0, 1))


def _raw(reverse: float | None, margin: float) -> float:
    """Geometric mean of what one image's prediction shows by itself: one bad sign is enough."""
    return margin if reverse is None else math.sqrt(reverse * margin)


def _score(raw: float, agreement: float | None) -> float:
    """Two thirds for the prediction's own signs, one for the supports' agreement, as factors; at most 1."""
    raw = min(1.0, raw)
    return raw if agreement is None else math.cbrt(raw * raw * agreement)
