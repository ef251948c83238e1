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
from fewseg.recipes.variants import Variant

ReadData = Callable[[int, Path | None], FoldData]
"""(fold, root or None) -> the fold's data."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One line of a result table.

    Attributes:
        ways: N.
        shots: K.
        fusion: how K shots become one answer.
        on: what is segmented: the query, or the support images themselves (SRPNet's "(sup)" rows).
        sizes: side of the input in pixels, the recipe's own where empty; of several, each has a pass and the
            probabilities are added.
        output_sizes: sides that the logits of one pass are resized to, the probabilities of which are added.
    """

    ways: int = 1
    shots: int
    fusion: Fusion = field(default_factory=MeanVector)
    on: Literal["query", "support"] = "query"
    sizes: tuple[int, ...] = ()
    output_sizes: tuple[int, ...] = ()


PLAIN = tuple(Evaluation(shots=k) for k in (1, 5))
ITERATED = tuple(Evaluation(shots=k, fusion=IterativeInference()) for k in (1, 5))
AVERAGED = tuple(Evaluation(shots=k, fusion=ScoreAverage()) for k in (1, 5))
CROSS_GUIDED = (*AVERAGED, Evaluation(shots=5, fusion=CrossGuided()))
ON_SUPPORT = (Evaluation(shots=1, on="support"),)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method with everything that decides its numbers.

    Attributes:
        name: its name on the command line; a registered recipe has that of its function.
        variant: what it is whatever the data set: label, baselines, and where papers print it.
        method: the method's config.
        data: reads a fold.
        train: the training; None for a method without.
        size: side of the network's input in evaluation, pixels.
        protocol: how it is evaluated.
        evaluations: which shots and fusions.
    """

    name: str = ""
    variant: Variant = field(default_factory=Variant)
    method: MethodConfig
    data: ReadData
    train: TrainConfig | None
    size: int
    protocol: Protocol = PAPER_SCL
    evaluations: tuple[Evaluation, ...] = PLAIN


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
