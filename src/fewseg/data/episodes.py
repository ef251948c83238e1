"""Episodes by name: drawn for evaluation or training, or recorded in manifests.

An episode is a pure function of (protocol, fold, seed, i) and the data, in training of (fold, seed, step).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.data.folds import ClassSplit
from fewseg.data.index import Index
from fewseg.data.protocols import PASCAL_MIN_AREA, NovelPixels, Protocol
from fewseg.data.transforms import among
from fewseg.ops.files import atomic_write_text, parse_json
from fewseg.types import IGNORE, DataError

log = logging.getLogger(__name__)

_VERSION = 1  # part of every key: a change of the drawing rules is a change of this number


@dataclass(frozen=True)
class Way:
    """One class of an episode, and the ids of its K support images; never the query."""

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
    """Draws ways 2 .. N of an episode whose way 1 is known, way j with a stream of its own."""
    spec, shots = first, len(first.supports)
    for j in range(2, ways + 1):
        way_draws = draws.spawn("way", j)
        class_id = way_draws.choice([c for c in sorted(classes) if c not in spec.classes])
        shown = index.images_of(class_id, min_area)
        # Of distinct ones the first of the whole order, as many as suffice whichever of them serve already.
        served = set(spec.images if distinct else [first.query]).intersection(shown)
        if distinct:
            order = way_draws.sample(shown, min(len(shown), shots + len(served)))
            supports = tuple(id for id in order if id not in served)[:shots]
        else:
            free = [id for id in shown if id not in served]
            supports = tuple(way_draws.choice(free) for _ in range(shots))
        if len(supports) < shots:
            raise DataError(
                f"{index.name}: episode {first.index} needs {shots} support images of class {class_id} "
                f"{index.class_names.get(class_id, '?')} as way {j} of {ways}; {len(shown)} images show it "
                f"on {min_area} pixels and {len(served)} of them already serve in the episode: add images, "
                "lower the ways, the shots or the min_area, or choose another fold"
            )
        spec = replace(spec, others=(*spec.others, Way(class_id, supports)))
    return spec


def _named(index: Index, counts: Mapping[int, int]) -> str:
    return ", ".join(f"{c} {index.class_names.get(c, '?')}: {n}" for c, n in sorted(counts.items()))


_SCHEMA = "fewseg-manifest-1"


def write_manifest(path: Path | str, specs: Iterable[EpisodeSpec], header: Mapping[str, Any]) -> None:
    """Writes episodes, one JSON object a line after a line with the header; complete or not at all."""
    rows = [_row(spec) for spec in specs]
    first = {**header, "schema": _SCHEMA, "episodes": len(rows)}
    lines = [json.dumps(row, separators=(",", ":")) for row in (first, *rows)]
    atomic_write_text(path, "\n".join(lines) + "\n")


def _row(spec: EpisodeSpec) -> dict[str, Any]:
    row: dict[str, Any] = {"index": spec.index, "class_id": spec.class_id, "query": spec.query}
    row["supports"] = list(spec.supports)
    if spec.others:  # absent for one way, whose files are those of before there were several
        row["others"] = [{"class_id": w.class_id, "supports": list(w.supports)} for w in spec.others]
    return row


def read_manifest(
    path: Path | str, index: Index | None = None
) -> tuple[dict[str, Any], tuple[EpisodeSpec, ...]]:
    """Reads a manifest and checks it."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = parse_json(lines[0])
        schema, count = header["schema"], header["episodes"]
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"manifest {path} cannot be read ({error!r}): write it again from the protocol"
        ) from error
    if schema != _SCHEMA:
        raise DataError(f"manifest {path} must have schema {_SCHEMA!r}, got {schema!r}: write it again")
    if len(lines) - 1 != count:
        raise DataError(
            f"manifest {path} announces {count} episodes and holds {len(lines) - 1}: it is truncated or "
            "edited; fetch or write it again"
        )
    specs = tuple(_parse(path, number, line) for number, line in enumerate(lines[1:], start=2))
    doubled = sorted(index for index, times in Counter(s.index for s in specs).items() if times > 1)
    if doubled:
        raise DataError(
            f"manifest {path} has {len(doubled)} episodes more than once, like {doubled[:3]}: it is edited; "
            "fetch or write it again"
        )
    kinds = sorted({(len(spec.ways), len(spec.supports)) for spec in specs})
    if len(kinds) > 1:
        names = ", ".join(f"{ways}-way {shots}-shot" for ways, shots in kinds)
        raise DataError(
            f"manifest {path} has {names} episodes; those of one file are alike: write one file for each"
        )
    if index is not None:
        _check_images(path, specs, index)
    return header, specs


def _parse(path: Path, number: int, line: str) -> EpisodeSpec:
    try:
        row = parse_json(line)
        first, *others = map(_parse_way, (row, *row.get("others", ())))
        spec = EpisodeSpec(
            int(row["index"]), first.class_id, str(row["query"]), first.supports, tuple(others)
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"manifest {path}, line {number}: {line[:80]!r} is not an episode ({error!r}); a line has "
            "index, class_id, query and supports, and with several ways others"
        ) from error
    for way in spec.ways:
        if not way.supports or spec.query in way.supports:
            raise DataError(
                f"manifest {path}, line {number}: supports {list(way.supports)} with query {spec.query!r}; "
                "an episode has one support at least and never its own query among them"
            )
    shots = [len(way.supports) for way in spec.ways]
    if len(set(spec.classes)) != len(spec.classes) or len(set(shots)) != 1:
        raise DataError(
            f"manifest {path}, line {number}: ways of the classes {list(spec.classes)} with {shots} "
            "supports; those of an episode are different, with one number of supports: write it again"
        )
    return spec


def _parse_way(row: Mapping[str, Any]) -> Way:
    return Way(int(row["class_id"]), tuple(str(s) for s in row["supports"]))


def _check_images(path: Path, specs: Iterable[EpisodeSpec], index: Index) -> None:
    named = {(way.class_id, id) for spec in specs for way in spec.ways for id in way.supports}
    named |= {(spec.class_id, spec.query) for spec in specs}
    unknown = sorted({id for _, id in named if id not in index})
    if unknown:
        raise DataError(
            f"manifest {path} names {len(unknown)} images that {index.name} does not hold, like "
            f"{unknown[:3]}: replay it on the data it was written for"
        )
    without = sorted((c, id) for c, id in named if not index.images[id].areas.get(c))
    if without:
        raise DataError(
            f"manifest {path}: {len(without)} images do not show the class of their episode, like class "
            f"{without[0][0]} in {without[0][1]!r}: the masks are not those it was written for"
        )


Queries = Literal["independent", "epochs"]
"""How training queries follow each other."""


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
            such images stay.
        novel_pixels: what ``training_labels`` makes of those pixels.
        held_out_classes: base classes kept for model selection; treated like the novel ones.
        ways: N, from 1. The 1-way episode of a step is way 1 of its N-way episode; the classes of the further
            ways are uniform among the rest.
        queries: "independent" draws every query anew; "epochs" walks the images that show a usable class,
            reshuffled on every pass, each once before any twice.

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
        novel_pixels: NovelPixels = "background",
        held_out_classes: Sequence[int] = (),
        ways: int = 1,
        queries: Queries = "independent",
    ) -> None:
        if queries not in get_args(Queries) or (queries == "epochs" and class_first):
            raise ValueError(
                f"queries must be one of {get_args(Queries)}, and class_first 0 with 'epochs'; got "
                f"queries={queries!r} and class_first={class_first}"
            )
        if min(shots, ways) < 1 or not 0.0 <= class_first <= 1.0:
            raise ValueError(
                "training episodes need shots >= 1, ways >= 1 and class_first in [0, 1]; got "
                f"shots={shots}, ways={ways} and class_first={class_first}"
            )
        unknown = sorted(set(held_out_classes) - set(split.base))
        if unknown:
            raise ValueError(
                f"held-out classes {unknown} are not base classes of the fold: choose of {split.base}"
            )
        unseen = {*split.novel, *held_out_classes}
        self.index = index.without(unseen) if drop_novel else index
        self._ignored = sorted(unseen) if novel_pixels == "ignored" else []
        self.shots, self.ways, self.class_first, self.min_area = shots, ways, class_first, min_area
        self.classes = self._usable([c for c in split.base if c not in unseen])
        self.further_classes = self._further() if ways > 1 else ()
        self._queries = self.index.images_with_any(self.classes, min_area)
        self._key = ("train", _VERSION, split.fold, seed)
        self.queries = queries
        self._pass: tuple[int, tuple[str, ...]] = (-1, ())

    def training_labels(self, labels: Tensor) -> Tensor:
        """A label map as training sees it: 255 on classes that it must not see, where those are ignored."""
        return labels.masked_fill(among(labels, self._ignored), IGNORE)

    def _usable(self, classes: Sequence[int]) -> tuple[int, ...]:
        counts = {c: len(self.index.images_of(c, self.min_area)) for c in classes}
        few = {c: n for c, n in counts.items() if n <= self.shots}
        names = _named(self.index, few)
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
        remaining = {c: len(self.index.images_of(c, self.min_area)) - taken[c] for c in self.classes}
        few = {c: n for c, n in remaining.items() if n < self.shots}
        names = _named(self.index, few)
        if len(remaining) - len(few) < self.ways:
            raise DataError(
                f"{self.index.name}: {self.ways}-way {self.shots}-shot training needs {self.ways} base "
                f"classes that keep {self.shots} images beside those of other classes; of "
                f"{list(remaining)} these keep fewer ({names}): add images, lower min_area, "
                "the ways or the shots, or hold out fewer classes"
            )
        if few:
            log.warning("%s: never a further way, too few images of its own (%s)", self.index.name, names)
        return tuple(c for c in remaining if c not in few)

    def _walked(self, step: int) -> str:
        """The query of a step where queries are walked by epochs."""
        number, place = divmod(step, len(self._queries))
        if self._pass[0] != number:
            order = Draws(*self._key, "pass", number).sample(self._queries, len(self._queries))
            self._pass = (number, tuple(order))
        return self._pass[1][place]

    def episode(self, step: int) -> EpisodeSpec:
        """Returns the training episode of a step, a pure function of (fold, seed, step) and the data."""
        draws = Draws(*self._key, step)
        if draws.chance(self.class_first):
            class_id = draws.choice(self.classes)
            query = draws.choice(self.index.images_of(class_id, self.min_area))
        else:
            query = self._walked(step) if self.queries == "epochs" else draws.choice(self._queries)
            present = self.index.classes_in(query, self.min_area)
            class_id = draws.choice([c for c in present if c in self.classes])
        candidates = [id for id in self.index.images_of(class_id, self.min_area) if id != query]
        first = EpisodeSpec(step, class_id, query, draws.sample(candidates, self.shots))
        if self.ways == 1:
            return first
        return further_ways(
            first, self.index, self.further_classes, draws, ways=self.ways, min_area=self.min_area
        )


class EpisodeSampler:
    """The evaluation episodes of one fold, each a pure function of (protocol, fold, seed, i) and the data.

    Of the protocol only ``query_order``, ``min_area`` and ``distinct_supports`` matter, so protocols that
    differ in their scoring share their episodes. Class and query do not depend on ``shots``, and the K-shot
    supports are the first K of the (K+1)-shot supports of the same i. Only which images a list holds matters,
    not their order. The episode of fewer ways is the first ways of the episode of more: the class of a
    further way is uniform among those that no earlier way has, and depends on neither ``shots`` nor the
    query's other classes.

    Args:
        index: the test images.
        split: the fold.
        protocol: the rules.
        shots: K, from 1.
        classes: the classes to draw from, such as held-out base classes; by default the novel ones.
        ways: N, from 1 to the number of classes. Where classes share images, K + 1 images of each may still
            be too few for several ways; then it is the episode that raises the DataError.

    Raises:
        DataError: a class has fewer than K + 1 images (2, where supports may repeat), or there is none.
        ValueError: K or N is below 1, there are fewer classes than ways, or the split is the other one of
            COCO-20i than the protocol's.
    """

    def __init__(
        self,
        index: Index,
        split: ClassSplit,
        protocol: Protocol,
        shots: int,
        classes: Sequence[int] | None = None,
        ways: int = 1,
    ) -> None:
        if shots < 1:
            raise ValueError(f"episodes need 1 support at least, got shots={shots}")
        protocol.check_split(split.name)
        self.index, self.split, self.protocol = index, split, protocol
        self.shots, self.ways = shots, ways
        self.classes = tuple(sorted(split.novel if classes is None else classes))
        needed = shots + 1 if protocol.distinct_supports else 2
        counts = {c: len(index.images_of(c, protocol.min_area)) for c in self.classes}
        few = {c: n for c, n in counts.items() if n < needed}
        if few:
            raise DataError(
                f"{index.name} has too few images for {needed - 1}-shot episodes of these classes "
                f"({_named(index, few)}); each needs {needed} where it covers {protocol.min_area} pixels: "
                "add images, lower the shots or the min_area, or choose another fold"
            )
        if not self.classes:
            raise DataError(f"split {split.name} fold {split.fold} has no classes to draw episodes from")
        if not 1 <= ways <= len(self.classes):
            raise ValueError(
                f"got ways={ways}; {len(self.classes)} classes {list(self.classes)} can be drawn from: give "
                f"1 to {len(self.classes)} ways, or choose a fold or list with more classes"
            )
        rules = (protocol.query_order, protocol.min_area, int(protocol.distinct_supports))
        self._key = ("episode", _VERSION, *rules, split.fold)

    def episode(self, seed: int, i: int) -> EpisodeSpec:
        """Returns episode i of a seed, a pure function of (protocol, fold, seed, i) and the data."""
        index, min_area, distinct = self.index, self.protocol.min_area, self.protocol.distinct_supports
        draws = Draws(*self._key, seed, i)
        if self.protocol.query_order == "class_first":
            class_id = draws.choice(self.classes)
            query = draws.choice(index.images_of(class_id, min_area))
        else:
            queries = index.images_with_any(self.classes, min_area)
            lap, position = divmod(i, len(queries))
            query = queries[_permutation(len(queries), *self._key, seed, "lap", lap)[position]]
            present = [c for c in index.classes_in(query, min_area) if c in self.classes]
            class_id = draws.choice(present)
        candidates = [id for id in index.images_of(class_id, min_area) if id != query]
        if distinct:
            supports = draws.sample(candidates, self.shots)
        else:
            supports = tuple(draws.choice(candidates) for _ in range(self.shots))
        first = EpisodeSpec(i, class_id, query, supports)
        return further_ways(
            first, index, self.classes, draws, ways=self.ways, min_area=min_area, distinct=distinct
        )

    def episodes(self, seed: int) -> Iterator[EpisodeSpec]:
        """Yields the protocol's episodes of a seed, in order."""
        return (self.episode(seed, i) for i in range(self.protocol.episodes))


def record(sampler: EpisodeSampler, folder: Path) -> list[Path]:
    """Writes one manifest a seed of the sampler's protocol."""
    paths = []
    for seed in sampler.protocol.seeds:
        fold, shots, ways = sampler.split.fold, sampler.shots, sampler.ways
        several = f"-{ways}way" if ways > 1 else ""
        path = folder / f"{sampler.protocol.name}-fold{fold}{several}-{shots}shot-seed{seed}.jsonl"
        header = {"protocol": asdict(sampler.protocol), "fold": fold, "shots": shots, "seed": seed}
        if ways > 1:  # absent for one way, whose files are those of before there were several
            header["ways"] = ways
        write_manifest(path, sampler.episodes(seed), header)
        paths.append(path)
    return paths


class RecordedEpisodes:
    """Episodes from manifests: stands wherever an ``EpisodeSampler`` stands.

    Args:
        paths: one manifest a seed, all of one protocol, fold, N and K.
        index: the images they are replayed on.

    Raises:
        DataError: a manifest is broken, shortened or of other images, or they do not belong together.
    """

    def __init__(self, paths: Sequence[Path], index: Index) -> None:
        self._specs: dict[int, tuple[EpisodeSpec, ...]] = {}
        kinds = set()
        for path in paths:
            header, specs = read_manifest(path, index)
            try:
                stored = {**header["protocol"], "seeds": tuple(header["protocol"]["seeds"])}
                self.protocol = Protocol(**stored)
                self.fold, self.shots, seed = int(header["fold"]), int(header["shots"]), int(header["seed"])
                self.ways = int(header.get("ways", 1))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"manifest {path} lacks protocol, fold, shots or seed ({error}): write it with "
                    "`fewseg episodes`"
                ) from error
            self._check_complete(path, specs)
            kinds.add((self.protocol.digest(), self.fold, self.shots, self.ways))
            self._specs[seed] = specs
        if len(kinds) != 1 or len(self._specs) != len(paths):
            raise DataError(
                f"the manifests {[p.name for p in paths]} are of different protocols, folds, ways or shots, "
                "or two of one seed: give one file a seed of one recording"
            )
        missing = sorted(set(self.protocol.seeds) - set(self._specs))
        if missing:
            raise DataError(
                f"the recording has seeds {self.protocol.seeds}; manifests of {missing} are missing"
            )

    def _check_complete(self, path: Path, specs: Sequence[EpisodeSpec]) -> None:
        """Checks that a manifest has every episode that its header announces, of so many ways and shots."""
        checks = [("episodes", self.protocol.episodes, len(specs))]
        if specs:
            checks += [("ways", self.ways, len(specs[0].ways)), ("shots", self.shots, len(specs[0].supports))]
        wrong = [f"announces {n} {what} and has {count}" for what, n, count in checks if n != count]
        unknown = sorted({spec.index for spec in specs} - set(range(len(specs))))
        if unknown:
            wrong.append(f"has episodes {unknown[:3]}, those of its protocol are 0 .. {len(specs) - 1}")
        if wrong:
            raise DataError(f"manifest {path} {wrong[0]}: it is edited; fetch or write it again")

    def episodes(self, seed: int) -> Iterator[EpisodeSpec]:
        """Yields the recorded episodes of a seed, in order."""
        return iter(self._specs[seed])


Episodes = EpisodeSampler | RecordedEpisodes
"""Drawn or recorded: what an evaluation runs on."""
