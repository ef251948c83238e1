"""What a recipe is: a method, its training and its evaluation, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Literal

from fewseg.data.folds import FoldData
from fewseg.data.protocols import PAPER_SCL, Protocol
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.fusion import CrossGuided, Fusion, IterativeInference, MeanVector, ScoreAverage
from fewseg.methods.registry import MethodConfig
from fewseg.recipes.datasets import training_data
from fewseg.recipes.variants import Variant

ReadData = Callable[[int, Path | None], FoldData]
"""(fold, root or None) -> the fold's data."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One line of a result table."""

    ways: int = 1  # N
    shots: int  # K
    fusion: Fusion = field(default_factory=MeanVector)  # how K shots become one answer
    # what is segmented: the query, or the support images themselves (SRPNet's "(sup)" rows)
    on: Literal["query", "support"] = "query"
    # side of the input in pixels, the recipe's own where empty; of several, each has a pass and the
    # probabilities are added
    sizes: tuple[int, ...] = ()
    # sides that the logits of one pass are resized to, the probabilities of which are added
    output_sizes: tuple[int, ...] = ()


PLAIN = tuple(Evaluation(shots=k) for k in (1, 5))
ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))
AVERAGED = tuple(Evaluation(shots=k, fusion=ScoreAverage()) for k in (1, 5))
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
