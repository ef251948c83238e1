"""Base classes of figures: measure checkpoints fold by fold, draw each fold, summarise all, note claims."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from fewseg.reports.figures.context import PICTURES, Claim, FigureContext, Record
from fewseg.reports.figures.drawing import Noted, add_scale, grid
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.numbers import Estimate

T = TypeVar("T")
GridRow = tuple[str, Sequence[Noted], Record]
"""The name of a row of pictures, the pictures, and its record in the table beside them."""


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
