"""Example episodes as pictures: support, query, truth and what each method says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from fewseg.data.episodes import EpisodeSampler, EpisodeSpec
from fewseg.data.folds import FoldData
from fewseg.data.source import Source
from fewseg.data.transforms import binary_mask
from fewseg.demo.options import DemoOptions
from fewseg.demo.summary import Gain, headings, label, rows, shots_of
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.results import RunResult, as_json
from fewseg.methods.fusion import Fusion
from fewseg.metrics import count
from fewseg.ops.files import atomic_write_text
from fewseg.reports.html import Cell, Markup, bar, element, figure, joined, page, table
from fewseg.reports.marked_pictures import MISSED, WRONG, Picture, judged, picture_of, spotlight
from fewseg.reports.numbers import gain_with_interval, percent


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One column of the pictures.

    Attributes:
        label: its heading.
        evaluator: of the method.
        shots: how many of the episode's supports it is given.
        fusion: how they become one answer.
    """

    label: str
    evaluator: Evaluator
    shots: int
    fusion: Fusion


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A marked query.

    Attributes:
        label: of its predictor.
        picture: the query, pale outside the marks, errors coloured.
        iou: of the mask, in [0, 1].
    """

    label: str
    picture: Picture
    iou: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """One episode in pictures.

    Attributes:
        class_name: what is to be found.
        supports: annotated pictures of it; the first is the one of 1-shot.
        query: the picture to be marked.
        truth: the query, pale outside the object.
        predictions: one for each predictor.
    """

    class_name: str
    supports: tuple[Picture, ...]
    query: Picture
    truth: Picture
    predictions: tuple[Prediction, ...]


def choose_episodes(sampler: EpisodeSampler, per_class: int) -> list[EpisodeSpec]:
    """Returns the first episodes of each class of the first test seed: drawn by number, not picked."""
    chosen: dict[int, list[EpisodeSpec]] = {c: [] for c in sampler.classes}
    for spec in sampler.episodes(sampler.protocol.seeds[0]):
        if len(chosen[spec.class_id]) < per_class:
            chosen[spec.class_id].append(spec)
    return [spec for specs in chosen.values() for spec in specs]


def show(
    spec: EpisodeSpec, source: Source, class_names: Mapping[int, str], predictors: Sequence[Predictor]
) -> Example:
    """Marks one query by every predictor.

    Args:
        spec: the episode, with at least as many supports as any predictor takes.
        source: its pictures.
        class_names: class id -> name.
        predictors: the columns.
    """
    query, truth = _read(source, spec.query, spec.class_id)
    predictions = []
    for p in predictors:
        logits = p.evaluator.plain(replace(spec, supports=spec.supports[: p.shots]), p.fusion)
        predicted = (logits[1] > logits[0]).numpy()
        counts = count(predicted, truth)
        iou = float(counts.fg_inter / max(int(counts.fg_union), 1))
        predictions.append(Prediction(label=p.label, picture=judged(query, predicted, truth), iou=iou))
    return Example(
        class_name=class_names[spec.class_id],
        supports=tuple(spotlight(*_read(source, id, spec.class_id)) for id in spec.supports),
        query=query,
        truth=spotlight(query, truth),
        predictions=tuple(predictions),
    )


def _read(source: Source, id: str, class_id: int) -> tuple[Picture, Picture]:
    mask: Tensor = binary_mask(source.read_labels(id), class_id)
    return picture_of(source.read_image(id)), np.asarray(mask.numpy())


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Everything that the report shows.

    Attributes:
        config: of the demo.
        data: the fold.
        results: one for each line of the table, the floor first.
        gains: paired comparisons.
        examples: episodes in pictures.
        seconds: stage -> wall time.
        cell_accuracy: share of object cells that the backbone names right at the end of its training.
    """

    config: DemoOptions
    data: FoldData
    results: tuple[RunResult, ...]
    gains: tuple[Gain, ...]
    examples: tuple[Example, ...]
    seconds: Mapping[str, float]
    cell_accuracy: float


def write_report(path: Path, report: DemoReport) -> None:
    """Writes the report in one step.

    Raises:
        OSError: the file cannot be written.
    """
    sections = [
        *_head(report),
        *_scores(report),
        *_classes(report),
        *_examples(report),
        *_set(report),
        *_made(report),
    ]
    atomic_write_text(path, page("fewseg demo", *sections))


def _head(report: DemoReport) -> list[Cell]:
    split = report.data.split
    best = next(r for r in report.results if r.recipe == "demo_scl" and r.shots == 1)
    floor = report.results[0]
    *first, last = (split.class_names[c] for c in split.novel)
    lead = (
        f"Shown one annotated picture of a thing it was never trained on, {label(best)} marks that thing in "
        f"other pictures with a mean IoU of {percent(best.miou_mean)} %. The same network untrained reaches "
        f"{percent(floor.miou_mean)} %."
    )
    unseen = (
        f"The unseen things are {', '.join(first)} and {last}: none of them is in any training picture, "
        "not even in the background."
    )
    return [
        element("h1", "Few-shot segmentation of unseen things"),
        element("p", lead, class_="lead"),
        element("p", unseen),
    ]


def _scores(report: DemoReport) -> list[Cell]:
    protocol = report.config.protocol
    caption = (
        f"Percent; in brackets the 95 % interval over episodes. {len(protocol.seeds)} seeds of "
        f"{protocol.episodes} episodes; each draws an unseen class, then a query and its support pictures "
        f"(digest {protocol.digest()}). These are rendered pictures: the numbers say nothing about "
        "photographs and cannot be compared with those of papers."
    )
    gains = [
        element("li", f"{gain.label}: {gain_with_interval(gain.estimate)} points of mIoU")
        for gain in report.gains
    ]
    return [
        element("h2", "Scores on the unseen classes"),
        table(headings(), rows(report.results), caption, text_columns=3),
        element("p", "On the same episodes, with the 95 % interval of the difference:"),
        element("ul", *gains),
    ]


def _classes(report: DemoReport) -> list[Cell]:
    split = report.data.split
    shown = [r for r in report.results if r.recipe in ("demo_pfenet", "demo_scl")]
    names = ["class", *(f"{label(r)}, {shots_of(r)}" for r in shown)]
    lines: list[list[Cell]] = []
    for c in split.novel:
        scores = [r.per_class_mean[c] for r in shown]
        lines.append([split.class_names[c], *(bar(s, percent(s)) for s in scores)])
    return [
        element("h2", "Class by class"),
        table(names, lines, "Foreground IoU of each unseen class, percent, mean over test seeds."),
    ]


def _examples(report: DemoReport) -> list[Cell]:
    key = [
        Markup(f'<span class="key" style="background:rgb{colour}"></span>{text}')
        for colour, text in ((WRONG, "marked, but not the object"), (MISSED, "the object, but not marked"))
    ]
    intro = (
        "The first test episodes of each unseen class, drawn by number and not picked. Marked pixels keep "
        "their colour; "
    )
    parts: list[Cell] = [
        element("h2", "What it looks like"),
        element("p", intro, key[0], ", ", key[1], "."),
    ]
    for example in report.examples:
        parts += [element("h3", f"Find the {example.class_name}"), _example(example)]
    return parts


def _example(example: Example) -> Markup:
    name = example.class_name
    figures = [
        figure(
            example.supports[0],
            f"Support picture with the {name} in colour, the rest pale",
            "support (1 shot)",
        ),
        figure(example.query, f"Query picture that shows a {name} among other things", "query"),
        figure(example.truth, f"Query with the true {name} in colour, the rest pale", "truth"),
    ]
    for p in example.predictions:
        iou = percent(p.iou)
        caption = joined([element("strong", p.label), Markup("<br>"), f"IoU {iou} %"])
        figures.append(
            figure(p.picture, f"What {p.label} marks as {name}; IoU with the truth {iou} percent", caption)
        )
    return element("div", *figures, class_="pictures")


def _set(report: DemoReport) -> list[Cell]:
    data = report.data
    figures = []
    for i, (c, name) in enumerate(data.split.class_names.items()):
        kind = "unseen" if c in data.split.novel else "trained on"
        picture = picture_of(data.source.read_image(data.test.ids[i]))
        caption = joined([element("strong", name), Markup("<br>"), kind])
        figures.append(figure(picture, f"A rendered picture with a {name} and other objects", caption))
    intro = (
        "Twenty classes of rendered objects in four folds of five, as in PASCAL-5i. Each picture is a "
        "function of its number and the seed. Outline and pattern belong to the class; colour, pose, size, "
        "light, ground and clutter do not."
    )
    return [
        element("h2", "The pictures"),
        element("p", intro),
        element("div", *figures, class_="pictures small"),
    ]


def _made(report: DemoReport) -> list[Cell]:
    config, result = report.config, report.results[-1]
    total = sum(report.seconds.values())
    times = [[name, f"{seconds:.1f}"] for name, seconds in report.seconds.items()]
    steps = (
        f"A ResNet of {sum(config.shape.layers[:3])} blocks learns to name the base class of each cell of "
        f"{config.train_images} pictures ({config.pretrain.steps} steps of {config.pretrain.batch}; at the "
        f"end it names {percent(report.cell_accuracy)} % of the object cells right). This stands for "
        f"ImageNet training. It is then frozen, and each head trains on its cached features for "
        f"{config.steps} steps of {config.batch} episodes of base classes."
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    written = as_json({**as_json(config), "out": config.out.name})
    details = element(
        "details",
        element("summary", "Config"),
        element("pre", json.dumps(written, indent=2), tabindex="0", role="region", aria_label="Config"),
    )
    return [
        element("h2", "How it was made"),
        element("p", steps),
        table(["stage", "seconds"], [*times, ["total", f"{total:.1f}"]], f"Wall time on {result.hardware}."),
        element("p", f"Versions: {versions}.", class_="soft"),
        details,
    ]
