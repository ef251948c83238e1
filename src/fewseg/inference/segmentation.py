"""What a segmented image is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.annotations.values import Mask, Prediction
from fewseg.inference.model import to_size
from fewseg.ops.masks import labels_of_margins

_TOP = 0.01  # share of the pixels whose mean probability is a class's presence
_STRIP = 2**22  # values that are brought to the image's size at a time
_NOWHERE = -1e4


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
class Segmentation:
    """The classes of an image's pixels; everything at the image's size is computed when it is first used.

    Attributes:
        classes: the names of labels 1 .. N.
        size: (H, W) of the image as a viewer shows it.
        margins: (N, h, w) each class's log-odds against background, on the CPU, at the network's resolution
            or at the image's.
        quality: how far to trust it; None where it was not requested.
        floors: class to the highest presence on the images known not to show it, 0 without any.
        negatives: the classes that have such images.
        threshold: least probability, in (0, 1), of a class against background.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    margins: Tensor = field(repr=False)
    quality: Quality | None = None
    floors: Mapping[str, float] = field(repr=False)
    negatives: Set[str] = field(default=frozenset(), repr=False)
    threshold: float = 0.5

    def at(self, threshold: float) -> Segmentation:
        """Returns it for another threshold.

        Raises:
            ValueError: the threshold is not in (0, 1).
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {threshold}")
        return replace(self, threshold=threshold)

    @cached_property
    def presence(self) -> Mapping[str, float]:
        """Class to a number in [0, 1]: the mean of its highest hundredth of probabilities, less its floor."""
        found = zip(self.classes, presences(self.margins).tolist(), strict=True)
        return {
            name: max(0.0, (value - self.floors[name]) / max(1e-6, 1 - self.floors[name]))
            for name, value in found
        }

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a label because no pixel stands out above the images known not to show them."""
        return tuple(name for name in self.classes if name in self.negatives and self.presence[name] <= 0)

    @cached_property
    def labels(self) -> Mask:
        """(H, W) uint8: 0 background, j = 1 .. N."""
        return label_map(self.margins, self.size, self.classes, self.absent, self.threshold)

    @property
    def probability(self) -> NDArray[np.float32]:
        """(N, H, W) float32 in [0, 1]: of each class against all others."""
        found: NDArray[np.float32] = probabilities(to_size(self.margins, self.size)).numpy()
        return found

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Returns (H, W) bool: where a class is.

        Raises:
            ValueError: there is no such class.
        """
        if name not in self.classes:
            raise ValueError(f"unknown class {name!r}; this segmentation has {list(self.classes)}")
        found: NDArray[np.bool_] = self.labels == self.classes.index(name) + 1
        return found

    def prediction(self, name: str, probability: bool = False) -> Prediction:
        """Returns it as the writers of :mod:`fewseg.annotations` take it.

        Args:
            name: the image's name, relative to the folder of images.
            probability: keep the probabilities too.
        """
        quality = self.quality
        scores = {k: quality.classes[k].score if quality else self.presence[k] for k in self.classes}
        return Prediction(
            name=name,
            labels=self.labels,
            classes=self.classes,
            scores=tuple(round(scores[k], 6) for k in self.classes),
            probability=self.probability if probability else None,
            facts=self.facts(),
        )

    def facts(self) -> dict[str, object]:
        """Returns presence and quality with its parts as JSON values."""
        found: dict[str, object] = {"presence": {k: round(v, 6) for k, v in self.presence.items()}}
        if self.quality is not None:
            found["quality"] = round(self.quality.score, 6)
            found["calibrated"] = self.quality.calibrated
            found["parts"] = {
                name: {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(part).items()}
                for name, part in self.quality.classes.items()
            }
        return found


def probabilities(margins: Tensor) -> Tensor:
    """Probabilities (N, ...) of N classes by their log-odds (N, ...) against background, whose own are 0."""
    if margins.shape[0] == 1:
        return margins.sigmoid()
    zero = torch.zeros_like(margins[:1])
    return torch.cat([zero, margins]).softmax(dim=0)[1:]


def presences(margins: Tensor) -> Tensor:
    """Mean probability (N,) of each class's most probable hundredth of the pixels of (N, h, w)."""
    chances = probabilities(margins).flatten(1)
    return chances.topk(max(1, round(chances.shape[1] * _TOP)), dim=1).values.mean(dim=1)


def label_map(
    margins: Tensor,
    size: tuple[int, int],
    classes: tuple[str, ...],
    absent: tuple[str, ...] = (),
    threshold: float = 0.5,
) -> Mask:
    """The class (H, W) with the largest margin, where that is above the threshold's; none of ``absent``.

    Large images are computed in strips, so that memory is that of the label map.
    """
    margins = margins - math.log(threshold / (1 - threshold))
    for name in absent:
        margins[classes.index(name)] = _NOWHERE
    if len(classes) * size[0] * size[1] <= _STRIP or tuple(margins.shape[-2:]) == size:
        full = labels_of_margins(to_size(margins, size).unsqueeze(0))[0]
        return full.numpy()
    wide = torch.nn.functional.interpolate(
        margins.unsqueeze(0), size=(margins.shape[1], size[1]), mode="bilinear", align_corners=False
    )[0]
    labels: Mask = np.empty(size, dtype=np.uint8)
    step = max(1, _STRIP // (len(classes) * size[1]))
    for top in range(0, size[0], step):
        rows = torch.arange(top, min(top + step, size[0]))
        labels[top : top + step] = labels_of_margins(_rows(wide, rows, size[0]).unsqueeze(0))[0].numpy()
    return labels


def _rows(maps: Tensor, rows: Tensor, height: int) -> Tensor:
    """Some rows of (N, h, W) brought to ``height`` rows, as bilinear resizing gives them."""
    low = int(maps.shape[1])
    places = ((rows + 0.5) * (low / height) - 0.5).clamp(min=0)
    above = places.floor().long()
    share = (places - above).view(1, -1, 1)
    below = (above + 1).clamp(max=low - 1)
    return maps[:, above] * (1 - share) + maps[:, below] * share
