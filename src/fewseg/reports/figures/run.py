"""``fewseg report figures``: every figure of the papers that the given checkpoints and results allow."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from fewseg.data.folds import FoldData
from fewseg.recipes.recipe import Recipe
from fewseg.reports.figures.base import CLAIMS, FigureContext, PaperFigure, write_records
from fewseg.reports.figures.failures import Failures
from fewseg.reports.figures.maps import Attention, Similarity
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.figures.qualitative import Qualitative, Restored
from fewseg.reports.figures.separation import MetricCells, Prototypes
from fewseg.reports.figures.shot_weights import ShotWeightFigure
from fewseg.reports.figures.sizes import Sizes
from fewseg.reports.figures.support_masks import SupportMasks
from fewseg.reports.frame import Results, load_results, results_of
from fewseg.reports.options import FiguresOptions

FIGURES: Mapping[str, type[PaperFigure]] = {
    figure.name: figure
    for figure in (
        Qualitative,
        Restored,
        SupportMasks,
        MetricCells,
        Prototypes,
        Sizes,
        Attention,
        Similarity,
        Failures,
        ShotWeightFigure,
    )
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
            FIGURES[name](context).make()
    if context.claims:
        path = options.out / CLAIMS
        context.files.append(write_records(path, [claim.record for claim in context.claims]))
    return context


def _models(options: FiguresOptions, problems: list[str]) -> list[FigureModel]:
    """The checkpoints of the first one's data set, one for each recipe and fold."""
    folds: dict[tuple[object, ...], FoldData] = {}

    def read_data(recipe: Recipe, fold: int) -> FoldData:
        key = recipe.data, recipe.train and recipe.train.train_list, fold
        if key not in folds:
            folds[key] = recipe.read(fold, options.root)
        return folds[key]

    by_key: dict[tuple[str, int], FigureModel] = {}
    for path in options.checkpoints:
        try:
            model = FigureModel.find(path, options, read_data)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        first = by_key.setdefault((model.variant, model.fold), model)
        if first is not model:
            problems.append(f"{path} and {first.name} are both {model.title}: took the latter")
    models = list(by_key.values())
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
