"""How far a segmentation can be trusted, by signs that need no label."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.inference.model import EncodedImage, Model, Window
from fewseg.inference.supports import SupportSet
from fewseg.methods.fusion import region_iou
from fewseg.ops.masks import labels_of_margins
from fewseg.types import IGNORE, EncodedShots, Features, State

_MOST = 5  # supports of a class that are compared, so that quality has a bounded cost
_DOUBT = 2.0  # supports' worth of belief that an unscaled score is right


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """How far the mask of one class can be trusted, by signs that need no label.

    Attributes:
        reverse: IoU in [0, 1] of the supports' masks with what the predicted mask finds on them, taken as a
            support itself; None where nothing was predicted.
        agreement: mean IoU in [0, 1] of the mask with those of the support sets that leave one image out;
            None with one support.
        margin: how decided the probabilities are, in [0, 1].
        score: all in one number in [0, 1].
        calibrated: whether the score was scaled by the supports' own known IoU; never with one support.
    """

    reverse: float | None
    agreement: float | None
    margin: float
    score: float
    calibrated: bool


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far a segmentation can be trusted.

    Attributes:
        classes: of each class.
        score: in [0, 1], the least of the classes that occur; of all where none does.
        calibrated: whether all classes' scores are.
    """

    classes: Mapping[str, ClassQuality]
    score: float
    calibrated: bool


@dataclass(frozen=True, kw_only=True)
class References:
    """What predictions of one class are compared with; with one image it is that image alone."""

    features: Features  # of R views that show the class
    masks: Tensor  # (R, S, S) uint8 in {0, 1, 255}
    others: tuple[State, ...] = ()  # the state without each of those images in turn
    own: tuple[float, ...] = ()  # IoU that the others reach on each left-out image: their own known error
    factor: float = 1.0  # of an unscaled score: on the supports it comes near the known IoU in the mean


class QualityEstimator:
    """Estimates the quality of predictions by one support set; threads may share it.

    Source of the parts: reverse check after PANet's alignment (Wang et al. 2019) used as a test; agreement
    after SCL's U_k (Zhang et al. 2021, Eq. 16), leave-one-out.
    """

    def __init__(self, model: Model, supports: SupportSet) -> None:
        self.model, self.supports = model, supports
        self._lock = threading.Lock()
        self._references: dict[str, References] = {}

    def references(self, name: str) -> References:
        """Those of a class; computed when first needed."""
        with self._lock:
            if name not in self._references:
                self._references[name] = self._compare_supports(name)
            return self._references[name]

    def _compare_supports(self, name: str) -> References:
        place = self.supports.classes.index(name)
        shown = self.supports.positives(name)[:_MOST]
        views = [_best_view(support.masks[name]) for support in shown]
        parts = [s.image.features.select([v]) for s, v in zip(shown, views, strict=True)]
        features = Features.stack(parts) if len(parts) > 1 else parts[0]
        masks = torch.stack([s.masks[name][v] for s, v in zip(shown, views, strict=True)])
        masks = masks.to(self.model.device)
        if len(shown) == 1:
            return References(features=features, masks=masks)
        others, own, raw = [], [], []
        for k, support in enumerate(shown):
            rest = self.supports.without(name, support.image.digest)
            others.append(self.model.state(rest.encoded(self.model.takes_negatives)))
            alone = features.select([k])
            margins = self.model.margins(alone, others[-1])
            counted = masks[k : k + 1] != IGNORE
            predicted = _predicted(margins, place, counted)
            own.append(float(region_iou(predicted.to(torch.uint8), masks[k : k + 1])))
            rows = [i for i in range(len(views)) if i != k]
            back = self._reverse(alone, predicted, counted, features.select(rows), masks[rows])
            chance = probabilities(margins[0])[place]
            margin = _margin(chance, predicted[0], counted[0])
            raw.append(_raw(back if bool(predicted.any()) else None, margin))
        factor = (sum(own) + _DOUBT) / (sum(raw) + _DOUBT)
        return References(features=features, masks=masks, others=tuple(others), own=tuple(own), factor=factor)

    def estimate(self, image: EncodedImage, margins: Tensor) -> Quality:
        """The quality of a prediction, given as margins (n, N, S, S) of the image's views."""
        counted = content_of(image.windows).to(margins.device)
        found: dict[str, ClassQuality] = {}
        occurs: list[str] = []
        for j, name in enumerate(self.supports.classes):
            predicted = _predicted(margins, j, counted)
            known = self.references(name)
            chance = torch.stack([probabilities(view)[j] for view in margins])
            reverse, agreement, factor = None, None, 1.0
            if bool(predicted.any()):
                occurs.append(name)
                reverse = self._reverse(image.features, predicted, counted, known.features, known.masks)
                factor = known.factor
            if known.others:
                agreement = self._agreement(image, predicted, counted, j, known)
            margin = _margin(chance, predicted, counted)
            score = _score(_raw(reverse, margin) * factor, agreement)
            found[name] = ClassQuality(
                reverse=reverse,
                agreement=agreement,
                margin=margin,
                score=score,
                calibrated=bool(known.others),
            )
        score = min(found[name].score for name in occurs or found)
        return Quality(classes=found, score=score, calibrated=all(part.calibrated for part in found.values()))

    def _reverse(
        self, features: Features, predicted: Tensor, counted: Tensor, targets: Features, masks: Tensor
    ) -> float:
        """IoU of the supports' masks with what the prediction, as a support, finds on them."""
        view = _best_view(predicted)
        if not bool(predicted[view].any()) or bool((predicted[view] | ~counted[view]).all()):
            return 0.0
        mask = predicted[view].to(torch.uint8).masked_fill(~counted[view], IGNORE)
        support = EncodedShots(features=features.select([view]), masks=mask[None, None])
        back = self.model.margins(targets, self.model.state(support))[:, 0] > 0
        return float(region_iou(back.to(torch.uint8), masks).mean())

    def _agreement(
        self, image: EncodedImage, predicted: Tensor, counted: Tensor, j: int, known: References
    ) -> float:
        """Mean IoU of the prediction with those of the sets that leave one image out."""
        shares = []
        for state in known.others:
            other = _predicted(self.model.margins(image.features, state), j, counted)
            union = int((other | predicted).sum())
            shares.append(float((other & predicted).sum()) / union if union else 1.0)
        return sum(shares) / len(shares)


def probabilities(margins: Tensor) -> Tensor:
    """Probabilities (N, ...) of N classes by their log-odds (N, ...) against background, whose own are 0."""
    if margins.shape[0] == 1:
        return margins.sigmoid()
    zero = torch.zeros_like(margins[:1])
    return torch.cat([zero, margins]).softmax(dim=0)[1:]


def _best_view(masks: Tensor) -> int:
    """The view of (n, S, S) that shows most of a class."""
    return int((masks == 1).flatten(1).sum(dim=1).argmax())


def _predicted(margins: Tensor, j: int, counted: Tensor) -> Tensor:
    """(n, S, S) bool: where the class of place j wins, within the image."""
    return (labels_of_margins(margins) == j + 1) & counted


def content_of(windows: Sequence[Window]) -> Tensor:
    """(n, S, S) bool: where n views show their image and not the padding."""
    found = torch.zeros(len(windows), windows[0].box.size, windows[0].box.size, dtype=torch.bool)
    for view, window in zip(found, windows, strict=True):
        h, w = window.box.content
        view[:h, :w] = True
    return found


def _margin(chance: Tensor, predicted: Tensor, counted: Tensor) -> float:
    """Mean of |2 p - 1| where a class was found; where it was not, how far its best pixels stay from it."""
    if bool(predicted.any()):
        return float((2 * chance[predicted] - 1).abs().mean())
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
