"""Learning curves: the losses of training runs, a row of small charts a recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fewseg.reports.html import Cell, Markup, element, table
from fewseg.reports.site.download import csv_link
from fewseg.reports.site.panels import BOTTOM, LEFT, RIGHT, TOP, Curve, legend, panel
from fewseg.reports.site.scale import scale_over
from fewseg.reports.site.training_runs import TrainingRun

_ABOUT_RUNS = "Training runs, and the results that were measured with their checkpoints."
_TOTAL, _NOT_DRAWN = "total", ("lr",)


def learning_section(runs: Sequence[TrainingRun]) -> list[Cell]:
    """Charts, a table of the runs, and the data; nothing without runs."""
    if not runs:
        return []
    by_recipe: dict[str, list[TrainingRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda r: (r.recipe, -1 if r.fold is None else r.fold, str(r.seed), r.name)):
        by_recipe[run.recipe].append(run)
    note = (
        "Losses as they were written while training, not smoothed: means over one batch each, of training "
        "classes, so that they say whether a training went well and nothing of unseen classes."
    )
    parts: list[Cell] = [
        element("h2", "Learning curves", id="learning-title"),
        element("p", note, class_="soft"),
        _table([run for of_recipe in by_recipe.values() for run in of_recipe]),
    ]
    for recipe, of_recipe in by_recipe.items():
        parts += _charts(recipe, of_recipe)
    return [element("section", *parts, id="learning", aria_labelledby="learning-title")]


def _table(runs: Sequence[TrainingRun]) -> Markup:
    rows = [[run.name, run.recipe, _tested(run), str(run.steps[-1]), _last(run)] for run in runs]
    headings = ["run", "recipe", "results here", "last step", "last total loss"]
    return table(headings, rows, _ABOUT_RUNS, text_columns=3)


def _last(run: TrainingRun) -> str:
    last = run.losses.get(_TOTAL, (None,))[-1]
    return "-" if last is None else f"{last:.3f}"


def _tested(run: TrainingRun) -> str:
    """How many results there are of a run, and how that is known."""
    parts = []
    if run.results:
        parts.append(f"{len(run.results)} of this checkpoint")
    if run.retrained:
        what = "another checkpoint" if run.digest else "a checkpoint that is not here"
        parts.append(f"{len(run.retrained)} of this recipe, fold and seed, but of {what}")
    return "; ".join(parts) or "none"


def drawn_names(runs: Sequence[TrainingRun]) -> list[str]:
    """What is drawn: the total first; of a single term, which is the total, only that."""
    names = list(dict.fromkeys(name for run in runs for name in run.losses if name not in _NOT_DRAWN))
    terms = [
        n for n in names if n != _TOTAL and any(run.losses.get(n) != run.losses.get(_TOTAL) for run in runs)
    ]
    return ([_TOTAL] if _TOTAL in names else []) + terms


def _charts(recipe: str, runs: Sequence[TrainingRun]) -> list[Cell]:
    x = scale_over([0, *(run.steps[-1] for run in runs)], LEFT, RIGHT, ticks=5)
    panels = []
    for name in drawn_names(runs):
        curves = [
            Curve(series=i, name=run.label, points=tuple(zip(run.steps, run.losses[name], strict=True)))
            for i, run in enumerate(runs)
            if name in run.losses
        ]
        values = [v for curve in curves for _, v in curve.points if v is not None]
        y = scale_over([0.0, *values], BOTTOM, TOP, ticks=5)
        unit = "gradient norm" if name == "gradient_norm" else "loss"
        panels.append(panel(f"{recipe}: {name.replace('_', ' ')}", curves, x, y, ("step", unit)))
    columns = list(dict.fromkeys(name for run in runs for name in run.losses))
    data = [
        [
            run.name,
            run.fold,
            run.seed,
            step,
            *(run.losses[n][i] if n in run.losses else None for n in columns),
        ]
        for run in runs
        for i, step in enumerate(run.steps)
    ]
    return [
        element("h3", recipe),
        legend([run.label for run in runs]),
        element("div", *panels, class_="panels"),
        csv_link(f"{recipe}-losses", ["run", "fold", "seed", "step", *columns], data),
    ]
