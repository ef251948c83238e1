"""SRPNet's Fig. 7 and SD-AANet's Fig. 13: failures by rule, how often each occurs, and a few of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec
from fewseg.engine.executors import Question
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import Cell, Row
from fewseg.reports.figures.failures import RULES, Bools, Ints, Outcomes, failures, outcome, outcomes_of
from fewseg.reports.figures.intervals import rate_estimate
from fewseg.reports.figures.photographs import LEGEND, Panel, grid, read, shown_support
from fewseg.reports.figures.predictions import Mask, predictions, question_of
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import new_figure
from fewseg.reports.figures.subjects import Opened, Shot, Subject
from fewseg.reports.marked_pictures import judged, spotlight
from fewseg.reports.numbers import Estimate

NAME = "failures"
_PER_RULE = 2
_KINDS = {name: name for name in ("failed", *RULES, "none of these")}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a method did in every episode of a fold.

    Attributes:
        episodes: (seed, episode).
        outcomes: of each.
        packed: mask of each different question, eight pixels a byte, and its shape.
    """

    episodes: list[tuple[int, EpisodeSpec]]
    outcomes: Outcomes
    packed: Mapping[Question, tuple[bytes, tuple[int, int]]]

    def mask(self, spec: EpisodeSpec) -> Mask:
        """What the method marks on an episode's query."""
        packed, shape = self.packed[question_of(spec)]
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1])
        return np.asarray(bits.reshape(shape).astype(np.bool_))


def make(study: Study) -> None:
    """Makes a plot of how often each rule matches, and pictures of a few episodes of each."""
    rows: list[Row] = []
    groups: dict[str, dict[str, Estimate]] = {}
    datasets: set[str] = set()
    for fold, subjects in study.wanted(NAME, fits, "checkpoint"):
        for subject in subjects:
            with study.attempt(f"{NAME}, {subject.label} fold {fold}"):
                opened = study.open(subject)
                told = told_by(opened, study.episodes, study.progress)
                found = failures(told.outcomes)
                datasets.add(opened.data.dataset)
                rows += rate_rows(found, **subject.said)
                groups[f"{subject.label}\nfold {fold}"] = _rates(found)
                _pictures(study, opened, told, found)
    if groups:
        title = f"{', '.join(sorted(datasets))}: failures by rule, 1-shot episodes, from the predictions"
        study.save(draw(groups, title), "failure-rates", rows)
    _from_counts(study)


def told_by(opened: Opened, per_seed: int | None, progress: bool) -> Told:
    """Evaluates all 1-shot episodes of a fold, each different question once."""
    episodes = opened.episodes(1, per_seed)
    source, answers, packed = opened.data.source, {}, {}
    for question, marked in predictions(opened, [spec for _, spec in episodes], 1, progress=progress):
        labels = source.read_labels(question.target).numpy().astype(np.int64)
        answers[question] = outcome(marked, labels, question.ways[0].class_id)
        packed[question] = (np.packbits(marked).tobytes(), (int(marked.shape[0]), int(marked.shape[1])))
    columns = np.array([answers[question_of(spec)] for _, spec in episodes], dtype=np.int64).T
    names = ("hit", "wrong", "lost", "clear", "other")
    outcomes = Outcomes(**dict(zip(names, columns, strict=True)))
    return Told(episodes=episodes, outcomes=outcomes, packed=packed)


def _rates(found: Mapping[str, Bools]) -> dict[str, Estimate]:
    return {name: rate_estimate(int(match.sum()), len(match)) for name, match in found.items()}


def rate_rows(found: Mapping[str, Bools], **said: Cell) -> list[Row]:
    """How often each rule matches, as rows of a table."""
    return [
        {
            **said,
            "rule": name,
            "episodes": len(found[name]),
            "matching": int(found[name].sum()),
            "rate": rate.value,
            "low": rate.low,
            "high": rate.high,
        }
        for name, rate in _rates(found).items()
    ]


def _from_counts(study: Study) -> None:
    """The rules that counts can tell, on all 1-shot results."""
    rows: list[Row] = []
    for result, table in study.results:
        if (result.ways, result.shots, result.on) != (1, 1, "query"):
            continue
        found = failures(outcomes_of(table))
        rows += rate_rows(
            found,
            dataset=result.dataset,
            protocol=result.protocol_digest,
            recipe=result.recipe,
            fusion=result.fusion,
            fold=result.fold,
            training_seed=result.train_seed or 0,
        )
    if rows:
        study.write("failure-rates-from-counts", rows)
    else:
        study.problems.append(f"{NAME}: no 1-shot result given, so nothing is counted from results")


def _pictures(study: Study, opened: Opened, told: Told, found: Mapping[str, Bools]) -> None:
    subject = opened.subject
    panels: list[list[Panel]] = []
    names: list[str] = []
    data: list[Row] = []
    shown: set[str] = set()
    for rule in RULES:
        draws = Draws("figure", NAME, study.seed, subject.fold, rule)
        for place in examples(draws, np.flatnonzero(found[rule]), told.episodes, shown):
            seed, spec = told.episodes[place]
            shot = Shot(spec.class_id, spec.supports[0])
            query, truth = read(opened, spec.query, spec.class_id)
            iou = float(told.outcomes.iou[place])
            panels.append(
                [
                    Panel(picture=shown_support(opened, shot)),
                    Panel(picture=spotlight(query, truth)),
                    Panel(picture=judged(query, told.mask(spec), truth), note=f"IoU {100 * iou:.0f} %"),
                ]
            )
            names.append(f"{rule}:\n{opened.data.split.class_names[spec.class_id]}")
            data.append(
                {
                    "rule": rule,
                    "seed": seed,
                    "episode": spec.index,
                    "class": spec.class_id,
                    "support": spec.supports[0],
                    "query": spec.query,
                    "iou": iou,
                }
            )
    if panels:
        title = f"{subject.label}, {opened.data.dataset} fold {subject.fold}\n{LEGEND}"
        figure = grid(panels, ["support", "truth", "prediction"], names, title)
        study.save(figure, f"{NAME}-{subject.stem}-fold{subject.fold}", data, photographs=True)


def examples(
    draws: Draws, matching: Ints, episodes: Sequence[tuple[int, EpisodeSpec]], shown: set[str]
) -> list[int]:
    """Draws a few of the matching episodes, of queries that were not ``shown`` yet; adds theirs to it."""
    chosen: list[int] = []
    for place in draws.sample(matching.tolist(), len(matching)):
        query = episodes[place][1].query
        if len(chosen) < _PER_RULE and query not in shown:
            chosen.append(place)
            shown.add(query)
    return chosen


def fits(subject: Subject) -> bool:
    """Every method fails."""
    del subject
    return True


def draw(groups: Mapping[str, Mapping[str, Estimate]], title: str) -> Figure:
    """Rates of each rule with Wilson's 95 % intervals: a panel a fold, in it a group of bars a method.

    Args:
        groups: method and fold, on a line each, to the rates by rule.
        title: above all.
    """
    by_fold: dict[str, dict[str, Mapping[str, Estimate]]] = {}
    for name, rates in groups.items():
        method, fold = name.split("\n")
        by_fold.setdefault(fold, {})[method] = rates
    most = max(map(len, by_fold.values()))
    figure = new_figure(max(3.0 + 1.2 * most, 6.5), 2.3 * len(by_fold) + 1.2)
    panels = figure.subplots(len(by_fold), 1, squeeze=False, sharey=True)[:, 0]
    for axes, (fold, of_fold) in zip(panels, sorted(by_fold.items()), strict=True):
        grouped_bars(axes, of_fold, _KINDS, unit="% of the episodes")
        axes.set_title(fold, fontsize=8)
        axes.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=9)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6 if most > 4 else 3, fontsize=8)
    return figure
