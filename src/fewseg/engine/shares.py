"""What an evaluation asks, and how it is shared out so that nothing is computed in two places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fewseg.data.episode_spec import EpisodeSpec, Way

Target = Literal["query", "support"]

T = TypeVar("T", bound=Hashable)

Pair = tuple[int, str, str]
"""(class, support image, target image)."""


@dataclass(frozen=True)
class Question:
    """What several episodes may ask alike: these supports, segment that image."""

    ways: tuple[Way, ...]
    target: str

    @property
    def images(self) -> tuple[str, ...]:
        """Every image that is looked at."""
        return (*(id for way in self.ways for id in way.supports), self.target)


@dataclass(frozen=True)
class Share:
    """A part of an evaluation that one process does on its own.

    Attributes:
        questions: to be answered.
        judged: pairs of support images whose IoU any share may need before it can answer (cross-guided).
    """

    questions: tuple[Question, ...]
    judged: tuple[Pair, ...] = ()

    @property
    def images(self) -> list[str]:
        """Every image that is looked at, once."""
        asked = {id for question in self.questions for id in question.images}
        return sorted(asked | {id for _, *ids in self.judged for id in ids})


def questions_of(spec: EpisodeSpec, on: Target) -> list[Question]:
    """The questions of an episode: one for its query, or one for each of its support images."""
    targets = (spec.query,) if on == "query" else spec.all_supports
    return [Question(spec.ways, target) for target in targets]


def by_target(asked: Sequence[Question], judged: Collection[Pair], parts: int) -> list[Share]:
    """Shares of whole targets: every pair is scored in one share, and a target is encoded in one.

    Args:
        asked: different questions.
        judged: pairs whose IoU is needed.
        parts: number of shares, about equal in pairs to be scored.
    """
    pairs: dict[str, int] = defaultdict(int)
    for question in asked:
        pairs[question.target] += sum(len(way.supports) for way in question.ways)
    in_order = sorted(judged)  # every process must come to the same shares
    for _, _, target in in_order:
        pairs[target] += 1
    part = _balanced(pairs, parts)
    return _shares(asked, [part[q.target] for q in asked], in_order, part, parts)


def by_support_set(asked: Sequence[Question], parts: int) -> list[Share]:
    """Shares of whole support sets: every set is encoded in one share.

    Args:
        asked: different questions.
        parts: number of shares, about equal in questions.
    """
    sets: dict[tuple[Way, ...], int] = defaultdict(int)
    for question in asked:
        sets[question.ways] += 1
    part = _balanced(sets, parts)
    return _shares(asked, [part[q.ways] for q in asked], (), {}, parts)


def _shares(
    asked: Sequence[Question],
    of_question: Sequence[int],
    judged: Iterable[Pair],
    of_target: Mapping[str, int],
    parts: int,
) -> list[Share]:
    questions: list[list[Question]] = [[] for _ in range(parts)]
    pairs: list[list[Pair]] = [[] for _ in range(parts)]
    for question, part in zip(asked, of_question, strict=True):
        questions[part].append(question)
    for pair in judged:
        pairs[of_target[pair[2]]].append(pair)
    return [Share(tuple(q), tuple(p)) for q, p in zip(questions, pairs, strict=True)]


def _balanced(costs: Mapping[T, int], parts: int) -> dict[T, int]:
    """The part of every item: the dearest first, each to the part that has least."""
    loads, part = [0] * parts, {}
    for item in sorted(costs, key=lambda item: -costs[item]):  # stable: the order of the questions decides
        least = loads.index(min(loads))
        loads[least] += costs[item]
        part[item] = least
    return part
