"""How far a segmentation can be trusted, estimated without labels."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.inference.model import EncodedImage, Model, Window
from fewseg.inference.supports import SupportImage, SupportSet
from fewseg.methods.base import ABSENT
from fewseg.methods.fusion import region_iou
from fewseg.ops.masks import labels_of_margins
from fewseg.types import IGNORE, EncodedShots, Features, State

_MOST = 5  # supports of a class that are compared, and folds of a cross-validation: bounds the cost
_SAME = 0.98  # correlation of two small pictures from which on they count as one
_SMALL = 24  # cells of a side of such a picture
_PIXELS = 100_000  # that probabilities are calibrated by
_PULL, _STEPS = 1e-3, 30
_DOUBT = 2.0  # supports' worth of belief that an unscaled score is right


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """How far the mask of one class can be trusted, estimated without labels.

    Attributes:
        reverse: IoU in [0, 1] of the supports' masks with those predicted for them when the predicted mask is
            the support; None where nothing was predicted, and for methods that fit a head.
        agreement: mean IoU in [0, 1] of the mask with those of the support sets that leave one image out;
            None with one support, and for methods that fit a head.
        margin: how decided the probabilities are, in [0, 1].
        score: all in one number in [0, 1]; for methods that fit a head the IoU that the probabilities expect.
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
        classes: the quality of each class.
        score: in [0, 1], the least of the classes that occur; of all classes where none does.
        calibrated: whether all classes' scores are.
    """

    classes: Mapping[str, ClassQuality]
    score: float
    calibrated: bool


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibrates one class's probabilities: that of log-odds m is the logistic function of a m + b."""

    ious: tuple[float, ...] = ()  # on each left-out image that shows the class; a is 1 and b is 0 without any
    slope: float = 1.0  # a
    shift: float = 0.0  # b
    missing: float = 0.5  # chance that an image does not show the class, by the annotated images


@dataclass(frozen=True, kw_only=True)
class References:
    """The support images that predictions of one class are compared with."""

    ious: tuple[float, ...] = ()  # that the others reach on each left-out image
    factor: float = 1.0  # of an unscaled score: brings it close to the known IoU of the supports, on average
    features: Features  # of R views that show the class
    masks: Tensor  # (R, S, S) uint8 in {0, 1, 255}
    others: tuple[State, ...] = ()  # the state without each of those images in turn


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A part of the supports, and what it is tested on."""

    rest: SupportSet
    held: tuple[SupportImage, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The prediction of a part of the supports on an image that is not in it, on the CPU."""

    image: SupportImage
    margins: Tensor  # (n, N, S, S), of all classes
    known: tuple[str, ...]  # the classes that the part shows


def folds_of(supports: SupportSet) -> list[Fold]:
    """Five parts at most, each tested on the images that it lacks; near-duplicates stay together.

    Empty where all images are one picture.
    """
    groups = _near_duplicates(supports.images)
    if len(groups) < 2:
        return []
    order = {name: i for i, name in enumerate(supports.classes)}
    groups.sort(key=lambda g: min((order[k] for s in g for k in order if s.shows(k)), default=len(order)))
    folds = []
    for start in range(min(_MOST, len(groups))):  # dealt out by class, so that each fold has some of each
        held = [support for group in groups[start::_MOST] for support in group]
        digests = {support.image.digest for support in held}
        rest = supports.of(support for support in supports.images if support.image.digest not in digests)
        if rest.classes:
            folds.append(Fold(rest=rest, held=tuple(held)))
    return folds


def halves_of(supports: SupportSet) -> list[Fold]:
    """One half of every image tested on the other, across the longer extent of what it shows."""
    parts: tuple[list[SupportImage], list[SupportImage]] = ([], [])
    for support in supports.images:
        masks = support.masks.values()
        first = _first_half(torch.stack([m == 1 for m in masks]).any(dim=0)) if masks else torch.tensor(True)
        for part, hidden in zip(parts, (~first, first), strict=True):
            cut = {k: m.masked_fill(hidden, IGNORE) for k, m in support.masks.items()}
            part.append(replace(support, masks=cut, whole={}))
    sets = [supports.of(part) for part in parts]
    return [
        Fold(rest=rest, held=tuple(held))
        for rest, held in zip(sets, reversed(parts), strict=True)
        if rest.classes
    ]


def _first_half(marked: Tensor) -> Tensor:
    """(n, S, S) bool: the side of the median of the marked places, across the axis of their larger spread."""
    places = marked.nonzero()[:, 1:].float()
    middle = marked.shape[-1] // 2
    axis = 1
    if len(places) > 1:
        axis = int(places.std(dim=0).argmax())
        middle = int(places[:, axis].median())
    line = torch.arange(marked.shape[-1]) < max(1, middle)
    return (line if axis == 1 else line[:, None]).expand_as(marked)


def _near_duplicates(images: Sequence[SupportImage]) -> list[list[SupportImage]]:
    """Groups of images that look the same."""
    groups: list[tuple[Tensor, list[SupportImage]]] = []
    for support in images:
        small = _small_picture(support.image)
        for other, group in groups:
            if other.shape == small.shape and float(other @ small) >= _SAME:
                group.append(support)
                break
        else:
            groups.append((small, [support]))
    return [group for _, group in groups]


def _small_picture(image: EncodedImage) -> Tensor:
    """The shallowest map of an image, without the padding, on a coarse grid: of unit length, mean 0."""
    maps = next(iter(image.features.maps.values())).float()
    parts = []
    for view, window in zip(maps, image.windows, strict=True):
        h, w = (
            max(1, part * side // window.box.size)
            for part, side in zip(window.box.content, view.shape[1:], strict=True)
        )
        parts.append(F.adaptive_avg_pool2d(view[:, :h, :w], _SMALL))
    small = torch.stack(parts)
    return F.normalize((small - small.mean(dim=(0, 2, 3), keepdim=True)).flatten(), dim=0)


def held_out(model: Model, supports: SupportSet, folds: Sequence[Fold]) -> list[HeldOut]:
    """Predictions of each fold on the images that it lacks."""
    results = []
    for fold in folds:
        with warnings.catch_warnings():  # of a part without background
            warnings.simplefilter("ignore", RuntimeWarning)
            state = model.state(fold.rest.encoded(model.takes_negatives))
        indices = [supports.classes.index(name) for name in fold.rest.classes]
        for support in fold.held:
            part = model.margins(support.image.features, state).cpu()
            margins = part.new_full((len(part), len(supports.classes), *part.shape[-2:]), ABSENT)
            margins[:, indices] = part
            results.append(HeldOut(image=support, margins=margins, known=fold.rest.classes))
    return results


class QualityEstimator:
    """Estimates the quality of predictions by one support set; threads may share it.

    Source of the parts: reverse check after PANet's alignment (Wang et al. 2019) used as a test; agreement
    after SCL's U_k (Zhang et al. 2021, Eq. 16), leave-one-out. Of a method that fits a head, which would be
    fitted anew for each of these checks, it is the IoU that the probabilities expect, which left-out supports
    calibrate (Platt, 1999).

    Args:
        model: the network.
        supports: encoded by it.
        held: predictions on left-out supports of a method that fits a head, where they are known already.
    """

    def __init__(self, model: Model, supports: SupportSet, held: Sequence[HeldOut] | None = None) -> None:
        self.model, self.supports, self._held = model, supports, held
        self._by_probabilities = held is not None or model.method.fits_head
        self._lock = threading.Lock()
        self._references: dict[str, References] = {}
        self._calibrations: dict[str, Calibration] = {}

    def references(self, name: str) -> References:
        """The references of a class; computed when first needed."""
        with self._lock:
            if name not in self._references:
                self._references[name] = self._compare_supports(name)
            return self._references[name]

    def calibration(self, name: str) -> Calibration:
        """The calibration of a class, for methods that fit a head; computed for all when first needed."""
        with self._lock:
            if not self._calibrations:
                if self._held is None:
                    self._held = held_out(self.model, self.supports, folds_of(self.supports))
                self._calibrations = {
                    class_name: _calibration(self._held, j, class_name, self.supports.images)
                    for j, class_name in enumerate(self.supports.classes)
                }
            return self._calibrations[name]

    def known_ious(self, name: str) -> tuple[float, ...]:
        """IoU that the other supports reach on each left-out one of a class; empty with one support."""
        with torch.inference_mode():
            return (self.calibration if self._by_probabilities else self.references)(name).ious

    def _compare_supports(self, name: str) -> References:
        index = self.supports.classes.index(name)
        shown = self.supports.positives(name)[:_MOST]
        views = [_best_view(support.masks[name]) for support in shown]
        parts = [s.image.features.select(slice(v, v + 1)) for s, v in zip(shown, views, strict=True)]
        features = Features.stack(parts) if len(parts) > 1 else parts[0]
        masks = torch.stack([s.masks[name][v] for s, v in zip(shown, views, strict=True)])
        masks = masks.to(self.model.device)
        if len(shown) == 1:
            return References(features=features, masks=masks)
        states, ious, raw_scores = [], [], []
        for k, support in enumerate(shown):
            rest = self.supports.without(name, support.image.digest)
            states.append(self.model.state(rest.encoded(self.model.takes_negatives)))
            alone = features.select([k])
            margins = self.model.margins(alone, states[-1])
            counted = masks[k : k + 1] != IGNORE
            predicted = _predicted(margins, index, counted)
            ious.append(float(region_iou(predicted.to(torch.uint8), masks[k : k + 1])))
            rows = [i for i in range(len(views)) if i != k]
            reverse = self._reverse(alone, predicted, counted, features.select(rows), masks[rows])
            chance = probabilities(margins[0])[index]
            margin = _margin(chance, predicted[0], counted[0])
            raw_scores.append(_raw(reverse if bool(predicted.any()) else None, margin))
        factor = (sum(ious) + _DOUBT) / (sum(raw_scores) + _DOUBT)
        others = tuple(states)
        return References(features=features, masks=masks, others=others, ious=tuple(ious), factor=factor)

    def estimate(self, image: EncodedImage, margins: Tensor) -> Quality:
        """The quality of a prediction, given as margins (n, N, S, S) of the image's views."""
        counted = content_of(image.windows).to(margins.device)
        classes: dict[str, ClassQuality] = {}
        occurs: list[str] = []
        for j, name in enumerate(self.supports.classes):
            predicted = _predicted(margins, j, counted)
            if bool(predicted.any()):
                occurs.append(name)
            if self._by_probabilities:
                calibration = self.calibration(name)
                chance = (calibration.slope * lead(margins, j) + calibration.shift).sigmoid()
                classes[name] = ClassQuality(
                    reverse=None,
                    agreement=None,
                    margin=_margin(chance, predicted, counted),
                    score=_expected_iou(chance, predicted, counted, calibration.missing),
                    calibrated=bool(calibration.ious),
                )
                continue
            chance = torch.stack([probabilities(view)[j] for view in margins])
            refs = self.references(name)
            reverse, agreement, factor = None, None, 1.0
            if bool(predicted.any()):
                reverse = self._reverse(image.features, predicted, counted, refs.features, refs.masks)
                factor = refs.factor
            if refs.others:
                agreement = self._agreement(image, predicted, counted, j, refs)
            margin = _margin(chance, predicted, counted)
            classes[name] = ClassQuality(
                reverse=reverse,
                agreement=agreement,
                margin=margin,
                score=_score(_raw(reverse, margin) * factor, agreement),
                calibrated=bool(refs.others),
            )
        calibrated = all(quality.calibrated for quality in classes.values())
        score = min(classes[name].score for name in occurs or classes)
        return Quality(classes=classes, score=score, calibrated=calibrated)

    def _reverse(
        self, features: Features, predicted: Tensor, counted: Tensor, targets: Features, masks: Tensor
    ) -> float:
        """IoU of the supports' masks with those predicted for them by the prediction as a support."""
        view = _best_view(predicted)
        if not bool(predicted[view].any()) or bool((predicted[view] | ~counted[view]).all()):
            return 0.0
        mask = predicted[view].to(torch.uint8).masked_fill(~counted[view], IGNORE)
        support = EncodedShots(features=features.select([view]), masks=mask[None, None])
        predicted_masks = self.model.margins(targets, self.model.state(support))[:, 0] > 0
        return float(region_iou(predicted_masks.to(torch.uint8), masks).mean())

    def _agreement(
        self, image: EncodedImage, predicted: Tensor, counted: Tensor, j: int, references: References
    ) -> float:
        """Mean IoU of the prediction with those of the sets that leave one image out."""
        ious = []
        for state in references.others:
            mask = _predicted(self.model.margins(image.features, state), j, counted)
            union = int((mask | predicted).sum())
            ious.append(float((mask & predicted).sum()) / union if union else 1.0)
        return sum(ious) / len(ious)


def probabilities(margins: Tensor) -> Tensor:
    """Probabilities (N, ...) of N classes by their log-odds (N, ...) against the background."""
    if margins.shape[0] == 1:
        return margins.sigmoid()
    zero = torch.zeros_like(margins[:1])
    return torch.cat([zero, margins]).softmax(dim=0)[1:]


def _best_view(masks: Tensor) -> int:
    """The view of (n, S, S) that shows most of a class."""
    return int((masks == 1).flatten(1).sum(dim=1).argmax())


def _predicted(margins: Tensor, j: int, counted: Tensor) -> Tensor:
    """(n, S, S) bool: where the class at index j wins, within the image."""
    return (labels_of_margins(margins) == j + 1) & counted


def content_of(windows: Sequence[Window]) -> Tensor:
    """(n, S, S) bool: where n views show their image and not the padding."""
    inside = torch.zeros(len(windows), windows[0].box.size, windows[0].box.size, dtype=torch.bool)
    for view, window in zip(inside, windows, strict=True):
        h, w = window.box.content
        view[:h, :w] = True
    return inside


def _margin(chance: Tensor, predicted: Tensor, counted: Tensor) -> float:
    """Mean of |2 p - 1| where a class is predicted; else by how far its most probable pixels miss it."""
    if bool(predicted.any()):
        return float((2 * chance[predicted] - 1).abs().mean())
    inside = chance[counted]
    best = inside.topk(max(1, round(len(inside) * 0.01))).values.mean()
    return float((1 - 2 * best).clamp(0, 1))


def _expected_iou(chance: Tensor, predicted: Tensor, counted: Tensor, missing: float) -> float:
    """The IoU that probabilities expect of a mask: pixels of the class in it by those in it or of the class.

    Of an empty mask it is the chance that the class is missing, from the annotated images, times the margin.
    """
    if not bool(predicted.any()):
        return missing * _margin(chance, predicted, counted)
    missed = chance[counted & ~predicted].sum()
    return float(chance[predicted].sum() / (predicted.sum() + missed))


def lead(margins: Tensor, j: int) -> Tensor:
    """(n, h, w): by how much the class at index j exceeds the background and all others."""
    others = [k for k in range(margins.shape[1]) if k != j]
    if not others:
        return margins[:, j]
    return margins[:, j] - margins[:, others].amax(dim=1).clamp(min=0)


def _calibration(held: Sequence[HeldOut], j: int, name: str, images: Sequence[SupportImage]) -> Calibration:
    """Calibrates the probabilities of class ``name``, at index j, on left-out images."""
    missing = (sum(not support.shows(name) for support in images) + 1) / (len(images) + 2)
    leads, inside, ious = [], [], []
    for result in held:
        if name in result.known:
            truth = result.image.truth(name)
            counted = truth != IGNORE
            leads.append(lead(result.margins, j)[counted])
            inside.append(truth[counted] == 1)
            if bool(inside[-1].any()):
                predicted = leads[-1] > 0
                ious.append(float((predicted & inside[-1]).sum() / (predicted | inside[-1]).sum()))
    if not ious:
        return Calibration(missing=missing)
    values, labels = torch.cat(leads), torch.cat(inside)
    step = max(1, len(values) // _PIXELS)
    slope, shift = _logistic(values[::step].double(), labels[::step].double())
    return Calibration(ious=tuple(ious), slope=slope, shift=shift, missing=missing)


def _logistic(values: Tensor, labels: Tensor) -> tuple[float, float]:
    """Slope and shift of a logistic regression, drawn a little towards 1 and 0, by Newton's method."""
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    inputs, weights = torch.stack([values, torch.ones_like(values)], dim=1), start.clone()
    for _ in range(_STEPS):
        chance = (inputs @ weights).sigmoid()
        gradient = inputs.T @ (chance - labels) / len(labels) + _PULL * (weights - start)
        hessian = (inputs * (chance * (1 - chance))[:, None]).T @ inputs / len(labels)
        hessian += _PULL * torch.eye(2, dtype=torch.float64)
        weights -= torch.linalg.solve(hessian, gradient).clamp(-1, 1)
    return max(0.0, float(weights[0])), float(weights[1])


def _raw(reverse: float | None, margin: float) -> float:
    """Geometric mean of reverse and margin: one bad value is enough."""
    return margin if reverse is None else math.sqrt(reverse * margin)


def _score(raw: float, agreement: float | None) -> float:
    """Geometric mean with two thirds of the weight on ``raw`` and one third on the agreement; at most 1."""
    raw = min(1.0, raw)
    return raw if agreement is None else math.cbrt(raw * raw * agreement)
