"""One episode: which class, which query, which supports, as a pure function of (protocol, fold, seed, i)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fewseg.data.draws import Draws
from fewseg.data.index import Index
from fewseg.data.protocols import Protocol
from fewseg.data.source import DataError

_VERSION = 1  # part of every key: a change of the drawing rules is a change of this number


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode, by name: nothing is read yet.

    Attributes:
        index: i of the episode (or the training step).
        class_id: the class to segment.
        query: id of the query image.
        supports: ids of the K support images; never the query.
    """

    index: int
    class_id: int
    query: str
    supports: tuple[str, ...]


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
) -> EpisodeSpec:
    """Returns episode i, a pure function of (protocol, fold, seed, i) and the data.

    Of the protocol only ``query_order``, ``min_area`` and ``distinct_supports`` matter, so protocols that
    differ in their scoring share their episodes. Class and query do not depend on ``shots``, and the
    supports extend: the K-shot supports are the first K of the (K+1)-shot supports of the same i.
    The order of the list file does not matter either, only which images it holds.

    Args:
        index_: the images.
        split_classes: classes to draw from.
        protocol: the rules.
        fold: part of the key.
        seed: part of the key.
        i: from 0.
        shots: K.

    Raises:
        DataError: no image shows one of the classes, or too few show the class drawn.
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
    return EpisodeSpec(index=i, class_id=class_id, query=query, supports=supports)


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
