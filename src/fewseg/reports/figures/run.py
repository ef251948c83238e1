"""``fewseg report figures``: every figure of the papers that the given checkpoints and results allow."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fewseg.data.folds import FoldData
from fewseg.recipes.recipe import Recipe
from fewseg.reports.figures import (
    failures,
    maps,
    qualitative,
    separation,
    shot_weights,
    sizes,
    support_masks,
)
from fewseg.reports.figures.context import CLAIMS, FigureContext, write_records
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.frame import Results, load_results, results_of
from fewseg.reports.options import FiguresOptions


@dataclass(frozen=True)
class FigureKind:
    """A figure: what it shows and where it is printed, what it needs, and the function that makes it."""

    shows: str
    needs: str
    make: Callable[[FigureContext], None]


FIGURES: Mapping[str, FigureKind] = {
    qualitative.NAME: FigureKind(
        "support, query, truth and predictions (SCL 6, SRPNet 5-6, SD-AANet 8)",
        "any checkpoint",
        qualitative.make,
    ),
    support_masks.NAME: FigureKind(
        "the masks behind v_s, v_pri and v_aux, and where they lie (SCL 4)",
        "a checkpoint of SCL",
        support_masks.make,
    ),
    separation.CELLS_NAME: FigureKind(
        "support features under cosine and fidelity (SRPNet 4)",
        "a checkpoint of SRPNet, the matcher, or any checkpoint with a frozen trunk",
        separation.make_cells,
    ),
    separation.PROTOTYPES_NAME: FigureKind(
        "support prototypes and how compact they are (SD-AANet 9)",
        "checkpoints of SD-AANet's Table III",
        separation.make_prototypes,
    ),
    sizes.NAME: FigureKind("mIoU by the size of the target (SD-AANet 10)", "1-shot results", sizes.make),
    maps.ATTENTION: FigureKind(
        "SAAM's attention on queries (SD-AANet 11)",
        "a checkpoint of SD-AANet with SAAM",
        maps.make_attention,
    ),
    maps.SIMILARITY: FigureKind(
        "similarity of a support's cells to its prototype (SD-AANet 12)",
        "checkpoints of SD-AANet's Table III",
        maps.make_similarity,
    ),
    failures.NAME: FigureKind(
        "failures by rule, how often and a few of each (SRPNet 7, SD-AANet 13)",
        "any checkpoint; 1-shot results for the rules that counts can show",
        failures.make,
    ),
    shot_weights.NAME: FigureKind(
        "the cross-guided module's weights against the true IoU of each shot (SCL Eq. 16)",
        "a checkpoint of SCL",
        shot_weights.make,
    ),
}


def make_figures(options: FiguresOptions) -> FigureContext:
    """Makes the figures; what is missing is noted and the rest is made."""
    options.check()
    for name in options.figure:
        if name not in FIGURES:
            near = difflib.get_close_matches(name, FIGURES) or list(FIGURES)
            raise ValueError(f"unknown figure {name!r}: did you mean {' or '.join(near)}?")
    problems: list[str] = []
    context = FigureContext(
        options=options,
        models=_models(options, problems),
        results=_results(options.results, problems),
        problems=problems,
    )
    for name in options.figure or FIGURES:
        with context.attempt(name):
            FIGURES[name].make(context)
    if context.claims:
        path = options.out / CLAIMS
        context.files.append(write_records(path, [claim.record for claim in context.claims]))
    return context


def _models(options: FiguresOptions, problems: list[str]) -> list[FigureModel]:
    """The checkpoints of the first one's data set, one for each recipe and fold."""

    @functools.cache
    def read(data: Callable[[int, Path | None], FoldData], fold: int) -> FoldData:
        return data(fold, options.root)

    def read_data(recipe: Recipe, fold: int) -> FoldData:
        return read(recipe.data, fold)

    found: dict[tuple[str, int], FigureModel] = {}
    for path in options.checkpoints:
        try:
            model = FigureModel.find(path, fold=options.fold, read_data=read_data)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        same = found.setdefault((model.variant, model.fold), model)
        if same is not model:
            problems.append(f"{path} and {same.name} are both {model.title}: took the latter")
    models = list(found.values())
    for model in models:
        if model.recipe.data is not models[0].recipe.data:
            problems.append(f"{model.name} has a different data set than {models[0].name}: left out")
    return [model for model in models if model.recipe.data is models[0].recipe.data]


def _results(folder: Path | None, problems: list[str]) -> Results:
    if folder is None:  # a figure that needs results reports it
        return results_of({})
    try:
        results = load_results(folder)
    except ValueError as error:
        problems.append(str(error))
        return results_of({})
    problems += results.left_out
    if not len(results):
        problems.append(f"{folder} has no result that can be read: evaluate first")
    return results
