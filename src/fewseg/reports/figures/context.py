"""Options, inputs and outputs that all figures share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fewseg.ops.files import atomic_path, atomic_write_text
from fewseg.reports.figures.drawing import save
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.frame import FOLDS, Results, results_of
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.options import FiguresOptions

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""A row of the numbers behind a figure."""
ByFold = Mapping[int, tuple[Estimate, int]]
"""Fold to a number, and of how many items it is."""

PLOTS = "plots"
"""Subfolder of figures that show no photograph."""
PICTURES = "pictures"
"""Subfolder of figures that do."""
CLAIMS = "claims.csv"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number for something that a paper's figure claims."""

    claim: str  # in a few words
    where: str  # data set and fold or folds
    quantity: str  # what the number is
    estimate: Estimate  # the number, with its 95 % interval
    count: int  # of what it is the mean or share: episodes, supports, cells

    @property
    def verdict(self) -> str:
        """Whether the interval lies above 0, where every quantity should be, below it, or around it."""
        if self.estimate.low > 0:
            return "holds"
        return "the opposite" if self.estimate.high < 0 else "not shown"

    @property
    def record(self) -> Record:
        """As a row of ``claims.csv``."""
        number = {**asdict(self.estimate), "count": self.count, "verdict": self.verdict}
        return {"claim": self.claim, "where": self.where, "quantity": self.quantity, **number}


@dataclass(kw_only=True)
class FigureContext:
    """What figures are made from, and what has been made."""

    options: FiguresOptions  # of the run
    models: Sequence[FigureModel] = ()  # the checkpoints, all of one data set
    results: Results = field(default_factory=lambda: results_of({}))  # those of the folder
    files: list[Path] = field(default_factory=list)  # that were written
    problems: list[str] = field(default_factory=list)  # what is missing and why
    remarks: list[str] = field(default_factory=list)  # what a reader of a figure must know
    claims: list[Claim] = field(default_factory=list)  # numbers that were found

    @property
    def progress(self) -> bool:
        """Whether bars are shown."""
        return not self.options.quiet

    @property
    def dataset(self) -> str:
        """Name of the checkpoints' data set."""
        return self.models[0].data.dataset

    def models_by_fold(
        self, figure: str, fits: Callable[[FigureModel], bool], needed: str
    ) -> Iterator[tuple[int, list[FigureModel]]]:
        """The models of each fold that a figure can be made from, in the order of their variants."""
        folds = sorted({model.fold for model in self.models})
        for fold in folds:
            found = sorted((m for m in self.models if m.fold == fold and fits(m)), key=lambda m: m.place)
            if found:
                yield fold, found
            else:
                self.problems.append(f"{figure}, fold {fold}: there is no {needed}")
        if not folds:
            self.problems.append(f"{figure}: no checkpoint given, and it needs a {needed}")

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Notes what goes wrong in the block, so that the rest is made."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            logger.debug("traceback", exc_info=True)
            self.problems.append(f"{what}: {error}")

    def one_shot(self) -> pd.DataFrame:
        """The rows of 1-way 1-shot results on queries."""
        frame = self.results.frame
        return frame[(frame.ways == 1) & (frame.shots == 1) & (frame.on == "query")]

    def claim(self, claim: str, dataset: str, quantity: str, by_fold: ByFold) -> None:
        """Notes a number for each fold, and their mean if no fold of the data set is missing."""
        found = {f"fold {fold}": one for fold, one in sorted(by_fold.items())}
        if set(by_fold) == set(range(FOLDS)):
            mean = mean_of([estimate for estimate, _ in by_fold.values()])
            found["mean of all folds"] = (mean, sum(count for _, count in by_fold.values()))
        self.claims += [
            Claim(claim=claim, where=f"{dataset} {where}", quantity=quantity, estimate=estimate, count=count)
            for where, (estimate, count) in found.items()
        ]

    def save(
        self,
        figure: Figure | None,
        name: str,
        records: Sequence[Record],
        *,
        photographs: bool = False,
        **arrays: object,
    ) -> None:
        """Writes a figure and, beside it, its numbers as CSV and its arrays, if any, as ``.npz``."""
        stem = self.options.out / (PICTURES if photographs else PLOTS) / name
        if figure is not None:
            self.files += save(figure, stem, svg=not photographs)
        self.files.append(write_records(stem.with_name(f"{name}.csv"), records))
        if arrays:
            path = stem.with_name(f"{name}.npz")
            with atomic_path(path) as temporary:
                np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
            self.files.append(path)


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """Writes records as CSV, columns in the order of their first appearance; missing values stay empty."""
    if not records:
        raise ValueError(f"there is no row to write to {path}")
    table = pd.DataFrame(records, dtype=object)  # object: whole numbers stay whole beside missing ones
    atomic_write_text(path, table.to_csv(index=False, lineterminator="\n"))
    return path


def with_prefix(name: str, estimate: Estimate) -> Record:
    """An estimate as the columns ``name``, ``name_low`` and ``name_high``."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
