"""Training episodes: base classes only, part from the image list and part class first."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fewseg.data.draws import Draws
from fewseg.data.episode_spec import EpisodeSpec
from fewseg.data.folds import ClassSplit
from fewseg.data.index import Index
from fewseg.data.protocols import PASCAL_MIN_AREA
from fewseg.data.source import DataError

log = logging.getLogger(__name__)

_VERSION = 1  # part of every key: a change of the drawing rules is a change of this number


class TrainingSampler:
    """An endless, repeatable stream of training episodes.

    The papers draw the query from the image list and a class present in it. On a small or uneven list the
    frequent classes then drown the rare ones, and a head learns to segment those whatever the support
    shows; drawing part of the episodes class first balances them.

    Args:
        index: the training images.
        split: the fold; its novel classes are never drawn.
        shots: K, from 1.
        class_first: probability that the class is drawn first, uniformly; otherwise the query is drawn
            uniformly from the images that show a usable class, then the class among those in it.
        min_area: pixels a class must cover to count as present.
        seed: part of the key of every draw.
        drop_novel: leave out images with any pixel of a class that training must not see (BAM); otherwise
            such images stay and those pixels are background, as in the papers.
        held_out_classes: base classes kept for model selection; treated like the novel ones.

    Attributes:
        classes: the classes drawn, ascending. Classes with too few images are skipped with a warning.

    Raises:
        DataError: no class has K + 1 images.
        ValueError: K is below 1, the probability is not in [0, 1], or a held-out class is not a base class.
    """

    def __init__(
        self,
        index: Index,
        split: ClassSplit,
        shots: int = 1,
        class_first: float = 0.5,
        min_area: int = PASCAL_MIN_AREA,
        seed: int = 0,
        drop_novel: bool = False,
        held_out_classes: Sequence[int] = (),
    ) -> None:
        if shots < 1 or not 0.0 <= class_first <= 1.0:
            raise ValueError(
                f"training episodes need shots >= 1 and class_first in [0, 1]; got {shots} and {class_first}"
            )
        strange = sorted(set(held_out_classes) - set(split.base))
        if strange:
            raise ValueError(
                f"held-out classes {strange} are not base classes of the fold: choose of {split.base}"
            )
        unseen = {*split.novel, *held_out_classes}
        self.index = index.without(unseen) if drop_novel else index
        self.shots = shots
        self.class_first = class_first
        self.min_area = min_area
        self.classes = self._usable([c for c in split.base if c not in unseen])
        self._queries = self.index.images_with_any(self.classes, min_area)
        self._key = ("train", _VERSION, split.fold, seed)

    def _usable(self, classes: Sequence[int]) -> tuple[int, ...]:
        counts = {c: len(self.index.images_of(c, self.min_area)) for c in classes}
        few = {c: n for c, n in counts.items() if n <= self.shots}
        names = ", ".join(f"{c} {self.index.class_names.get(c, '?')}: {n}" for c, n in few.items())
        if len(few) == len(counts):
            raise DataError(
                f"{self.index.name}: no base class has the {self.shots + 1} images that {self.shots}-shot "
                f"training needs, each with {self.min_area} pixels of it ({names}): add images, lower "
                "min_area or the shots, or hold out fewer classes"
            )
        if few:
            log.warning("%s: not trained on, too few images (%s)", self.index.name, names)
        return tuple(c for c in classes if c not in few)

    def episode(self, step: int) -> EpisodeSpec:
        """Returns the training episode of a step, a pure function of (fold, seed, step) and the data."""
        draws = Draws(*self._key, step)
        if draws.chance(self.class_first):
            class_id = draws.choice(self.classes)
            query = draws.choice(self.index.images_of(class_id, self.min_area))
        else:
            query = draws.choice(self._queries)
            present = self.index.classes_in(query, self.min_area)
            class_id = draws.choice([c for c in present if c in self.classes])
        others = [id for id in self.index.images_of(class_id, self.min_area) if id != query]
        return EpisodeSpec(
            index=step, class_id=class_id, query=query, supports=draws.sample(others, self.shots)
        )
