"""What a recipe is: a method, its training and its evaluation, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path

from fewseg.data.folds import FoldData
from fewseg.data.protocols import PAPER_SCL, Protocol
from fewseg.engine.answering import Answering
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.fusion import CrossGuided, Fusion, IterativeInference, MeanVector, ScoreAverage
from fewseg.methods.registry import MethodConfig
from fewseg.recipes.datasets import training_data
from fewseg.recipes.variants import Variant

ReadData = Callable[[int, Path | None], FoldData]
"""(fold, root or None) -> the fold's data."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Answering):
    """One line of a result table."""

    fusion: Fusion = field(default_factory=MeanVector)
    ways: int = 1  # N
    shots: int  # K


def joined_by(fusion: Fusion) -> tuple[Evaluation, ...]:
    """The lines of one shot and of five."""
    return tuple(Evaluation(shots=k, fusion=fusion) for k in (1, 5))


PLAIN, ITERATED, AVERAGED = (
    joined_by(fusion) for fusion in (MeanVector(), IterativeInference(), ScoreAverage())
)
CROSS_GUIDED = (*AVERAGED, Evaluation(shots=5, fusion=CrossGuided()))
ON_SUPPORT = (Evaluation(shots=1, on="support"),)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method with everything that decides its numbers."""

    name: str = ""  # its name on the command line; a registered recipe has that of its function
    # what it is whatever the data set: label, baselines, and where papers print it
    variant: Variant = field(default_factory=Variant)
    method: MethodConfig  # the method's config
    data: ReadData  # reads a fold
    train: TrainConfig | None  # the training; None for a method without
    size: int  # side of the network's input in evaluation, pixels
    protocol: Protocol = PAPER_SCL  # how it is evaluated
    evaluations: tuple[Evaluation, ...] = PLAIN  # which shots and fusions

    def read(self, fold: int, root: Path | None = None) -> FoldData:
        """Reads a fold of its data, for PASCAL-5i with the training list that ``train`` names.

        Raises:
            DataError: files are missing.
            ValueError: ``train`` names a list and the data set has none.
        """
        return training_data(self.data, self.train.train_list if self.train else None, fold, root)


RECIPES: dict[str, Callable[[], Recipe]] = {}
"""Every registered recipe by its name; ``recipes.registry`` imports them all."""


def register(variant: Variant) -> Callable[[Callable[[], Recipe]], Callable[[], Recipe]]:
    """Registers a function that makes a recipe, under its own name and as this variant."""

    def registered(make: Callable[[], Recipe]) -> Callable[[], Recipe]:
        @wraps(make)
        def recipe() -> Recipe:
            return replace(make(), name=make.__name__, variant=variant)

        RECIPES[make.__name__] = recipe
        return recipe

    return registered
