"""Qualitative grids: SCL's Fig. 6, SRPNet's Fig. 5 and 6, SD-AANet's Fig. 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import count
from fewseg.reports.figures.data_files import Cell, Row
from fewseg.reports.figures.photographs import LEGEND, Panel, grid, read, shown_support
from fewseg.reports.figures.predictions import predictions, question_of
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.subjects import Opened, Shot, Subject
from fewseg.reports.marked_pictures import judged, spotlight

NAME = "qualitative"


def fits(subject: Subject) -> bool:
    """Every method predicts."""
    del subject
    return True


def drawn_episodes(
    episodes: Sequence[tuple[int, EpisodeSpec]], count: int, *key: str | int
) -> list[tuple[int, EpisodeSpec]]:
    """Draws episodes by number, none by its look; a class comes again only after all others came.

    Args:
        episodes: (seed, episode).
        count: how many.
        *key: what the draw depends on.
    """
    order = Draws("figure", *key).sample(episodes, len(episodes))
    queues: dict[int, list[tuple[int, EpisodeSpec]]] = {}
    for one in order:
        queues.setdefault(one[1].class_id, []).append(one)
    chosen: list[tuple[int, EpisodeSpec]] = []
    while len(chosen) < min(count, len(episodes)):
        for class_id in sorted(queues):
            if queues[class_id]:
                chosen.append(queues[class_id].pop(0))
    return chosen[:count]


def make(study: Study) -> None:
    """Makes a grid a fold: support, query, truth, and a column for each checkpoint."""
    for fold, subjects in study.wanted(NAME, fits, "checkpoint"):
        with study.attempt(f"{NAME}, fold {fold}"):
            opened = []
            for subject in subjects:
                with study.attempt(f"{NAME}, {subject.label} fold {fold}"):
                    opened.append(study.open(subject))
            if opened:
                _of_fold(study, fold, opened)


@dataclass(frozen=True)
class Column:
    """The predictions of a method with so many supports."""

    opened: Opened
    shots: int

    @property
    def label(self) -> str:
        """The method, and how many shots where it is not one."""
        label = self.opened.subject.label
        return label if self.shots == 1 else f"{label}, {self.shots}-shot"


def tested_with(subject: Subject, shots: int) -> bool:
    """Whether a column can be made: with one shot always, with more where the recipe joins so many."""
    return shots == 1 or any((e.shots, e.ways) == (shots, 1) for e in subject.recipe.evaluations)


def _with_shots(
    opened: Opened, chosen: Sequence[tuple[int, EpisodeSpec]], shots: int, per_seed: int | None
) -> list[EpisodeSpec]:
    """The same episodes with more supports: class and query do not depend on the number of shots."""
    every = {(seed, spec.index): spec for seed, spec in opened.episodes(shots, per_seed)}
    return [every[seed, spec.index] for seed, spec in chosen]


def _of_fold(study: Study, fold: int, opened: Sequence[Opened]) -> None:
    first = opened[0]
    chosen = drawn_episodes(first.episodes(1, study.episodes), study.examples, NAME, study.seed, fold)
    columns = [Column(one, k) for one in opened for k in study.shots if tested_with(one.subject, k)]
    for k in study.shots:
        if k not in {column.shots for column in columns}:
            study.problems.append(f"{NAME}, fold {fold}: no checkpoint's recipe is tested with {k} shots")
    specs = {k: _with_shots(first, chosen, k, study.episodes) for k in {c.shots for c in columns}}
    answers = [dict(predictions(c.opened, specs[c.shots], c.shots, progress=study.progress)) for c in columns]
    rows: list[list[Panel]] = []
    names: list[str] = []
    data: list[Row] = []
    for i, (seed, spec) in enumerate(chosen):
        query, truth = read(first, spec.query, spec.class_id)
        panels = [
            Panel(picture=shown_support(first, Shot(spec.class_id, spec.supports[0]))),
            Panel(picture=query),
            Panel(picture=spotlight(query, truth)),
        ]
        row: dict[str, Cell] = {
            "seed": seed,
            "episode": spec.index,
            "class": spec.class_id,
            "support": spec.supports[0],
            "query": spec.query,
        }
        for column, answer in zip(columns, answers, strict=True):
            marked = answer[question_of(specs[column.shots][i])]
            counts = count(marked, truth)
            iou = float(counts.fg_inter) / max(int(counts.fg_union), 1)
            panels.append(Panel(picture=judged(query, marked, truth), note=f"IoU {100 * iou:.0f} %"))
            row[f"iou {column.label}"] = iou
        rows.append(panels)
        data.append(row)
        names.append(first.data.split.class_names[spec.class_id])
    headings = ["support", "query", "truth", *(column.label for column in columns)]
    shots = "1-shot" if study.shots == (1,) else "the first support is shown"
    title = f"{first.data.dataset} fold {fold}, {shots}, drawn by seed {study.seed}; {LEGEND}"
    figure = grid(rows, headings, names, title)
    study.save(figure, f"{NAME}-fold{fold}", data, photographs=True)
