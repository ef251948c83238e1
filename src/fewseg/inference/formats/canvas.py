"""From the shapes of one image to a mask for each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fewseg.inference.formats.shapes import Region
from fewseg.inference.formats.values import Mask
from fewseg.types import IGNORE

BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__"})
"""Labels of shapes that say "none of the classes"."""
IGNORE_NAMES = frozenset({"ignore", "__ignore__"})
"""Labels of shapes that say "leave this out"."""


class Canvas:
    """Collects the shapes of one image.

    The rules:

    - a region (polygon, mask, rectangle) is foreground inside; shapes of one class are joined;
    - a class that has regions only is background elsewhere;
    - a class that has a scribble is unknown (255) elsewhere, but background where another class or a shape
      labelled ``background`` or ``_background_`` is;
    - a shape labelled ``ignore`` or ``__ignore__`` is 255 for all classes, where they are not foreground.

    Args:
        size: (H, W) of the image.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._regions: dict[str, Region] = {}
        self._scribbled: set[str] = set()
        self._weak: set[str] = set()
        self._background = np.zeros(size, dtype=np.bool_)
        self._ignored = np.zeros(size, dtype=np.bool_)

    def add(self, label: str, region: Region, weak: bool = False, scribble: bool = False) -> None:
        """Adds a shape.

        Args:
            label: its class, or one of the names of background and ignore.
            region: (H, W) bool.
            weak: it is a rectangle or the like, whose inside is not all foreground.
            scribble: it says nothing about the pixels outside.
        """
        if label in BACKGROUND_NAMES:
            self._background |= region
        elif label in IGNORE_NAMES:
            self._ignored |= region
        else:
            known = self._regions.get(label)
            self._regions[label] = region if known is None else known | region
            if scribble:
                self._scribbled.add(label)
            if weak or scribble:
                self._weak.add(label)

    def ignore(self, region: Region) -> None:
        """Marks pixels as unknown for all classes."""
        self._ignored |= region

    def masks(self) -> Mapping[str, Mask]:
        """Returns class -> (H, W) uint8 in {0, 1, 255}; classes without a foreground pixel too."""
        found: dict[str, Mask] = {}
        for label, region in self._regions.items():
            mask = np.zeros(self.size, dtype=np.uint8)
            if label in self._scribbled:
                mask[:] = IGNORE
                mask[self._background] = 0
                for other, elsewhere in self._regions.items():
                    if other != label:
                        mask[elsewhere] = 0
            mask[self._ignored] = IGNORE
            mask[region] = 1
            found[label] = mask
        return found

    def weak(self) -> frozenset[str]:
        """Returns the classes with a rectangle or a scribble."""
        return frozenset(self._weak)
