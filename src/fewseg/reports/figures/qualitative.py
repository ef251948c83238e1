"""Predictions side by side, of queries and of the supports themselves.

Source: SCL's Fig. 6, SRPNet's Fig. 5 and 6, SD-AANet's Fig. 8; and SCL's Fig. 1, SRPNet's Fig. 1 and 6, which
show how little of its own mask the guide of a support may restore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import EpisodeCounts, bootstrap_score, count, mean_score
from fewseg.reports.figures.base import CheckpointFigure, GridRow, Record, with_prefix
from fewseg.reports.figures.drawing import LEGEND, Noted, bar_chart
from fewseg.reports.figures.model import FigureModel, episode_record, label_of, question_of
from fewseg.reports.marked_pictures import Bools, Picture, judged, spotlight
from fewseg.reports.numbers import Estimate
from fewseg.reports.size_scores import size_gain


class Qualitative(CheckpointFigure[None]):
    """A grid for each fold: support, query, truth, and a column for each checkpoint."""

    name = "qualitative"
    shows = "support, query, truth and predictions (SCL 6, SRPNet 5-6, SD-AANet 8)"
    needs = "any checkpoint"

    def measure(self, model: FigureModel) -> None:
        """Loads the features."""
        _ = model.store

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, None]) -> None:
        """Draws the grid; class and query of an episode do not depend on the number of shots."""
        first, options = next(iter(measured)), self.options
        chosen = first.examples(self.name)
        columns = [(m, k) for m in measured for k in options.shots if _tested_with(m, k)]
        self.context.problems += [
            f"{self.name}, fold {fold}: no checkpoint's recipe is tested with {k} shots"
            for k in options.shots
            if k not in {shots for _, shots in columns}
        ]
        specs = {}
        for k in {k for _, k in columns}:
            by_seed = {(seed, spec.index): spec for seed, spec in first.episodes(k)}
            specs[k] = [by_seed[seed, spec.index] for seed, spec in chosen]
        predicted = [dict(m.predictions(specs[k], k)) for m, k in columns]
        rows: list[GridRow] = []
        for i, (seed, spec) in enumerate(chosen):
            query, truth = first.picture(spec.query, spec.class_id)
            shown = (first.marked(spec.supports[0], spec.class_id), query, spotlight(query, truth))
            row = [(picture, "") for picture in shown]
            record: Record = {**episode_record(seed, spec)}
            for (model, k), masks in zip(columns, predicted, strict=True):
                mask = masks[question_of(specs[k][i])]
                noted, record[f"iou {_label(model, k)}"] = judged_with_iou(query, mask, truth)
                row.append(noted)
            rows.append((first.class_name(spec.class_id), row, record))
        headings = ["support", "query", "truth", *(_label(*column) for column in columns)]
        shots = "1-shot" if options.shots == (1,) else "the first support is shown"
        title = f"{self.context.dataset} fold {fold}, {shots}, drawn by seed {options.seed}; {LEGEND}"
        self.save_grid(f"{self.name}-fold{fold}", rows, headings, title)


RestoredScore = tuple[EpisodeCounts, Estimate]
"""Counts of each distinct support as its own query, and their mIoU."""
_RESTORE_CLAIMS = (
    ("self-regularised prototypes restore their support better", "srpnet_f", "srpnet"),
    ("SCL segments its support better", "pfenet", "scl_pfenet"),
    ("SCL segments its support better", "canet", "scl_canet"),
)


class Restored(CheckpointFigure[RestoredScore]):
    """A grid for each fold: each support segmented by its own guide, with the query below; and mIoUs."""

    name = "restored-supports"
    shows = "predictions on the support itself, and on its query (SCL 1, SRPNet 1 and 6)"
    needs = "any checkpoint; two that differ in a part, for what it adds"

    def measure(self, model: FigureModel) -> RestoredScore:
        """Evaluates the guide of each distinct support on the support itself."""
        specs = [EpisodeSpec(i, s.class_id, s.image, (s.image,)) for i, s in enumerate(model.supports)]
        masks = dict(model.predictions(specs))
        per_support = [
            EpisodeCounts.of(
                count(masks[question_of(spec)], model.picture(spec.query, spec.class_id)[1]),
                seed=0,
                episode=spec.index,
                class_id=spec.class_id,
                query=spec.query,
            )
            for spec in specs
        ]
        table = EpisodeCounts.join(per_support)
        classes = sorted(set(table.class_id.tolist()))
        ends = bootstrap_score(table, classes, "miou", over="queries", seed=self.options.seed)
        score = Estimate(value=mean_score(table, classes, "miou"), low=ends.low, high=ends.high)
        self.records.append({**model.columns, "supports": len(table), **with_prefix("miou", score)})
        return table, score

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, RestoredScore]) -> None:
        """Draws the episodes of the qualitative figure; notes what parts add to the mIoU."""
        first = next(iter(measured))
        chosen = first.examples(Qualitative.name)
        specs = [spec for _, spec in chosen]
        both = [(replace(spec, query=spec.supports[0]), spec) for spec in specs]
        predicted = {m: dict(m.predictions([shown for pair in both for shown in pair])) for m in measured}
        rows: list[GridRow] = []
        for (seed, spec), pair in zip(chosen, both, strict=True):
            for what, shown in zip(("support", "query"), pair, strict=True):
                picture, truth = first.picture(shown.query, shown.class_id)
                row = [(spotlight(picture, truth), "")]
                record: Record = {**episode_record(seed, spec), "on": what}
                for model, masks in predicted.items():
                    noted, iou = judged_with_iou(picture, masks[question_of(shown)], truth)
                    row.append(noted)
                    record[f"iou {model.label}"] = iou
                rows.append((f"{first.class_name(spec.class_id)}:\n{what}", row, record))
        title = (
            f"{self.context.dataset} fold {fold}, 1-shot: each support's guide on the support itself and on"
        )
        columns = ["truth", *(model.label for model in measured)]
        self.save_grid(f"{self.name}-fold{fold}", rows, columns, f"{title} its query\n{LEGEND}")
        tables = {model.variant: table for model, (table, _) in measured.items()}
        novel, seed = first.data.split.novel, self.options.seed
        for claim, less, more in _RESTORE_CLAIMS:
            if less in tables and more in tables:
                gain = size_gain(tables[less], tables[more], novel, 0, None, seed=seed)
                quantity = f"mIoU on supports of {label_of(more)} less that of {label_of(less)}"
                if gain is not None:
                    self.claim(fold, claim, quantity, gain)

    def draw_all(self, measured: Mapping[FigureModel, RestoredScore]) -> None:
        """Draws the mIoU of each method on the supports themselves, by fold."""
        groups: dict[str, dict[str, Estimate]] = {}
        for model, (_, score) in measured.items():
            groups.setdefault(f"fold {model.fold}", {})[model.variant] = score
        kinds = {model.variant: model.label for model in sorted(measured, key=lambda model: model.place)}
        width = max(5.0, 2.6 + 0.3 * (1 + len(kinds)) * len(groups))
        title = f"{self.context.dataset}: mIoU on the supports themselves"
        figure = bar_chart((width, 3.4), {title: groups}, kinds, limits=(0, 100))
        self.context.save(figure, f"{self.name}-miou", self.records)


def judged_with_iou(picture: Picture, predicted: Bools, truth: Picture) -> tuple[Noted, float]:
    """A picture with a marked prediction and its IoU as a note, and the IoU."""
    counts = count(predicted, truth)
    iou = float(counts.fg_inter) / max(int(counts.fg_union), 1)
    return (judged(picture, predicted, truth), f"IoU {100 * iou:.0f} %"), iou


def _label(model: FigureModel, shots: int) -> str:
    """The method, and the number of shots unless it is one."""
    return model.label if shots == 1 else f"{model.label}, {shots}-shot"


def _tested_with(model: FigureModel, shots: int) -> bool:
    """Whether a column exists: always for one shot, else if the recipe is tested with so many."""
    return shots == 1 or any((e.shots, e.ways) == (shots, 1) for e in model.recipe.evaluations)
