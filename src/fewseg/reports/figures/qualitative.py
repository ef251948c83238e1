"""Qualitative grids: SCL's Fig. 6, SRPNet's Fig. 5 and 6, SD-AANet's Fig. 8."""

from __future__ import annotations

from collections.abc import Sequence

from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import count
from fewseg.reports.figures.context import FigureContext, Record
from fewseg.reports.figures.drawing import LEGEND, Noted, grid
from fewseg.reports.figures.model import (
    FigureModel,
    SeededEpisode,
    Support,
    example_episodes,
    question_of,
)
from fewseg.reports.marked_pictures import judged, spotlight

NAME = "qualitative"


def _label(model: FigureModel, shots: int) -> str:
    """The method, and how many shots where it is not one."""
    return model.label if shots == 1 else f"{model.label}, {shots}-shot"


def make(context: FigureContext) -> None:
    """Makes a grid for each fold: support, query, truth, and a column for each checkpoint."""
    for fold, models in context.models_by_fold(NAME, lambda _: True, "checkpoint"):
        loaded = []
        for model in models:
            with context.attempt(f"{NAME}, {model.title}"):
                model.load()
                loaded.append(model)
        if loaded:
            with context.attempt(f"{NAME}, fold {fold}"):
                _grid_of_fold(context, fold, loaded)


def _tested_with(model: FigureModel, shots: int) -> bool:
    """Whether a column exists: for one shot always, for more where the recipe is tested with so many."""
    return shots == 1 or any((e.shots, e.ways) == (shots, 1) for e in model.recipe.evaluations)


def _with_shots(
    model: FigureModel, chosen: Sequence[SeededEpisode], shots: int, per_seed: int | None
) -> list[EpisodeSpec]:
    """The same episodes with more supports: class and query do not depend on the number of shots."""
    every = {(seed, spec.index): spec for seed, spec in model.episodes(shots, per_seed)}
    return [every[seed, spec.index] for seed, spec in chosen]


def _grid_of_fold(context: FigureContext, fold: int, models: Sequence[FigureModel]) -> None:
    first, options = models[0], context.options
    chosen = example_episodes(first.episodes(1, options.episodes), options.examples, NAME, options.seed, fold)
    columns = [(m, k) for m in models for k in options.shots if _tested_with(m, k)]
    for k in options.shots:
        if k not in {shots for _, shots in columns}:
            context.problems.append(f"{NAME}, fold {fold}: no checkpoint's recipe is tested with {k} shots")
    specs = {k: _with_shots(first, chosen, k, options.episodes) for k in {k for _, k in columns}}
    predicted = [dict(m.predictions(specs[k], k, progress=context.progress)) for m, k in columns]
    rows: list[list[Noted]] = []
    records: list[Record] = []
    for i, (seed, spec) in enumerate(chosen):
        query, truth = first.picture(spec.query, spec.class_id)
        support = Support.first_of(spec)
        shown = (first.marked(support.image, support.class_id), query, spotlight(query, truth))
        row = [(picture, "") for picture in shown]
        record: Record = {"seed": seed, "episode": spec.index, "class": spec.class_id}
        record |= {"support": support.image, "query": spec.query}
        for (model, k), masks in zip(columns, predicted, strict=True):
            mask = masks[question_of(specs[k][i])]
            counts = count(mask, truth)
            iou = float(counts.fg_inter) / max(int(counts.fg_union), 1)
            row.append((judged(query, mask, truth), f"IoU {100 * iou:.0f} %"))
            record[f"iou {_label(model, k)}"] = iou
        rows.append(row)
        records.append(record)
    headings = ["support", "query", "truth", *(_label(*column) for column in columns)]
    names = [first.data.split.class_names[spec.class_id] for _, spec in chosen]
    shots = "1-shot" if options.shots == (1,) else "the first support is shown"
    title = f"{first.data.dataset} fold {fold}, {shots}, drawn by seed {options.seed}; {LEGEND}"
    context.save(grid(rows, headings, names, title), f"{NAME}-fold{fold}", records, photographs=True)
