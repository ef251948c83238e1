"""A support set with its encoded state: what every image of a run is segmented with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fewseg.inference.model import EncodedImage, Model, join_views
from fewseg.inference.quality import QualityEstimator
from fewseg.inference.segmentation import Segmentation, presences
from fewseg.inference.supports import SupportSet
from fewseg.ops.memory import as_memory_error
from fewseg.types import Features


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
        self.estimator = QualityEstimator(model, supports)
        self.negatives = frozenset(name for name in supports.classes if supports.negatives(name))
        self.floors = dict.fromkeys(supports.classes, 0.0)
        self.floors = self._floors()

    def _floors(self) -> dict[str, float]:
        """Highest presence of each class on the images known not to show it, 0 without any."""
        classes, floors = self.supports.classes, dict.fromkeys(self.supports.classes, 0.0)
        for support in self.supports.images:
            negative = [name for name in classes if support.is_negative(name)]
            if negative:
                found = presences(self.segment(support.image, quality=False).margins).tolist()
                for name in negative:
                    floors[name] = max(floors[name], found[classes.index(name)])
        return floors

    def segment(self, image: EncodedImage, *, quality: bool = True) -> Segmentation:
        """Segments an encoded image; see ``Segmenter.segment``."""
        return self.segment_all([image], quality=quality)[0]

    def segment_all(self, images: Sequence[EncodedImage], *, quality: bool = True) -> list[Segmentation]:
        """Segments encoded images, which go through the head together.

        Args:
            images: any number.
            quality: estimate the quality of each too.

        Raises:
            MemoryError: there is not enough for these images.
        """
        with torch.inference_mode(), as_memory_error():
            features = [image.features for image in images]
            together = features[0] if len(images) == 1 else Features.stack(features)
            parts = self.model.margins(together, self.state).split([len(i.windows) for i in images])
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
