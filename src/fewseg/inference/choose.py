"""Which method suits a user's own annotated images: a cross-validation on them chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewseg.backbones import Backbone, BackboneConfig
from fewseg.inference.model import Model, refined
from fewseg.inference.quality import HeldOut, folds_of, halves_of, held_out
from fewseg.inference.supports import SupportSet
from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.fitted import FittedConfig, LinearHead
from fewseg.methods.matcher import MatcherConfig
from fewseg.types import IGNORE, DataError

MOST_IMAGES = 50
"""That take part in the choice."""

T = TypeVar("T")

_LINEAR, _PERCEPTRON = (1e-2, 1e-1), (1e-2, 1e-3)  # decays: the first is tried first
REFINED = ", edges refined"
_THRESHOLDS = (0.5, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8)  # the first is kept where no other gains a point
_GAIN = 0.01
_LOW, _NOTHING = 0.5, 0.1
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
        name: of the chosen candidate.
        model: it.
        classes: what to expect of each class.
        candidates: name to mean expected IoU of the classes, of all that were tried, the best first.
        calibrated: whether whole images were left out; else one half of each was tested on the other, which
            promises too much.
        notes: what a user should know or do.
        held: what the chosen one made of the left-out images.
    """

    name: str
    model: Model = field(repr=False)
    classes: Mapping[str, ExpectedClass]
    candidates: Mapping[str, float]
    calibrated: bool
    notes: tuple[str, ...]
    held: tuple[HeldOut, ...] = field(repr=False)

    @property
    def log_odds(self) -> Tensor:
        """(N, 1, 1): the thresholds as log-odds, which are taken off the classes' own."""
        return torch.tensor([log_odds(own.threshold) for own in self.classes.values()]).view(-1, 1, 1)

    @property
    def lines(self) -> list[str]:
        """Sentences for a user: the choice, what to expect of each class, and the notes."""
        found = [f"chosen by your examples: {self.name}"]
        for name, own in self.classes.items():
            if own.iou is None:
                continue
            spread = "" if own.spread is None else f" ± {own.spread:.2f}"
            kind = "" if self.calibrated else ", uncalibrated"
            found.append(f"{name}: expected IoU {own.iou:.2f}{spread}{kind}, threshold {own.threshold:g}")
        return [*found, *self.notes]

    def facts(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "calibrated": self.calibrated,
            "classes": {
                name: {
                    "iou": None if own.iou is None else round(own.iou, 3),
                    "spread": None if own.spread is None else round(own.spread, 3),
                    "threshold": own.threshold,
                }
                for name, own in self.classes.items()
            },
            "candidates": {name: round(score, 3) for name, score in self.candidates.items()},
            "notes": list(self.notes),
        }


def candidate_configs(backbone: BackboneConfig) -> dict[str, list[tuple[str, MethodConfig]]]:
    """The candidates that read one backbone's maps, kind by kind; of a kind the usual one comes first."""
    stages = backbone.stages
    deep = tuple(level for level in ("layer2", "layer3") if level in stages) or stages[-2:]
    matcher = MatcherConfig(backbone=backbone, levels=deep[::-1])
    found: dict[str, list[tuple[str, MethodConfig]]] = {"matcher": [("matcher", matcher)]}
    found |= {"linear": [], "perceptron": []}
    for decay in _LINEAR:
        linear = FittedConfig(
            backbone=backbone, levels=deep, head=LinearHead(), decay=decay, cells=2000, steps=30
        )
        found["linear"].append((f"linear head on {' and '.join(deep)}, decay {decay:g}", linear))
    for decay in _PERCEPTRON:
        perceptron = FittedConfig(backbone=backbone, levels=backbone.levels, decay=decay)
        found["perceptron"].append((f"perceptron on all levels, decay {decay:g}", perceptron))
    return found


@dataclass(frozen=True, kw_only=True)
class _Built(BackboneConfig):
    """Of a network that exists already."""

    network: Backbone

    def build(self) -> Backbone:
        return self.network


def on_backbone(config: MethodConfig, backbone: Backbone) -> FewShotSegmenter:
    """Builds a method without parameters of its own on a backbone that other methods use too."""
    own = {each.name: getattr(config.backbone, each.name) for each in fields(config.backbone)}
    method: Any = replace(config, backbone=_Built(**own, network=backbone)).build()
    method.config = config
    built: FewShotSegmenter = method.eval()
    return built


def choose(encoder: Model, supports: SupportSet) -> Choice:
    """Chooses the method for a support set: the highest mean expected IoU of the classes.

    Every candidate is tested on annotated images that it was not shown, by leave-one-out, or by five folds
    where there are more than five images or groups of near-duplicates. Where nothing can be left out, one
    half of each image is tested on the other. The threshold of a class is chosen in the same way, for each
    left-out image by the others.

    Args:
        encoder: the model that encoded the supports.
        supports: the annotated images of all classes.

    Raises:
        DataError: an annotated image has features that are not finite.
    """
    for support in supports.images:
        if not all(bool(maps.isfinite().all()) for maps in support.image.features.maps.values()):
            raise DataError(
                "an annotated image has features that are not finite: are the image and the backbone's "
                "weights valid?"
            )
    images = sampled(supports.images, supports.classes, lambda s, name: s.shows(name), MOST_IMAGES)
    tested = supports.of(images)
    folds, calibrated = folds_of(tested), True
    if not any(own.shows(name) for fold in folds for own in fold.held for name in fold.rest.classes):
        folds, calibrated = halves_of(tested), False

    tried: dict[str, tuple[float, Model, dict[str, ExpectedClass], list[HeldOut]]] = {}

    def score(name: str, config: MethodConfig) -> float:
        method = on_backbone(config, encoder.method.backbone)
        held: list[HeldOut] = []
        found = 0.0
        for refine in (False, True) if encoder.refine is None else (encoder.refine,):
            own = name + REFINED if refine else name
            model = Model(
                method,
                config,
                encoder.size,
                encoder.views,
                f"auto: {own}",
                precision=encoder.precision,
                refine=refine,
            )
            held = [_refined(each) for each in held] if held else held_out(model, tested, folds)
            classes = {k: expected(held, tested.classes, j) for j, k in enumerate(tested.classes)}
            known = [each.iou for each in classes.values() if each.iou is not None]
            tried[own] = (sum(known) / max(1, len(known)), model, classes, held)
            found = max(found, tried[own][0])
            for worse in sorted(tried, key=lambda each: -tried[each][0])[1:]:
                tried[worse] = (*tried[worse][:3], [])  # at the network's size: those of the best are enough
        return found

    kinds = candidate_configs(encoder.method.backbone.config)
    first = {kind: score(*own[0]) for kind, own in kinds.items()}
    better = max((kind for kind in kinds if len(kinds[kind]) > 1), key=first.__getitem__)
    for other in kinds[better][1:]:
        score(*other)
    ranked = sorted(tried, key=lambda own: -tried[own][0])
    _, model, classes, held = tried[ranked[0]]
    choice = Choice(
        name=ranked[0],
        model=model,
        classes=classes,
        candidates={own: tried[own][0] for own in ranked},
        calibrated=calibrated,
        notes=tuple(_notes(supports, len(images), classes, calibrated)),
        held=tuple(held) if calibrated else (),
    )
    moved = tuple(replace(own, margins=own.margins - choice.log_odds) for own in choice.held)
    return replace(choice, held=moved)


def sampled(
    items: Sequence[T], classes: Sequence[str], shows: Callable[[T, str], bool], most: int
) -> list[T]:
    """At most so many of the items, evenly spaced, and alike from each class."""
    if len(items) <= most:
        return list(items)
    of_class = [[i for i, item in enumerate(items) if shows(item, name)] for name in classes]
    of_class.append([i for i, item in enumerate(items) if not any(shows(item, name) for name in classes)])
    share = max(1, most // sum(map(bool, of_class)))
    kept: set[int] = set()
    for own in of_class:
        count = min(len(own), share)
        kept |= {own[k * len(own) // count] for k in range(count)}
    return [items[i] for i in sorted(kept)]


def expected(held: Sequence[HeldOut], classes: Sequence[str], j: int) -> ExpectedClass:
    """What left-out images say of the class of place j, each at a threshold that the others chose."""
    name, both, either, shown = classes[j], [], [], []
    for each in held:
        if name not in each.known:
            continue
        true = each.image.truth(name)
        counted, inside = true != IGNORE, true == 1
        lead = _lead(each.margins, j)
        found = [(lead > bound) & counted for bound in map(log_odds, _THRESHOLDS)]
        both.append([float((own & inside).sum()) for own in found])
        either.append([float((own | inside).sum()) for own in found])
        shown.append(bool(inside.any()))
    if not any(shown):
        return ExpectedClass(iou=None, spread=None)
    hit, area = (torch.tensor(values, dtype=torch.float64) for values in (both, either))
    best = int(_iou(hit.sum(0), area.sum(0)).argmax())
    own = torch.zeros(len(hit), dtype=torch.long)
    if len(hit) > 1:
        own = _iou(hit.sum(0) - hit, area.sum(0) - area).argmax(dim=1)
    places = torch.arange(len(hit))
    chosen = float(_iou(hit[places, own].sum(), area[places, own].sum()))
    usual = float(_iou(hit[:, 0].sum(), area[:, 0].sum()))
    if best == 0 or chosen < usual + _GAIN:
        best, own, chosen = 0, torch.zeros_like(own), usual
    single = _iou(hit[places, own], area[places, own])[torch.tensor(shown)]
    spread = float(single.std()) if len(single) > 1 else None
    return ExpectedClass(iou=chosen, spread=spread, threshold=_THRESHOLDS[best])


def _lead(margins: Tensor, j: int) -> Tensor:
    """(n, S, S): by how much the class of place j leads before the background and all others."""
    others = [k for k in range(margins.shape[1]) if k != j]
    if not others:
        return margins[:, j]
    return margins[:, j] - margins[:, others].amax(dim=1).clamp(min=0)


def _refined(held: HeldOut) -> HeldOut:
    """Of the classes that are known, as a model that refines gives it."""
    margins = refined(held.margins, held.image.image.features)
    return replace(held, margins=margins)


def log_odds(chance: float) -> float:
    """Of a probability in (0, 1)."""
    return math.log(chance / (1 - chance))


def _iou(hit: Tensor, area: Tensor) -> Tensor:
    return torch.where(area > 0, hit / area.clamp(min=1), 1.0)


def _notes(
    supports: SupportSet, used: int, classes: Mapping[str, ExpectedClass], calibrated: bool
) -> list[str]:
    """What a user should know or do."""
    notes = []
    if used < len(supports.images):
        notes.append(f"the choice was made on {used} of the {len(supports.images)} annotated images")
    if not calibrated:
        notes.append(
            "no annotated image can be left out (all are one picture, or show a class each), so that "
            "the expected IoU, of one half of an image by the other, promises too much: annotate a second, "
            "different image"
        )
    for name, own in classes.items():
        marked = sum(int((s.masks[name] == 1).sum()) for s in supports.positives(name))
        if own.iou is None:
            notes.append(f"{name}: shown on one example only, so that nothing is known: annotate one more")
        elif own.iou < _NOTHING:
            notes.append(
                f"{name}: the examples say nothing of each other; are they annotated alike? Going on with "
                "them: look at the result before using it"
            )
        elif own.iou < _LOW:
            notes.append(
                f"{name}: low; annotate the first, least certain images of the contact sheet too, or try "
                "--tiles for small things in large images, or a larger --size"
            )
        if marked < _FEW_CELLS * _CELL:
            notes.append(
                f"{name}: {marked} pixels are marked at the network's size, which is few: annotate more of "
                "it, or try --tiles"
            )
    return notes
