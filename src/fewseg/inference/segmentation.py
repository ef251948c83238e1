"""A support set with its encoded state, and its segmentation of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.annotations.values import Instance, Mask, Prediction
from fewseg.inference.choose import Choice, choose
from fewseg.inference.instances import instances_of, numbered
from fewseg.inference.model import EncodedImage, Model, join_views, to_size
from fewseg.inference.options import MIN_AREA, Split, check_instances
from fewseg.inference.quality import Quality, QualityEstimator, probabilities
from fewseg.inference.supports import SupportSet
from fewseg.ops.masks import labels_of_margins
from fewseg.ops.memory import as_memory_error
from fewseg.types import Features

_TOP = 0.01  # share of the most probable pixels; their mean probability is a class's presence
_STRIP = 2**22  # values that are resized to the image at a time
_NOWHERE = -1e4


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The classes of an image's pixels; values at the image's size are computed when first used.

    Where the supports chose the method, margins and probabilities are shifted so that the threshold chosen
    for a class is a probability of 0.5 against background.

    Attributes:
        classes: the names of labels 1 .. N.
        size: (H, W) of the image as a viewer shows it.
        margins: (N, h, w) each class's log-odds against background, on the CPU, at the network's resolution
            or at the image's.
        quality: how far the segmentation can be trusted; None where it was not requested.
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
        """Returns the segmentation for another threshold; raises a ValueError if that is not in (0, 1)."""
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {threshold}")
        return replace(self, threshold=threshold)

    @cached_property
    def presence(self) -> Mapping[str, float]:
        """Class to a number in [0, 1]: mean of its highest hundredth of probabilities, above its floor."""
        return {
            name: max(0.0, (value - self.floors[name]) / max(1e-6, 1 - self.floors[name]))
            for name, value in zip(self.classes, presences(self.margins).tolist(), strict=True)
        }

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a label: no pixel is more probable than on images known not to show them."""
        return tuple(name for name in self.classes if name in self.negatives and self.presence[name] <= 0)

    @cached_property
    def labels(self) -> Mask:
        """(H, W) uint8: 0 background, j = 1 .. N."""
        margins = self.margins - math.log(self.threshold / (1 - self.threshold))
        for name in self.absent:
            margins[self.classes.index(name)] = _NOWHERE
        labels: Mask = np.empty(self.size, dtype=np.uint8)
        for rows, strip in strips(margins, self.size):
            labels[rows] = labels_of_margins(strip[None])[0].numpy()
        return labels

    @property
    def probability(self) -> NDArray[np.float32]:
        """(N, H, W) float32 in [0, 1]: probability of each class against all others."""
        probability: NDArray[np.float32] = probabilities(to_size(self.margins, self.size)).numpy()
        return probability

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Returns (H, W) bool: where a class is; raises a ValueError if there is no such class."""
        if name not in self.classes:
            raise ValueError(f"unknown class {name!r}; this segmentation has {list(self.classes)}")
        mask: NDArray[np.bool_] = self.labels == self.classes.index(name) + 1
        return mask

    def instances(self, split: Split = "components", min_area: int = MIN_AREA) -> tuple[Instance, ...]:
        """Returns the single objects of each class, class by class and from the top of the image down.

        The score of an object is the mean probability of its class over its pixels.

        Args:
            split: "components" for the connected pieces of a class's mask (pixels that touch at a corner
                are connected); "watershed" also cuts pieces at their necks, for round objects that touch.
            min_area: least pixels of an object, at least 1; smaller pieces are left out.

        Raises:
            ValueError: the split is unknown, or the area is below 1.
        """
        check_instances(split, min_area)
        numbers, of_class = numbered(self.labels, len(self.classes), split, min_area)
        sums = np.zeros(len(of_class) + 1)
        for rows, strip in strips(self.margins, self.size):
            labelled = np.flatnonzero(numbers[rows])
            chances = probabilities(strip).flatten(1).numpy()
            scores = chances[self.labels[rows].ravel()[labelled].astype(np.intp) - 1, labelled]
            sums += np.bincount(numbers[rows].ravel()[labelled], weights=scores, minlength=len(sums))
        return instances_of(numbers, of_class, self.classes, sums)

    def prediction(
        self, name: str, probability: bool = False, instances: tuple[Instance, ...] | None = None
    ) -> Prediction:
        """Returns the segmentation as input of the writers of :mod:`fewseg.annotations`.

        Args:
            name: the image's name, relative to the folder of images.
            probability: include the probabilities.
            instances: objects of :meth:`instances`, which formats that can hold them write instead of
                classes.
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
            instances=instances,
        )

    def facts(self) -> dict[str, object]:
        """Returns the presence, and the quality with its parts, as JSON values."""
        facts: dict[str, object] = {"presence": {k: round(v, 6) for k, v in self.presence.items()}}
        if self.quality is not None:
            facts["quality"] = round(self.quality.score, 6)
            facts["calibrated"] = self.quality.calibrated
            facts["parts"] = {
                name: {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(part).items()}
                for name, part in self.quality.classes.items()
            }
        return facts


def presences(margins: Tensor) -> Tensor:
    """Mean probability (N,) of each class's most probable hundredth of the pixels of (N, h, w)."""
    chances = probabilities(margins).flatten(1)
    return chances.topk(max(1, round(chances.shape[1] * _TOP)), dim=1).values.mean(dim=1)


def strips(maps: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Yields maps (N, h, w) resized to an image (N, rows, W), in strips of rows if the image is large."""
    height, width = size
    step = max(1, _STRIP // (len(maps) * width))
    if height <= step or tuple(maps.shape[-2:]) == size:
        yield slice(0, height), to_size(maps, size)
        return
    wide = to_size(maps, (maps.shape[1], width))
    for top in range(0, height, step):
        rows = torch.arange(top, min(top + step, height))
        yield slice(top, top + len(rows)), _rows(wide, rows, height)


def _rows(maps: Tensor, rows: Tensor, height: int) -> Tensor:
    """Some rows of (N, h, W) resized to ``height`` rows, bilinear."""
    low = int(maps.shape[1])
    places = ((rows + 0.5) * (low / height) - 0.5).clamp(min=0)
    above = places.floor().long()
    share = (places - above).view(1, -1, 1)
    below = (above + 1).clamp(max=low - 1)
    return maps[:, above] * (1 - share) + maps[:, below] * share


class Session:
    """A support set ready for use: an immutable value that threads can share.

    Args:
        model: the network.
        supports: the annotated images, encoded by the model.
        before: a session of earlier supports, whose chosen method is reused if the classes are the same and
            there are fewer than twice as many annotated images as when it was chosen.
        choice: the method that these supports chose before.

    Attributes:
        choice: the chosen method and what to expect of it, if the model lets the supports choose, else None.
            Its thresholds then count as 0.5.

    Raises:
        ValueError: a class is shown nowhere, or a method that compares with the background is shown none.
    """

    def __init__(
        self,
        model: Model,
        supports: SupportSet,
        before: Session | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.supports = supports
        encoded = supports.encoded(model.takes_negatives)
        if model.takes_negatives and not bool((encoded.masks == 0).any()):
            raise ValueError(
                "no pixel of the examples is known to be background, which this method compares with (around "
                "a scribble nothing is known): draw a stroke labelled 'background', or add an image without "
                f"{' and '.join(supports.classes)}"
            )
        self.choice, self._chosen_by = choice, len(supports.images)
        if before is not None and before._serves(supports):
            self.choice, self._chosen_by = before.choice, before._chosen_by
        elif model.chooses and choice is None:
            self.choice = choose(model, supports)
        self.model = model if self.choice is None else self.choice.model
        self.state = self.model.state(encoded)
        self.estimator = QualityEstimator(self.model, supports, self.choice.held if self.choice else None)
        self.negatives = frozenset(name for name in supports.classes if supports.negatives(name))
        self.floors = dict.fromkeys(supports.classes, 0.0)
        self.floors = self._floors()

    @property
    def expected(self) -> Mapping[str, float]:
        """Class to the mean IoU that the other supports reach on left-out ones; classes without one lack.

        The first use takes as long as a quality, unless the supports have chosen the method.
        """
        if self.choice is not None:
            return {name: ious.iou for name, ious in self.choice.classes.items() if ious.iou is not None}
        by_class = {name: self.estimator.known_ious(name) for name in self.supports.classes}
        return {name: sum(ious) / len(ious) for name, ious in by_class.items() if ious}

    def _serves(self, supports: SupportSet) -> bool:
        """Whether the session's choice can be reused for other supports."""
        return self.supports.classes == supports.classes and len(supports.images) < 2 * self._chosen_by

    def _floors(self) -> dict[str, float]:
        """Highest presence of each class on the images known not to show it, 0 without any."""
        classes, floors = self.supports.classes, dict.fromkeys(self.supports.classes, 0.0)
        for support in self.supports.images:
            if any(map(support.is_negative, classes)):
                values = presences(self.segment(support.image, quality=False).margins).tolist()
                for name, value in zip(classes, values, strict=True):
                    floors[name] = max(floors[name], value if support.is_negative(name) else 0.0)
        return floors

    def segment(self, image: EncodedImage, *, quality: bool = True) -> Segmentation:
        """Segments an encoded image; see ``Segmenter.segment``."""
        return self.segment_all([image], quality=quality)[0]

    def segment_all(self, images: Sequence[EncodedImage], *, quality: bool = True) -> list[Segmentation]:
        """Segments encoded images together.

        Args:
            images: any number of images.
            quality: also estimate the quality of each.

        Raises:
            MemoryError: there is not enough memory for these images.
        """
        with torch.inference_mode(), as_memory_error():
            features = [image.features for image in images]
            together = features[0] if len(images) == 1 else Features.stack(features)
            margins = self.model.margins(together, self.state)
            if self.choice is not None:
                margins = margins - self.choice.log_odds.to(margins.device)
            parts = margins.split([len(i.windows) for i in images])
            return [
                Segmentation(
                    classes=self.supports.classes,
                    size=image.size,
                    margins=join_views(views, image.windows, image.size).cpu(),
                    quality=self.estimator.estimate(image, views) if quality else None,
                    floors=self.floors,
                    negatives=self.negatives,
                )
                for image, views in zip(images, parts, strict=True)
            ]
