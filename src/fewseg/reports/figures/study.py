"""What all figures are made from, and what became of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from fewseg.data.folds import FoldData
from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts
from fewseg.ops.files import atomic_path
from fewseg.reports.figures.data_files import Row, write_rows
from fewseg.reports.figures.style import save
from fewseg.reports.figures.subjects import NAMES, Opened, Subject, open_subject
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.table import FOLDS

logger = logging.getLogger(__name__)

PLOTS = "plots"
"""Subfolder of figures that show no photograph."""
PICTURES = "pictures"
"""Subfolder of figures that do."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was found for something that a paper's figure claims.

    Attributes:
        claim: in a few words.
        where: data set and fold or folds.
        quantity: what the number is.
        found: it, with its 95 % interval.
        count: of what it is the mean or share: episodes, supports, cells.
    """

    claim: str
    where: str
    quantity: str
    found: Estimate
    count: int

    @property
    def verdict(self) -> str:
        """Whether the interval lies above 0, where every quantity should be, below it, or around it."""
        if self.found.low > 0:
            return "holds"
        return "the opposite" if self.found.high < 0 else "not shown"


def _place(subject: Subject) -> tuple[int, str]:
    known = list(NAMES)
    return (known.index(subject.stem) if subject.stem in NAMES else len(known)), subject.stem


@dataclass(kw_only=True)
class Study:
    """Checkpoints, results and options of a run, and what has been made so far.

    Attributes:
        subjects: the checkpoints.
        results: result files with their counts.
        out: folder for the figures.
        episodes: a seed; None for the protocol's.
        examples: rows of a figure with photographs.
        seed: of everything that is drawn.
        shots: K of the predictions in the qualitative figure.
        progress: show bars.
        files: that were written.
        problems: what is missing and why.
        remarks: what a reader of a figure must know.
        claims: numbers that were found.
    """

    subjects: Sequence[Subject]
    results: Sequence[tuple[RunResult, EpisodeCounts]]
    out: Path
    episodes: int | None = None
    examples: int = 5
    seed: int = 0
    shots: tuple[int, ...] = (1,)
    progress: bool = True
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    _opened: dict[str, Opened] = field(default_factory=dict)
    _data: dict[tuple[object, ...], FoldData] = field(default_factory=dict)

    @property
    def folds(self) -> list[int]:
        """The folds of the checkpoints, ascending."""
        return sorted({s.fold for s in self.subjects})

    def open(self, subject: Subject) -> Opened:
        """A subject's network, data and features; kept, since several figures look at it.

        Raises:
            FileNotFoundError: its checkpoint is gone.
            ValueError: it cannot be used.
        """
        key = f"{subject.what} {subject.fold}"
        if key not in self._opened:
            place = (subject.recipe.data, subject.fold, subject.root)
            if place not in self._data:
                self._data[place] = subject.recipe.data(subject.fold, subject.root)
            self._opened[key] = open_subject(subject, self._data[place])
        return self._opened[key]

    def wanted(
        self, figure: str, fits: Callable[[Subject], bool], what: str
    ) -> Iterator[tuple[int, list[Subject]]]:
        """The subjects of each fold that a figure can be made of, in the order of ``NAMES``.

        What is missing is noted.

        Args:
            figure: its name.
            fits: whether a figure can be made of a subject.
            what: they must be, in words that follow "a" or "no": "checkpoint of SCL".
        """
        for fold in self.folds:
            found = sorted((s for s in self.subjects if s.fold == fold and fits(s)), key=_place)
            if found:
                yield fold, found
            else:
                self.problems.append(f"{figure}, fold {fold}: there is no {what}")
        if not self.folds:
            self.problems.append(f"{figure}: no checkpoint given, and it needs a {what}")

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Notes what goes wrong in the block, so that the rest is made."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            logger.debug("traceback", exc_info=True)
            self.problems.append(f"{what}: {error}")

    def claim(
        self, claim: str, dataset: str, quantity: str, by_fold: Mapping[int, tuple[Estimate, int]]
    ) -> None:
        """Notes a number for each fold, and their mean where all folds of the data set are there.

        Args:
            claim: in a few words.
            dataset: its name.
            quantity: what the number is.
            by_fold: fold to the number, and of how many items it is.
        """
        found = {f"fold {fold}": one for fold, one in sorted(by_fold.items())}
        if set(by_fold) == set(range(FOLDS)):
            mean = mean_of([estimate for estimate, _ in by_fold.values()])
            found["mean of all folds"] = (mean, sum(count for _, count in by_fold.values()))
        self.claims += [
            Claim(claim=claim, where=f"{dataset} {where}", quantity=quantity, found=estimate, count=count)
            for where, (estimate, count) in found.items()
        ]

    def save(self, figure: Figure, name: str, rows: Sequence[Row], *, photographs: bool = False) -> None:
        """Writes a figure and, beside it, its data as CSV.

        Raises:
            OSError: a file could not be written.
        """
        stem = self.out / (PICTURES if photographs else PLOTS) / name
        self.files += save(figure, stem, svg=not photographs)
        self.files.append(write_rows(stem.with_name(f"{name}.csv"), rows))

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Writes numbers that have no figure of their own, among those without photographs.

        Raises:
            OSError: the file could not be written.
        """
        self.files.append(write_rows(self.out / PLOTS / f"{name}.csv", rows))

    def save_arrays(self, name: str, *, photographs: bool = False, **arrays: object) -> None:
        """Writes arrays that a picture was made of, as ``<name>.npz`` beside it.

        Raises:
            OSError: the file could not be written.
        """
        import numpy as np

        path = self.out / (PICTURES if photographs else PLOTS) / f"{name}.npz"
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        self.files.append(path)
