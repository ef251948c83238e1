"""A support set with its encoded state: what every image of a run is segmented with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.inference.model import EncodedImage, Model, join_views
from fewseg.inference.quality import Judge
from fewseg.inference.segmentation import Quality, Segmentation, label_map, presences
from fewseg.inference.supports import SupportSet
from fewseg.ops.memory import as_memory_error
from fewseg.types import Features


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the network says of an image, before it is brought to the image's size.

    Attributes:
        margins: see ``Segmentation``; on the CPU.
        size: (H, W) of the image.
        quality: None where it was not asked for.
    """

    margins: Tensor
    size: tuple[int, int]
    quality: Quality | None


class Session:
    """A value: made once from a support set, used by any number of threads.

    Args:
        model: the network.
        supports: encoded by it.

    Raises:
        ValueError: a class is shown nowhere, or a method that compares with the background is shown none.
    """

    def __init__(self, model: Model, supports: SupportSet) -> None:
        self.model, self.supports = model, supports
        encoded = supports.encoded(model.takes_negatives)
        if model.takes_negatives and not bool((encoded.masks == 0).any()):
            raise ValueError(
                "no pixel of the examples is known to be background, which this method compares with (around "
                "a scribble nothing is known): draw a stroke labelled 'background', or add an image without "
                f"{' and '.join(supports.classes)}"
            )
        self.state = model.state(encoded)
        self.judge = Judge(model, supports)
        self.floors = self._floors()

    def _floors(self) -> dict[str, float]:
        """Highest presence of each class on the images said not to show it, 0 without any."""
        floors = dict.fromkeys(self.supports.classes, 0.0)
        for shot in self.supports.shots:
            denied = [name for name in floors if shot.denies(name)]
            if denied:
                (answer,) = self.answer([shot.image], quality=False)
                found = presences(answer.margins).tolist()
                for name in denied:
                    floors[name] = max(floors[name], found[self.supports.classes.index(name)])
        return floors

    def segment(self, image: EncodedImage, *, quality: bool = True) -> Segmentation:
        """Segments an encoded image; see ``Segmenter.segment``."""
        return self.finish(self.answer([image], quality=quality)[0])

    def answer(self, images: Sequence[EncodedImage], *, quality: bool = True) -> list[Answer]:
        """Runs the head on encoded images together.

        Args:
            images: any number.
            quality: judge each answer too.

        Raises:
            MemoryError: there is not enough for these images.
        """
        with torch.inference_mode(), as_memory_error():
            features = [image.features for image in images]
            together = features[0] if len(images) == 1 else Features.stack(features)
            parts = self.model.margins(together, self.state).split([len(i.windows) for i in images])
            return [
                Answer(
                    margins=join_views(views, image.windows, image.size).cpu(),
                    size=image.size,
                    quality=self.judge.judge(image, views) if quality else None,
                )
                for image, views in zip(images, parts, strict=True)
            ]

    def finish(self, answer: Answer, threshold: float = 0.5) -> Segmentation:
        """Brings an answer to the image's size: no network, on the CPU.

        Args:
            answer: of this session.
            threshold: least probability, in (0, 1), of a class against background.
        """
        with torch.inference_mode():
            classes = self.supports.classes
            raw = dict(zip(classes, presences(answer.margins).tolist(), strict=True))
            presence = {k: _above(v, self.floors[k]) for k, v in raw.items()}
            absent = tuple(k for k in classes if self.supports.negatives(k) and presence[k] <= 0)
            labels = label_map(answer.margins, answer.size, classes, absent, threshold)
        return Segmentation(
            classes=classes,
            size=answer.size,
            labels=labels,
            presence=presence,
            quality=answer.quality,
            margins=answer.margins,
            absent=absent,
        )


def _above(value: float, floor: float) -> float:
    """How far between a floor and 1 a value is, in [0, 1]."""
    return max(0.0, (value - floor) / max(1e-6, 1 - floor))
