"""Which method suits a user's own annotated images: a cross-validation on them chooses."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.inference.model import Model, Views, Whole, join_views, refined, to_size
from fewseg.inference.quality import Fold, HeldOut, folds_of, halves_of, held_out, lead
from fewseg.inference.supports import SupportSet
from fewseg.methods.base import MethodConfig
from fewseg.methods.fitted import FittedConfig, LinearHead
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.mean import MeanConfig, on_backbone
from fewseg.types import IGNORE

logger = logging.getLogger(__name__)

MOST_IMAGES = 50
"""The most annotated images that take part in the choice."""

T = TypeVar("T")

_LINEAR, _PERCEPTRON = (1e-2, 1e-1), (1e-2, 1e-3)  # decays: the first is tried first
REFINED = ", edges refined"
_HALF = ", edges half refined"
SHARES = {"": 0.0, _HALF: 0.5, REFINED: 1.0}
"""Suffixes of candidates' names: how far edges are refined. A half, which was never far from the best of the
three, is taken unless another gains a point."""

_THRESHOLDS = (0.5, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8)  # the first is kept where no other gains a point
_GAIN = 0.01
_LOW = 0.5
_NOTHING = 0.1  # of the way from the IoU of marking every pixel to 1
_CELL = 64  # pixels at the network's size
_FEW_CELLS = 20


@dataclass(frozen=True, kw_only=True)
class ExpectedClass:
    """What to expect of a class on images like the annotated ones.

    Attributes:
        iou: IoU in [0, 1] over all left-out images; None where no annotated image can be left out.
        spread: standard deviation of the IoU of single images that show it; None with fewer than two.
        threshold: least probability, in (0, 1), of the class against background; chosen with the method.
    """

    iou: float | None
    spread: float | None
    threshold: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The method that suits a support set best, by a cross-validation on it.

    Attributes:
        name: name of the chosen candidate.
        model: the chosen candidate.
        classes: what to expect of each class.
        candidates: name of each tried candidate to mean expected IoU of the classes, best first.
        calibrated: whether full images were left out; else one half of each was tested on the other, which is
            too optimistic.
        notes: what a user should know or do.
        held: predictions of the chosen candidate on the left-out images.
        inputs: each input that was tried (:func:`input_of`) to the score with it.
    """

    name: str
    model: Model = field(repr=False)
    classes: Mapping[str, ExpectedClass]
    candidates: Mapping[str, float]
    calibrated: bool
    notes: tuple[str, ...]
    held: tuple[HeldOut, ...] = field(repr=False)
    inputs: Mapping[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean expected IoU of the classes."""
        return self.candidates[self.name]

    @property
    def candidate(self) -> tuple[str, MethodConfig]:
        """Name and config, without the refinement."""
        return self.name.partition(", edges")[0], self.model.config

    @property
    def input(self) -> str:
        """What the network sees of an image."""
        return input_of(self.model.views, self.model.size)

    @property
    def log_odds(self) -> Tensor:
        """(N, 1, 1): the thresholds as log-odds, to subtract from those of the classes."""
        return torch.tensor([log_odds(estimate.threshold) for estimate in self.classes.values()]).view(
            -1, 1, 1
        )

    @property
    def lines(self) -> list[str]:
        """Sentences for a user: the choice, what to expect of each class, and the notes."""
        sentences = [f"chosen by your examples: {self.name}, at {self.input}"]
        for name, estimate in self.classes.items():
            if estimate.iou is None:
                continue
            spread = "" if estimate.spread is None else f" ± {estimate.spread:.2f}"
            kind = "" if self.calibrated else ", uncalibrated"
            sentences.append(
                f"{name}: expected IoU {estimate.iou:.2f}{spread}{kind}, threshold {estimate.threshold:g}"
            )
        return [*sentences, *self.notes]

    def facts(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "input": self.input,
            "calibrated": self.calibrated,
            "classes": {
                name: {
                    "iou": None if estimate.iou is None else round(estimate.iou, 3),
                    "spread": None if estimate.spread is None else round(estimate.spread, 3),
                    "threshold": estimate.threshold,
                }
                for name, estimate in self.classes.items()
            },
            "candidates": {name: round(score, 3) for name, score in self.candidates.items()},
            "inputs": {name: round(score, 3) for name, score in self.inputs.items()},
            "notes": list(self.notes),
        }


def input_of(views: Views, size: int) -> str:
    """What a network of ``size`` pixels sees of an image, in words."""
    return f"{size} px" if isinstance(views, Whole) else f"tiles of {views.side or size} px"


def candidate_configs(backbone: BackboneConfig) -> dict[str, list[tuple[str, MethodConfig]]]:
    """The candidates on one backbone's maps by kind; the usual one of each kind comes first."""
    stages = backbone.stages
    deep = tuple(level for level in ("layer2", "layer3") if level in stages) or stages[-2:]
    matcher = MatcherConfig(backbone=backbone, levels=deep[::-1])
    candidates: dict[str, list[tuple[str, MethodConfig]]] = {"matcher": [("matcher", matcher)]}
    candidates |= {"linear": [], "perceptron": []}
    for decay in _LINEAR:
        linear = FittedConfig(
            backbone=backbone, levels=deep, head=LinearHead(), decay=decay, cells=2000, steps=30
        )
        candidates["linear"].append((f"linear head on {' and '.join(deep)}, decay {decay:g}", linear))
    for decay in _PERCEPTRON:
        perceptron = FittedConfig(backbone=backbone, levels=backbone.levels, decay=decay)
        candidates["perceptron"].append((f"perceptron on all levels, decay {decay:g}", perceptron))
    return candidates


def choose(encoder: Model, supports: SupportSet) -> Choice:
    """Chooses the method for a support set: the highest mean expected IoU of the classes.

    Every candidate is tested on annotated images that it has not seen, by leave-one-out, or by five folds
    where there are more than five images or groups of near-duplicates. Where nothing can be left out, one
    half of each image is tested on the other. The threshold of a class is chosen in the same way, for each
    left-out image by the others.

    Args:
        encoder: the model that encoded the supports.
        supports: the annotated images of all classes.
    """
    if encoder.candidate is None:
        logger.info("choosing the method by your examples, which takes a minute or more on two CPU cores")
    images = sampled(supports.images, supports.classes, lambda s, name: s.shows(name), MOST_IMAGES)
    tested = supports.of(images)
    folds, calibrated = folds_of(tested), True
    if not any(image.shows(name) for fold in folds for image in fold.held for name in fold.rest.classes):
        folds, calibrated = halves_of(tested), False

    trials = _Trials(encoder, tested, folds)
    trials.run()
    tried = trials.tried
    ranked = sorted(tried, key=lambda name: -tried[name][0])
    _, model, classes, held = tried[trials.best]
    choice = Choice(
        name=trials.best,
        model=model,
        classes=classes,
        candidates={name: tried[name][0] for name in ranked},
        calibrated=calibrated,
        notes=tuple(notes_of(supports, len(images), classes, calibrated)),
        held=tuple(held) if calibrated else (),
    )
    moved = tuple(replace(result, margins=result.margins - choice.log_odds) for result in choice.held)
    return replace(choice, held=moved, inputs={choice.input: choice.score})


class _Trials:
    """The candidates on left-out images.

    Attributes:
        tried: name to expected IoU, model, what to expect of each class, and, of the best, its predictions.
    """

    def __init__(self, encoder: Model, tested: SupportSet, folds: Sequence[Fold]) -> None:
        self._encoder, self._tested, self._folds = encoder, tested, folds
        self.tried: dict[str, tuple[float, Model, dict[str, ExpectedClass], list[HeldOut]]] = {}
        self._plain: dict[str, list[HeldOut]] = {}  # not refined, in half precision

    def run(self) -> None:
        """Tests one candidate of each kind, the others of the best kind, and means of those."""
        if self._encoder.candidate is not None:
            self._score(*self._encoder.candidate)
            return
        backbone = self._encoder.method.backbone.config
        kinds = candidate_configs(backbone)
        first = {kind: self._score(*members[0]) for kind, members in kinds.items()}
        best = max((kind for kind in kinds if len(kinds[kind]) > 1), key=first.__getitem__)
        for candidate in kinds[best][1:]:
            self._score(*candidate)
        pools = {" and ".join(kinds): [members[0] for members in kinds.values()], f"all {best}s": kinds[best]}
        for name, members in pools.items():  # no further fits
            config = MeanConfig(backbone=backbone, members=tuple(member for _, member in members))
            self._score(f"mean of {name}", config, _mean([self._plain[member] for member, _ in members]))

    @property
    def best(self) -> str:
        """The name of the candidate to take."""
        return max(self.tried, key=lambda name: self.tried[name][0] + _GAIN * name.endswith(_HALF))

    def _score(self, name: str, config: MethodConfig, held: list[HeldOut] | None = None) -> float:
        """The best expected IoU of a candidate over all refinements; ``held`` are its known predictions."""
        encoder, best = self._encoder, 0.0
        method = on_backbone(config, encoder.method.backbone)

        def model(suffix: str, share: float) -> Model:
            auto, precision = f"auto: {name}{suffix}", encoder.precision
            return Model(method, config, encoder.size, encoder.views, auto, precision=precision, refine=share)

        plain = held or held_out(model("", 0.0), self._tested, self._folds)
        sharp = [result.margins for result in plain]
        if encoder.refine != 0:
            sharp = [refined(result.margins, result.image.image.features) for result in plain]
        for suffix, share in SHARES.items():
            if encoder.refine not in (None, share):
                continue
            pairs = zip(plain, sharp, strict=True)
            results = [replace(result, margins=result.margins.lerp(other, share)) for result, other in pairs]
            classes = expected(results, self._tested.classes)
            ious = [estimate.iou for estimate in classes.values() if estimate.iou is not None]
            score = sum(ious) / max(1, len(ious))
            self.tried[name + suffix] = (score, model(suffix, share), classes, results)
            best = max(best, score)
            for worse in self.tried.keys() - {self.best}:
                self.tried[worse] = (*self.tried[worse][:3], [])  # only those of the best are used
        self._plain[name] = [replace(result, margins=result.margins.half()) for result in plain]
        return best


def sampled(
    items: Sequence[T], classes: Sequence[str], shows: Callable[[T, str], bool], most: int
) -> list[T]:
    """At most so many of the items, evenly spaced and equally many of each class, but one of each at least.

    With more classes than ``most`` there are more items than that: no class may be lost.
    """
    if len(items) <= most:
        return list(items)
    groups = [[i for i, item in enumerate(items) if shows(item, name)] for name in classes]
    groups.append([i for i, item in enumerate(items) if not any(shows(item, name) for name in classes)])
    share = max(1, most // sum(map(bool, groups)))
    indices: set[int] = set()
    for group in groups:
        count = min(len(group), share)
        indices |= {group[k * len(group) // count] for k in range(count)}
    return [items[i] for i in sorted(indices)]


def expected(held: Sequence[HeldOut], classes: Sequence[str]) -> dict[str, ExpectedClass]:
    """What to expect of each class by left-out images, each at a threshold chosen on the others."""
    counts: dict[str, list[Tensor]] = {name: [] for name in classes}
    for result in held:
        margins = margins_of(result)
        for j, name in enumerate(classes):
            if name in result.known:
                counts[name].append(_counts(lead(margins, j), truth_of(result, name)))
    return {name: _expected(torch.stack(rows)) if rows else _expected(None) for name, rows in counts.items()}


def truth_of(held: HeldOut, name: str) -> Tensor:
    """(n, h, w) in {0, 1, 255}: a class on a left-out image, at the image's own size where it is known."""
    truth = held.image.whole_truth(name)
    return held.image.truth(name) if truth is None else truth[None]


def margins_of(held: HeldOut) -> Tensor:
    """(n, N, h, w): the margins at the size of :func:`truth_of`."""
    truth = held.image.whole_truth("")
    if truth is None:
        return held.margins
    image = held.image.image
    joined = join_views(held.margins, image.windows, image.size)
    return to_size(joined, (int(truth.shape[0]), int(truth.shape[1])))[None]


def _counts(leads: Tensor, truth: Tensor) -> Tensor:
    """(3, T) of a class on an image: pixels of the intersection and of the union, whether it is shown."""
    bounds, count = sorted(map(log_odds, _THRESHOLDS)), len(_THRESHOLDS) + 1
    kind = count * ((truth == 1).to(torch.uint8) + 2 * (truth == IGNORE).to(torch.uint8))
    for bound in bounds:
        kind += leads > bound  # the number of bounds that a pixel is above
    pixels = torch.bincount(kind.flatten(), minlength=3 * count).view(3, count)[:2]
    order = [bounds.index(log_odds(chance)) for chance in _THRESHOLDS]
    outside, inside = pixels.flip(1).cumsum(1).flip(1)[:, 1:][:, order]  # above each bound
    shown = pixels[1].sum()
    return torch.stack([inside, outside + shown, (shown > 0).expand(len(bounds))]).double()


def _expected(counts: Tensor | None) -> ExpectedClass:
    """The IoU, spread and threshold of a class by its counts (n, 3, T) on left-out images."""
    if counts is None or not bool(counts[:, 2].any()):
        return ExpectedClass(iou=None, spread=None)
    intersection, union, shown = counts.unbind(dim=1)
    best = int(_iou(intersection.sum(0), union.sum(0)).argmax())
    indices = torch.zeros(len(intersection), dtype=torch.long)
    if len(intersection) > 1:
        indices = _iou(intersection.sum(0) - intersection, union.sum(0) - union).argmax(dim=1)
    rows = torch.arange(len(intersection))
    chosen = float(_iou(intersection[rows, indices].sum(), union[rows, indices].sum()))
    default = float(_iou(intersection[:, 0].sum(), union[:, 0].sum()))
    if best == 0 or chosen < default + _GAIN:
        best, indices, chosen = 0, torch.zeros_like(indices), default
    single = _iou(intersection[rows, indices], union[rows, indices])[shown[:, 0] > 0]
    spread = float(single.std()) if len(single) > 1 else None
    return ExpectedClass(iou=chosen, spread=spread, threshold=_THRESHOLDS[best])


def _mean(results: Sequence[Sequence[HeldOut]]) -> list[HeldOut]:
    """Predictions of the mean of several methods on the same left-out images."""
    return [
        replace(same[0], margins=torch.stack([result.margins.float() for result in same]).mean(dim=0))
        for same in zip(*results, strict=True)
    ]


def log_odds(chance: float) -> float:
    """The log-odds of a probability in (0, 1)."""
    return math.log(chance / (1 - chance))


def _iou(intersection: Tensor, union: Tensor) -> Tensor:
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def _share(supports: SupportSet, name: str) -> float:
    """The share of a class in the annotated pixels: the IoU of marking all of them."""
    masks = [support.masks[name] for support in supports.images if name in support.masks]
    counts = [torch.bincount(mask.flatten(), minlength=2)[:2] for mask in masks]
    return sum(int(each[1]) for each in counts) / max(1, sum(int(each.sum()) for each in counts))


def notes_of(
    supports: SupportSet, used: int, classes: Mapping[str, ExpectedClass], calibrated: bool
) -> list[str]:
    """What a user should know or do."""
    notes = []
    if used < len(supports.images):
        notes.append(f"the choice was made on {used} of the {len(supports.images)} annotated images")
    if not calibrated:
        notes.append(
            "no annotated image can be left out (all are one picture, or show a class each), so the expected "
            "IoU, of one half of an image by the other, is too optimistic: annotate a second, different image"
        )
    shares = {name: _share(supports, name) for name in classes}
    least = {name: share + _NOTHING * (1 - share) for name, share in shares.items()}
    low = [name for name, each in classes.items() if each.iou is not None and least[name] <= each.iou < _LOW]
    if low:
        notes.append(f"{', '.join(low)}: low; annotate more images, best those that are proposed at the end")
    for name, estimate in classes.items():
        marked = sum(int((support.masks[name] == 1).sum()) for support in supports.positives(name))
        if estimate.iou is None:
            notes.append(f"{name}: shown on one example only, so no IoU can be expected: annotate one more")
        elif estimate.iou < least[name]:
            notes.append(
                f"{name}: the examples do not predict each other (marking every pixel would have an IoU of "
                f"{shares[name]:.2f}); are they annotated alike? Check the result before using it"
            )
        if marked < _FEW_CELLS * _CELL:
            notes.append(
                f"{name}: {marked} pixels are marked at the network's size, which is few: annotate more of it"
            )
    return notes
