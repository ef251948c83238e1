"""One episode: which classes, query and supports, as a pure function of (protocol, fold, seed, i)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fewseg.data.draws import Draws
from fewseg.data.index import Index
from fewseg.data.protocols import Protocol
from fewseg.data.source import DataError

_VERSION = 1  # part of every key: a change of the drawing rules is a change of this number


@dataclass(frozen=True)
class Way:
    """One class of an episode and the images that show it.

    Attributes:
        class_id: the class.
        supports: ids of its K support images; never the query.
    """

    class_id: int
    supports: tuple[str, ...]


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode, by name: nothing is read yet.

    Attributes:
        index: i of the episode (or the training step).
        class_id: the class to segment; with several ways the first, the class that the query was drawn for.
        query: id of the query image.
        supports: ids of the K support images of that class; never the query.
        others: ways 2 .. N; the query need not show their classes.
    """

    index: int
    class_id: int
    query: str
    supports: tuple[str, ...]
    others: tuple[Way, ...] = ()

    @property
    def ways(self) -> tuple[Way, ...]:
        """The N ways in order: way j is what a label map of the episode calls j."""
        return (Way(self.class_id, self.supports), *self.others)

    @property
    def classes(self) -> tuple[int, ...]:
        """The N class ids, way by way."""
        return tuple(way.class_id for way in self.ways)

    @property
    def all_supports(self) -> tuple[str, ...]:
        """The support images way by way, N * K ids: the order of the shot axis."""
        return tuple(id for way in self.ways for id in way.supports)

    @property
    def way_of(self) -> tuple[int, ...]:
        """The way, 1 .. N, of each of ``all_supports``."""
        return tuple(j for j, way in enumerate(self.ways, start=1) for _ in way.supports)

    @property
    def images(self) -> tuple[str, ...]:
        """The ids of all its images, each once: the supports way by way, then the query."""
        return tuple(dict.fromkeys((*self.all_supports, self.query)))


@lru_cache(maxsize=16)
def _permutation(n: int, *key: str | int) -> tuple[int, ...]:
    return Draws(*key).sample(range(n), n)


def episode(
    index_: Index,
    split_classes: Sequence[int],
    protocol: Protocol,
    fold: int,
    seed: int,
    i: int,
    shots: int,
    ways: int = 1,
) -> EpisodeSpec:
    """Returns episode i, a pure function of (protocol, fold, seed, i) and the data.

    Of the protocol only ``query_order``, ``min_area`` and ``distinct_supports`` matter, so protocols that
    differ in their scoring share their episodes. Class and query do not depend on ``shots``, and the
    supports extend: the K-shot supports are the first K of the (K+1)-shot supports of the same i.
    The order of the list file does not matter either, only which images it holds.

    Several ways: the episode of fewer ways is the first ways of the episode of more, so the 1-way episode is
    its way 1. The class of a further way is uniform among the classes that no earlier way has, and depends
    on neither ``shots`` nor the query's other classes; see :func:`further_ways` for its supports.

    Args:
        index_: the images.
        split_classes: classes to draw from.
        protocol: the rules.
        fold: part of the key.
        seed: part of the key.
        i: from 0.
        shots: K, of each way.
        ways: N.

    Raises:
        DataError: no image shows one of the classes, or too few show a class drawn.
        ValueError: there are fewer classes than ways.
    """
    rules = ("episode", _VERSION, protocol.query_order, protocol.min_area, int(protocol.distinct_supports))
    draws = Draws(*rules, fold, seed, i)
    classes = sorted(split_classes)
    if protocol.query_order == "class_first":
        class_id = draws.choice(classes)
        query = draws.choice(_images_of(index_, class_id, protocol.min_area))
    else:
        queries = index_.images_with_any(classes, protocol.min_area)
        if not queries:
            raise DataError(
                f"{index_.name}: no image shows one of the classes {classes} on {protocol.min_area} pixels; "
                "choose another list or fold, or lower the protocol's min_area"
            )
        lap, position = divmod(i, len(queries))
        query = queries[_permutation(len(queries), *rules, fold, seed, "lap", lap)[position]]
        present = [c for c in index_.classes_in(query, protocol.min_area) if c in classes]
        class_id = draws.choice(present)
    supports = _draw_supports(index_, class_id, query, protocol, draws, shots)
    first = EpisodeSpec(index=i, class_id=class_id, query=query, supports=supports)
    return further_ways(
        first,
        index_,
        classes,
        draws,
        ways=ways,
        min_area=protocol.min_area,
        distinct=protocol.distinct_supports,
    )


def further_ways(
    first: EpisodeSpec,
    index: Index,
    classes: Sequence[int],
    draws: Draws,
    *,
    ways: int,
    min_area: int,
    distinct: bool = True,
) -> EpisodeSpec:
    """Draws ways 2 .. N of an episode whose way 1 is known, way j with a stream of its own.

    Way j has a random order of its class's images that depends on neither K nor N, and takes the first K of
    it that are not the query and, where supports are distinct, serve no earlier way. So a way depends on the
    ways before it and not on those after it. With K + 1 shots a way keeps its K supports, in order, but for
    those that an earlier way now takes for its own further shot, and what is new comes after them (way 1
    never gives one up; no way does where no image shows two of the classes). Supports that may repeat are
    drawn one by one from the class's images without the query: there K + 1 always extend K.

    Args:
        first: the 1-way episode; its K is that of every way.
        index: the images.
        classes: classes to draw from; that of way 1 is left out.
        draws: the episode's stream; nothing is drawn from it itself.
        ways: N.
        min_area: pixels a class must cover to count as present.
        distinct: no image serves twice in the episode.

    Raises:
        DataError: too few images of a class drawn are left.
        ValueError: there are fewer classes than ways.
    """
    check_way_count(ways, {first.class_id, *classes})
    spec, shots = first, len(first.supports)
    for j in range(2, ways + 1):
        own = draws.spawn("way", j)
        class_id = own.choice([c for c in sorted(classes) if c not in spec.classes])
        shown = _images_of(index, class_id, min_area)
        if distinct:
            # The first of the whole order, as many as suffice whichever of them serve already.
            served = set(spec.images).intersection(shown)
            order = own.sample(shown, min(len(shown), shots + len(served)))
            supports = tuple(id for id in order if id not in served)[:shots]
        else:
            served = {first.query}.intersection(shown)
            free = [id for id in shown if id not in served]
            supports = tuple(own.choice(free) for _ in range(shots)) if free else ()
        if len(supports) < shots:
            raise DataError(
                f"{index.name}: episode {first.index} needs {shots} support images of class {class_id} "
                f"{index.class_names.get(class_id, '?')} as way {j} of {ways}; {len(shown)} images show it "
                f"on {min_area} pixels and {len(served)} of them already serve in the episode: add images, "
                "lower the ways, the shots or the min_area, or choose another fold"
            )
        spec = replace(spec, others=(*spec.others, Way(class_id, supports)))
    return spec


def check_way_count(ways: int, classes: Collection[int]) -> None:
    """Checks that N ways can have N classes.

    Raises:
        ValueError: they cannot, or N is below 1.
    """
    if not 1 <= ways <= len(classes):
        raise ValueError(
            f"got ways={ways}; {len(classes)} classes {sorted(classes)} can be drawn from: give 1 to "
            f"{len(classes)} ways, or choose a fold or list with more classes"
        )


def _draw_supports(
    index: Index, class_id: int, query: str, protocol: Protocol, draws: Draws, shots: int
) -> tuple[str, ...]:
    others = [id for id in _images_of(index, class_id, protocol.min_area) if id != query]
    if len(others) < (shots if protocol.distinct_supports else 1):
        raise too_few(index, {class_id: len(others) + 1}, shots, protocol.min_area)
    if protocol.distinct_supports:
        return draws.sample(others, shots)
    return tuple(draws.choice(others) for _ in range(shots))


def _images_of(index: Index, class_id: int, min_area: int) -> tuple[str, ...]:
    images = index.images_of(class_id, min_area)
    if not images:
        raise too_few(index, {class_id: 0}, 1, min_area)
    return images


def too_few(index: Index, counts: dict[int, int], shots: int, min_area: int) -> DataError:
    """Returns the error that names each class with too few images (class id -> images found)."""
    named = ", ".join(f"{c} {index.class_names.get(c, '?')}: {n}" for c, n in sorted(counts.items()))
    return DataError(
        f"{index.name} has too few images for {shots}-shot episodes of these classes ({named}); each needs "
        f"{shots + 1} where it covers {min_area} pixels: add images, lower the shots or the min_area, "
        "or choose another fold"
    )
