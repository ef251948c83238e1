"""Episodes of a fold, for evaluation and for training, and the files that record them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from fewseg.data.episode_spec import EpisodeSpec, Way, check_way_count, episode, too_few
from fewseg.data.folds import ClassSplit
from fewseg.data.index import Index
from fewseg.data.manifest import read_manifest, write_manifest
from fewseg.data.protocols import Protocol
from fewseg.data.source import DataError
from fewseg.data.training_sampler import TrainingSampler

__all__ = [
    "EpisodeSampler",
    "EpisodeSpec",
    "TrainingSampler",
    "Way",
    "episode",
    "read_manifest",
    "write_manifest",
]


class EpisodeSampler:
    """The evaluation episodes of one fold.

    Args:
        index: the test images.
        split: the fold.
        protocol: the rules.
        shots: K, from 1.
        which: test on the fold's novel classes, or on its base classes.
        classes: the exact classes to draw from, in place of ``which`` (held-out base classes, say).
        ways: N, from 1 to the number of classes. Where classes share images, K + 1 images of each may still
            be too few for several ways; then it is the episode that raises the DataError.

    Raises:
        DataError: a class has fewer than K + 1 images (2, where supports may repeat), or there is no class.
        ValueError: K or N is below 1, there are fewer classes than ways, or the split is the other one of
            COCO-20i than the protocol's.
    """

    def __init__(
        self,
        index: Index,
        split: ClassSplit,
        protocol: Protocol,
        shots: int,
        which: Literal["novel", "base"] = "novel",
        classes: Sequence[int] | None = None,
        ways: int = 1,
    ) -> None:
        if shots < 1:
            raise ValueError(f"episodes need 1 support at least, got shots={shots}")
        protocol.check_split(split.name)
        chosen = (split.novel if which == "novel" else split.base) if classes is None else classes
        self.index = index
        self.split = split
        self.protocol = protocol
        self.shots = shots
        self.ways = ways
        self.classes = tuple(sorted(chosen))
        needed = shots + 1 if protocol.distinct_supports else 2
        counts = {c: len(index.images_of(c, protocol.min_area)) for c in self.classes}
        few = {c: n for c, n in counts.items() if n < needed}
        if few:
            raise too_few(index, few, needed - 1, protocol.min_area)
        if not self.classes:
            raise DataError(f"split {split.name} fold {split.fold} has no classes to draw episodes from")
        check_way_count(ways, self.classes)

    def episode(self, seed: int, i: int) -> EpisodeSpec:
        """Returns episode i of a seed; see :func:`episode`."""
        fold = self.split.fold
        return episode(self.index, self.classes, self.protocol, fold, seed, i, self.shots, self.ways)

    def episodes(self, seed: int) -> Iterator[EpisodeSpec]:
        """Yields the protocol's episodes of a seed, in order."""
        return (self.episode(seed, i) for i in range(self.protocol.episodes))
