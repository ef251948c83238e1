"""The summary of a folder run: how good its masks seem, and what to do where they are poor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.annotations.values import counted
from fewseg.inference.choose import input_of, log_odds
from fewseg.inference.input_size import larger
from fewseg.inference.model import GUIDE, EncodedImage, Tiles, Whole
from fewseg.inference.segmentation import Segmentation, Session

Verdict = Literal["good", "check", "bad"]
"""A quality or an expected IoU in words."""

_GOOD, _LOW = 0.75, 0.5  # least expected IoU or quality of a good mask, and of one to check
_NEXT = 3  # images that are proposed for annotation
_LEAST, _SHARE = 20, 0.25  # they are chosen from this many of the least certain images, or this share of all
_LOOKS = 1000  # least certain images that are kept, with their features: some kilobytes each
_LARGE = 1.5  # an image is large from this many sides of the network's input on


def verdict(score: float) -> Verdict:
    """Rates a quality or an expected IoU, in [0, 1], in one word, by the two digits that are shown."""
    shown = round(score, 2)
    return "good" if shown >= _GOOD else "check" if shown >= _LOW else "bad"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """A labelled image: its name, quality and mean feature."""

    name: str
    score: float
    look: Tensor


@dataclass(kw_only=True)
class Findings:
    """Counts of labelled images, and the least certain of them: the size does not grow with their number.

    Attributes:
        judged: name to image, of the least certain images.
        others: number of images that are more certain.
        shown: class to the number of images that it is found on.
        scores: class to the sum of its scores on them.
        rough: classes with a score that is not calibrated.
        sides: longer side of an image, in pixels, to the number of such images.
    """

    judged: dict[str, _Judged] = field(default_factory=dict)
    others: int = 0
    shown: Counter[str] = field(default_factory=Counter)
    scores: dict[str, float] = field(default_factory=dict)
    rough: set[str] = field(default_factory=set)
    sides: Counter[int] = field(default_factory=Counter)

    def add(self, other: Findings) -> None:
        """Adds the findings of other images."""
        self.shown.update(other.shown)
        self.sides.update(other.sides)
        self.rough |= other.rough
        self.others += other.others
        self.judged |= other.judged
        for name, score in other.scores.items():
            self.scores[name] = self.scores.get(name, 0.0) + score
        if len(self.judged) > 2 * _LOOKS:
            ranked = self.ranked()
            self.others += len(ranked[_LOOKS:])
            self.judged = {image.name: image for image in ranked[:_LOOKS]}

    def ranked(self) -> list[_Judged]:
        """The least certain images, the least certain first."""
        return sorted(self.judged.values(), key=lambda image: image.score)


class RunSummary:
    """Collects the results of a run; images without a quality are left out.

    Args:
        session: the session that labels the images.

    Attributes:
        findings: of the images so far.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.findings = Findings()

    def add(self, name: str, image: EncodedImage, segmentation: Segmentation) -> None:
        """Adds a labelled image."""
        if segmentation.quality is None:
            return
        bound, found = log_odds(segmentation.threshold), Findings(sides=Counter([max(image.size)]))
        found.judged[name] = _Judged(name=name, score=segmentation.quality.score, look=_look(image))
        for j, kind in enumerate(segmentation.classes):
            if bool((segmentation.margins[j] > bound).any()) and kind not in segmentation.absent:
                quality = segmentation.quality.classes[kind]
                found.shown[kind], found.scores[kind] = 1, quality.score
                if not quality.calibrated:
                    found.rough.add(kind)
        self.findings.add(found)

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for a user: the quality of each class, and what to do where it is poor."""
        choice, found = self._session.choice, self.findings
        lines, low = [], []
        for name in self._session.supports.classes:
            count = found.shown[name]
            mean = found.scores[name] / count if count else None
            iou = None if choice is None else choice.classes[name].iou
            parts = []
            if choice is not None and iou is not None:
                parts.append(f"expected IoU {iou:.2f}{_mark(choice.calibrated)}")
            if mean is not None:
                parts.append(
                    f"mean quality {mean:.2f}{_mark(name not in found.rough)} on {counted(count, 'images')}"
                )
            elif images := found.sides.total():
                parts.append(f"found on none of {counted(images, 'images')}")
            if parts:
                lines.append(f"{name}: {', '.join(parts)}")
            if (iou is not None and iou < _LOW) or (mean is not None and mean < _LOW):
                low.append(name)
        if low:
            lines.append(f"low: {', '.join(low)}; look at the masks before using them")
            if found.judged:
                lines.append(
                    f"annotate next, the most different of the least certain: {', '.join(self.next())}"
                )
            if option := self._option():
                lines.append(f"or try {option}")
        return tuple(lines)

    def next(self, but: Collection[str] = ()) -> list[str]:
        """Images whose annotation helps most: uncertain, and unlike the supports and each other."""
        pool = [image for image in self.findings.ranked() if image.name not in but]
        pool = pool[: max(_LEAST, round(_SHARE * (len(pool) + self.findings.others)))]
        seen = [_look(support.image) for support in self._session.supports.images]
        chosen: list[str] = []
        looks = {image.name: (image.score, image.look) for image in pool[:_LOOKS]}
        while looks and len(chosen) < _NEXT:
            known = torch.stack(seen)
            gains = {k: (1 - score) * (1 - float((known @ look).max())) for k, (score, look) in looks.items()}
            best = max(gains, key=gains.__getitem__)
            seen.append(looks.pop(best)[1])
            chosen.append(best)
        return chosen

    def _option(self) -> str | None:
        """An option to try next; None where tiles are used or the choice has tried what there is."""
        model, choice = self._session.model, self._session.choice
        if choice is None:
            return "--model auto, which chooses the method by your examples"
        if isinstance(model.views, Tiles):
            return None
        sides = self.findings.sides
        large = bool(sides) and median(sides.elements()) >= _LARGE * model.size
        if large and input_of(Tiles(), model.size) not in choice.inputs:
            return f"--tiles {model.size}, for small things in large images"
        size = larger(model.size)
        if input_of(Whole(), size) not in choice.inputs:
            return f"--size {size}, which shows more detail and takes twice as long"
        return None


def _mark(calibrated: bool) -> str:
    return "" if calibrated else " (uncalibrated)"


def _look(image: EncodedImage) -> Tensor:
    """The mean of an image's deepest features, of unit length."""
    maps: Sequence[Tensor] = [values for level, values in image.features.maps.items() if level != GUIDE]
    deepest = max(maps, key=lambda values: values.shape[1])
    return F.normalize(deepest.float().mean(dim=(0, 2, 3)), dim=0).cpu()
