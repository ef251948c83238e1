"""What all figures share: a run's inputs and outputs, claims, and the base classes that measure and draw."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fewseg.ops.files import atomic_path, atomic_write_text
from fewseg.reports.figures.drawing import Noted, add_scale, grid, save
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.frame import FOLDS, FOLDS_OF, Results, results_of
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.options import FiguresOptions

logger = logging.getLogger(__name__)

T = TypeVar("T")
Record = dict[str, Any]
"""A row of the numbers behind a figure."""
GridRow = tuple[str, Sequence[Noted], Record]
"""The name of a row of pictures, the pictures, and its record in the table beside them."""

PLOTS = "plots"
"""Subfolder of figures without photographs."""
PICTURES = "pictures"
"""Subfolder of figures with photographs."""
CLAIMS = "claims.csv"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number that tests a claim of a paper's figure."""

    claim: str  # in a few words
    where: str = ""  # data set and fold or folds
    quantity: str  # what the number is
    estimate: Estimate  # the number, with its 95 % interval
    count: int  # number of items that it is the mean or share of: episodes, supports, cells

    @property
    def verdict(self) -> str:
        """Whether the interval lies above 0, as claimed, below it or around it."""
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
    """The inputs of figures, and the outputs so far."""

    options: FiguresOptions  # options of the run
    models: Sequence[FigureModel] = ()  # the checkpoints, all of one data set
    results: Results = field(default_factory=lambda: results_of({}))  # results of the folder
    files: list[Path] = field(default_factory=list)  # written files
    problems: list[str] = field(default_factory=list)  # what is missing and why
    remarks: list[str] = field(default_factory=list)  # remarks for readers of a figure
    claims: list[Claim] = field(default_factory=list)  # the measured claims

    @property
    def dataset(self) -> str:
        """Name of the checkpoints' data set."""
        return self.models[0].data.dataset

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Notes an error of the block as a problem, so that the rest is made."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            logger.debug("traceback", exc_info=True)
            self.problems.append(f"{what}: {error}")

    def one_shot(self) -> pd.DataFrame:
        """The rows of 1-way 1-shot results on queries."""
        frame = self.results.frame
        return frame[(frame.ways == 1) & (frame.shots == 1) & (frame.on == "query")]

    def claim(self, dataset: str, by_fold: Mapping[int, Iterable[Claim]]) -> None:
        """Notes the claims of each fold, and their means if no fold of the data set is missing."""
        named: dict[tuple[str, str], dict[int, Claim]] = {}
        for fold, claims in sorted(by_fold.items()):
            for note in claims:
                named.setdefault((note.claim, note.quantity), {})[fold] = note
        for per_fold in named.values():
            self.claims += [replace(note, where=f"{dataset} fold {fold}") for fold, note in per_fold.items()]
            if set(per_fold) == set(range(FOLDS_OF.get(dataset, FOLDS))):
                mean = mean_of([note.estimate for note in per_fold.values()])
                count = sum(note.count for note in per_fold.values())
                where = f"{dataset} mean of all folds"
                self.claims.append(replace(per_fold[0], where=where, estimate=mean, count=count))

    def save(
        self,
        figure: Figure | None,
        name: str,
        records: Sequence[Record],
        arrays: Mapping[str, object] | None = None,
        *,
        folder: str = PLOTS,
    ) -> None:
        """Writes a figure and, beside it, its numbers as CSV and its arrays, if any, as ``.npz``."""
        stem = self.options.out / folder / name
        if figure is not None:
            self.files += save(figure, stem, svg=folder == PLOTS)
        self.files.append(write_records(stem.with_name(f"{name}.csv"), records))
        if arrays:
            self.files.append(stem.with_name(f"{name}.npz"))
            with atomic_path(self.files[-1]) as temporary:
                np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


class PaperFigure(ABC):
    """A figure of a paper, made once for a run."""

    name: ClassVar[str]  # for ``--figure``, and for file names
    shows: ClassVar[str]  # the content, and where it is printed
    needs: ClassVar[str]  # the inputs

    def __init__(self, context: FigureContext) -> None:
        self.context, self.options = context, context.options
        self.records: list[Record] = []  # the numbers behind the plot of all folds
        self.claims: dict[int, list[Claim]] = {}  # claims by fold

    @abstractmethod
    def make(self) -> None:
        """Makes all files of the figure; notes what is missing."""

    def claim(self, fold: int, claim: str, quantity: str, result: tuple[Estimate, int]) -> None:
        """Notes an estimate and its number of items for a claim of the paper."""
        estimate, count = result
        note = Claim(claim=claim, quantity=quantity, estimate=estimate, count=count)
        self.claims.setdefault(fold, []).append(note)

    def save_grid(
        self,
        name: str,
        rows: Sequence[GridRow],
        columns: Sequence[str],
        title: str,
        *,
        scale: str = "",
        arrays: Mapping[str, object] | None = None,
    ) -> None:
        """Writes a grid of photographs, with the ``scale`` of their maps, if any."""
        names, pictures, records = zip(*rows, strict=True)
        figure = grid(pictures, columns, names, title)
        if scale:
            add_scale(figure, scale)
        self.context.save(figure, name, records, arrays, folder=PICTURES)


class CheckpointFigure(PaperFigure, Generic[T]):
    """A figure of checkpoints; T is the measurement of one."""

    checkpoint: ClassVar[str] = "checkpoint"  # the kind of checkpoint it needs, in messages

    def fits(self, model: FigureModel) -> bool:
        """Whether the figure can be made from a checkpoint."""
        return True

    def chosen(self, fold: int, models: Sequence[FigureModel]) -> Sequence[FigureModel]:
        """The checkpoints to show, of those of a fold that fit."""
        return models

    @abstractmethod
    def measure(self, model: FigureModel) -> T:
        """Measures one checkpoint; notes its records and claims, and draws what shows it alone."""

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, T]) -> None:
        """Draws the checkpoints of a fold together."""

    def draw_all(self, measured: Mapping[FigureModel, T]) -> None:
        """Draws the checkpoints of all folds together."""

    def by_fold(self) -> dict[int, list[FigureModel]]:
        """The checkpoints that fit, in the order of their variants."""
        folds = sorted({model.fold for model in self.context.models})
        fitting = sorted(filter(self.fits, self.context.models), key=lambda model: model.place)
        by_fold = {fold: [model for model in fitting if model.fold == fold] for fold in folds}
        self.context.problems += [
            f"{self.name}, fold {fold}: there is no {self.checkpoint}"
            for fold, models in by_fold.items()
            if not models
        ]
        if not folds:
            self.context.problems.append(
                f"{self.name}: no checkpoint given, and it needs a {self.checkpoint}"
            )
        return {fold: models for fold, models in by_fold.items() if models}

    def make(self) -> None:
        """Measures the checkpoints, and makes a figure for each fold and a plot of all."""
        context = self.context
        measured: dict[FigureModel, T] = {}
        for fold, models in self.by_fold().items():
            with context.attempt(f"{self.name}, fold {fold}"):
                of_fold: dict[FigureModel, T] = {}
                for model in self.chosen(fold, models):
                    with context.attempt(f"{self.name}, {model.title}"):
                        of_fold[model] = self.measure(model)
                if of_fold:
                    measured |= of_fold
                    self.draw_fold(fold, of_fold)
        if measured:
            self.draw_all(measured)
            context.claim(context.dataset, self.claims)


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
