"""A support set with its encoded state: what every image of a run is segmented with."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.inference.model import EncodedImage, Model
from fewseg.inference.segmentation import Segmentation, label_map, presences
from fewseg.inference.supports import SupportSet
from fewseg.inference.views import join_views


class Session:
    """A value: made once from a support set, used by any number of threads.

    Args:
        model: the network.
        supports: encoded by it.

    Raises:
        ValueError: a class is shown nowhere.
    """

    def __init__(self, model: Model, supports: SupportSet) -> None:
        self.model, self.supports = model, supports
        self.state = model.state(supports.encoded(model.takes_negatives))
        self.floors = self._floors()

    def _floors(self) -> dict[str, float]:
        """Highest presence of each class on the images said not to show it, 0 without any."""
        floors = dict.fromkeys(self.supports.classes, 0.0)
        for shot in self.supports.shots:
            denied = [name for name in floors if shot.denies(name)]
            if denied:
                found = presences(self.margins(shot.image)).tolist()
                for name in denied:
                    floors[name] = max(floors[name], found[self.supports.classes.index(name)])
        return floors

    def view_margins(self, image: EncodedImage) -> Tensor:
        """Log-odds (n, N, S, S) of each class against background, of the n views of an image."""
        return self.model.margins(image.features, self.state)

    def margins(self, image: EncodedImage) -> Tensor:
        """Log-odds of an image, see :func:`~fewseg.inference.views.join_views`; on the CPU."""
        return join_views(self.view_margins(image), image.windows, image.size).cpu()

    def segment(self, image: EncodedImage, *, quality: bool = True) -> Segmentation:
        """Segments an encoded image; see ``Segmenter.segment``."""
        with torch.inference_mode():
            views = self.view_margins(image)
            margins = join_views(views, image.windows, image.size).cpu()
            return self.finish(margins, image.size)

    def finish(self, margins: Tensor, size: tuple[int, int]) -> Segmentation:
        """Turns joined margins into labels at the image's size: no network, on the CPU."""
        with torch.inference_mode():
            classes = self.supports.classes
            raw = dict(zip(classes, presences(margins).tolist(), strict=True))
            presence = {
                k: max(0.0, (v - self.floors[k]) / max(1e-6, 1 - self.floors[k])) for k, v in raw.items()
            }
            absent = tuple(k for k in classes if self.supports.negatives(k) and presence[k] <= 0)
            labels = label_map(margins, size, classes, absent)
        return Segmentation(
            classes=classes,
            size=size,
            labels=labels,
            presence=presence,
            margins=margins,
            absent=absent,
        )
