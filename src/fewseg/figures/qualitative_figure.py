"""Qualitative grids: SCL's Fig. 6, SRPNet's Fig. 5 and 6, SD-AANet's Fig. 8."""

from __future__ import annotations

from collections.abc import Sequence

from fewseg.data.draws import Draws
from fewseg.data.episode_spec import EpisodeSpec
from fewseg.figures.data_files import Cell, Row
from fewseg.figures.photographs import LEGEND, Panel, grid, read, shown_support
from fewseg.figures.predictions import predictions, question_of
from fewseg.figures.study import Study
from fewseg.figures.subjects import Opened, Shot, Subject
from fewseg.metrics import count
from fewseg.reporting.marked_pictures import judged, spotlight

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


def _of_fold(study: Study, fold: int, opened: Sequence[Opened]) -> None:
    first = opened[0]
    chosen = drawn_episodes(first.episodes(1, study.episodes), study.examples, NAME, study.seed, fold)
    specs = [spec for _, spec in chosen]
    answers = [dict(predictions(one, specs, 1, progress=study.progress)) for one in opened]
    rows: list[list[Panel]] = []
    names: list[str] = []
    data: list[Row] = []
    for seed, spec in chosen:
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
        for one, answer in zip(opened, answers, strict=True):
            marked = answer[question_of(spec)]
            counts = count(marked, truth)
            iou = float(counts.fg_inter) / max(int(counts.fg_union), 1)
            panels.append(Panel(picture=judged(query, marked, truth), note=f"IoU {100 * iou:.0f} %"))
            row[f"iou {one.subject.label}"] = iou
        rows.append(panels)
        data.append(row)
        names.append(first.data.split.class_names[spec.class_id])
    columns = ["support", "query", "truth", *(one.subject.label for one in opened)]
    title = f"{first.data.dataset} fold {fold}, 1-shot, drawn by seed {study.seed}; {LEGEND}"
    figure = grid(rows, columns, names, title)
    study.save(figure, f"{NAME}-fold{fold}", data, photographs=True)
