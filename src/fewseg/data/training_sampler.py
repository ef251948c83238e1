"""Training episodes: base classes only, part from the image list and part class first."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fewseg.data.draws import Draws
from fewseg.data.episode_spec import EpisodeSpec, further_ways
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
        ways: N, from 1. The 1-way episode of a step is way 1 of its N-way episode; the classes of the further
            ways are uniform among the rest.

    Attributes:
        classes: the classes drawn, ascending. Classes with too few images are skipped with a warning.
        further_classes: those of them that ways 2 .. N are drawn from: a class whose images could all serve
            other ways of one episode is left out with a warning, so that no step ever fails.

    Raises:
        DataError: no class has K + 1 images, or too few classes have images enough for N ways.
        ValueError: K or N is below 1, the probability is not in [0, 1], or a held-out class is not a base
            class.
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
        ways: int = 1,
    ) -> None:
        if min(shots, ways) < 1 or not 0.0 <= class_first <= 1.0:
            raise ValueError(
                "training episodes need shots >= 1, ways >= 1 and class_first in [0, 1]; got "
                f"shots={shots}, ways={ways} and class_first={class_first}"
            )
        strange = sorted(set(held_out_classes) - set(split.base))
        if strange:
            raise ValueError(
                f"held-out classes {strange} are not base classes of the fold: choose of {split.base}"
            )
        unseen = {*split.novel, *held_out_classes}
        self.index = index.without(unseen) if drop_novel else index
        self.shots = shots
        self.ways = ways
        self.class_first = class_first
        self.min_area = min_area
        self.classes = self._usable([c for c in split.base if c not in unseen])
        self.further_classes = self._further() if ways > 1 else ()
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

    def _further(self) -> tuple[int, ...]:
        """The classes with K images left whatever the query and the supports of the other ways are."""
        taken = {}
        for c in self.classes:
            shown = self.index.images_of(c, self.min_area)
            seen = (set(self.index.classes_in(id, self.min_area)) for id in shown)
            shared = sum(len(classes.intersection(self.classes)) > 1 for classes in seen)
            taken[c] = min(shared, (self.ways - 1) * self.shots + 1)
        left = {c: len(self.index.images_of(c, self.min_area)) - taken[c] for c in self.classes}
        few = {c: n for c, n in left.items() if n < self.shots}
        names = ", ".join(f"{c} {self.index.class_names.get(c, '?')}: {n}" for c, n in few.items())
        if len(left) - len(few) < self.ways:
            raise DataError(
                f"{self.index.name}: {self.ways}-way {self.shots}-shot training needs {self.ways} base "
                f"classes that keep {self.shots} images beside those of other classes; of "
                f"{list(left)} these keep fewer ({names}): add images, lower min_area, "
                "the ways or the shots, or hold out fewer classes"
            )
        if few:
            log.warning("%s: never a further way, too few images of its own (%s)", self.index.name, names)
        return tuple(c for c in left if c not in few)

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
        first = EpisodeSpec(
            index=step, class_id=class_id, query=query, supports=draws.sample(others, self.shots)
        )
        if self.ways == 1:
            return first
        return further_ways(
            first, self.index, self.further_classes, draws, ways=self.ways, min_area=self.min_area
        )
