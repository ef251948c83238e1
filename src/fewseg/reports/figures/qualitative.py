"""Qualitative grids: SCL's Fig. 6, SRPNet's Fig. 5 and 6, SD-AANet's Fig. 8."""

from __future__ import annotations

from collections.abc import Mapping

from fewseg.metrics import count
from fewseg.reports.figures.context import PICTURES, Record
from fewseg.reports.figures.drawing import LEGEND, Noted, grid
from fewseg.reports.figures.model import FigureModel, question_of
from fewseg.reports.figures.runner import CheckpointFigure
from fewseg.reports.marked_pictures import Bools, Picture, judged, spotlight


class Qualitative(CheckpointFigure[None]):
    """A grid for each fold: support, query, truth, and a column for each checkpoint."""

    name = "qualitative"
    shows = "support, query, truth and predictions (SCL 6, SRPNet 5-6, SD-AANet 8)"
    needs = "any checkpoint"

    def measure(self, model: FigureModel) -> None:
        """Loads it."""
        _ = model.store

    def draw_fold(self, fold: int, found: Mapping[FigureModel, None]) -> None:
        """Draws the grid; class and query of an episode do not depend on the number of shots."""
        first, options = next(iter(found)), self.options
        chosen = first.examples(self.name)
        columns = [(m, k) for m in found for k in options.shots if _tested_with(m, k)]
        self.context.problems += [
            f"{self.name}, fold {fold}: no checkpoint's recipe is tested with {k} shots"
            for k in options.shots
            if k not in {shots for _, shots in columns}
        ]
        specs = {}
        for k in {k for _, k in columns}:
            every = {(seed, spec.index): spec for seed, spec in first.episodes(k)}
            specs[k] = [every[seed, spec.index] for seed, spec in chosen]
        predicted = [dict(m.predictions(specs[k], k)) for m, k in columns]
        rows, records = [], []
        for i, (seed, spec) in enumerate(chosen):
            query, truth = first.picture(spec.query, spec.class_id)
            shown = (first.marked(spec.supports[0], spec.class_id), query, spotlight(query, truth))
            row = [(picture, "") for picture in shown]
            record: Record = {"seed": seed, "episode": spec.index, "class": spec.class_id}
            record |= {"support": spec.supports[0], "query": spec.query}
            for (model, k), masks in zip(columns, predicted, strict=True):
                found_here = masks[question_of(specs[k][i])]
                noted, record[f"iou {_label(model, k)}"] = judged_with_iou(query, found_here, truth)
                row.append(noted)
            rows.append(row)
            records.append(record)
        headings = ["support", "query", "truth", *(_label(*column) for column in columns)]
        names = [first.class_name(spec.class_id) for _, spec in chosen]
        shots = "1-shot" if options.shots == (1,) else "the first support is shown"
        title = f"{self.context.dataset} fold {fold}, {shots}, drawn by seed {options.seed}; {LEGEND}"
        figure = grid(rows, headings, names, title)
        self.context.save(figure, f"{self.name}-fold{fold}", records, folder=PICTURES)


def judged_with_iou(picture: Picture, predicted: Bools, truth: Picture) -> tuple[Noted, float]:
    """A picture on which a prediction is marked, noted with its IoU, and that."""
    counts = count(predicted, truth)
    iou = float(counts.fg_inter) / max(int(counts.fg_union), 1)
    return (judged(picture, predicted, truth), f"IoU {100 * iou:.0f} %"), iou


def _label(model: FigureModel, shots: int) -> str:
    """The method, and how many shots where it is not one."""
    return model.label if shots == 1 else f"{model.label}, {shots}-shot"


def _tested_with(model: FigureModel, shots: int) -> bool:
    """Whether a column exists: for one shot always, for more where the recipe is tested with so many."""
    return shots == 1 or any((e.shots, e.ways) == (shots, 1) for e in model.recipe.evaluations)
