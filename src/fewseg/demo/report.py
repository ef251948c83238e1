"""The demo's report in one HTML file: scores, example episodes in pictures, how it was made."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from rich.table import Table

from fewseg.data.episodes import EpisodeSampler, EpisodeSpec
from fewseg.data.folds import FoldData
from fewseg.data.source import Source
from fewseg.data.transforms import binary_mask
from fewseg.demo.options import DemoOptions
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.results import RunResult, as_json
from fewseg.methods.fusion import Fusion
from fewseg.metrics import count
from fewseg.ops.files import atomic_write_text
from fewseg.reports.marked_pictures import MISSED, WRONG, Picture, judged, picture_of, spotlight
from fewseg.reports.numbers import Estimate, percent, with_interval
from fewseg.reports.templating import asset, render

_LABELS = {
    "demo_untrained": "untrained network",
    "demo_matcher": "prototype matching, no head",
    "demo_pfenet": "PFENet",
    "demo_scl": "SCL",
}
_HEADINGS = ("method", "shots", "fusion", "mIoU", "FB-IoU", "per-class Dice")
_COLOURS = 160  # of the pictures' palettes


def label(result: RunResult) -> str:
    """What tables call a result's recipe."""
    return _LABELS[result.recipe]


def warning(results: Sequence[RunResult]) -> str:
    """A sentence about methods that mark no pixel of an unseen class right; empty where all do."""
    blind = dict.fromkeys(label(r) for r in results if r.miou_mean == 0)
    if not blind:
        return ""
    return (
        f"{' and '.join(blind)} found no object: the training was too short here, so that a comparison would "
        "say nothing. More --minutes allow more training; --minutes 0 trains in full."
    )


def score_rows(results: Sequence[RunResult]) -> list[list[str]]:
    """A row of text for each result, scores in percent."""
    return [
        [
            label(r),
            str(r.shots),
            "-" if r.shots == 1 else r.fusion,
            with_interval(Estimate(value=r.miou_mean, low=r.miou_ci95[0], high=r.miou_ci95[1])),
            percent(r.fb_iou_mean),
            percent(r.dice_mean),
        ]
        for r in results
    ]


def rich_table(results: Sequence[RunResult]) -> Table:
    """The scores as a table for the terminal."""
    title = f"Unseen classes of {results[0].dataset} fold {results[0].fold}, percent with 95 % intervals"
    caption = f"Rendered pictures: not comparable with published numbers. {warning(results)}"
    table = Table(title=title, caption=caption.strip())
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("method", "fusion") else "right")
    for row in score_rows(results):
        table.add_row(*row)
    return table


@dataclass(frozen=True)
class Panel:
    """A picture of the report."""

    picture: Picture
    alt: str
    title: str
    detail: str = ""  # second line of the caption


@dataclass(frozen=True)
class Predictor:
    """A method that marks the queries of examples."""

    label: str
    evaluator: Evaluator
    shots: int  # how many of an episode's supports it is given
    fusion: Fusion


def choose_episodes(sampler: EpisodeSampler, per_class: int) -> list[EpisodeSpec]:
    """The first episodes of each class of the first test seed: drawn by number, not picked."""
    drawn = list(sampler.episodes(sampler.protocol.seeds[0]))
    return [s for c in sampler.classes for s in [s for s in drawn if s.class_id == c][:per_class]]


def example_panels(spec: EpisodeSpec, source: Source, name: str, of: Sequence[Predictor]) -> list[Panel]:
    """One episode in pictures: its first support, the query, the truth, and what each predictor marks."""
    query, truth = _picture_and_mask(source, spec.query, spec.class_id)
    support = spotlight(*_picture_and_mask(source, spec.supports[0], spec.class_id))
    pale = "in colour, the rest pale"
    panels = [
        Panel(support, f"Support picture with the {name} {pale}", "support (1 shot)"),
        Panel(query, f"Query picture that shows a {name} among other things", "query"),
        Panel(spotlight(query, truth), f"Query with the true {name} {pale}", "truth"),
    ]
    for p in of:
        logits = p.evaluator.plain(replace(spec, supports=spec.supports[: p.shots]), p.fusion)
        predicted = (logits[1] > logits[0]).numpy()
        counts = count(predicted, truth)
        iou = percent(float(counts.fg_inter / max(int(counts.fg_union), 1)))
        alt = f"What {p.label} marks as {name}; IoU with the truth {iou} percent"
        panels.append(Panel(judged(query, predicted, truth), alt, p.label, f"IoU {iou} %"))
    return panels


def _picture_and_mask(source: Source, id: str, class_id: int) -> tuple[Picture, Picture]:
    mask = binary_mask(source.read_labels(id), class_id)
    return picture_of(source.read_image(id)), mask.numpy()


def write_report(
    path: Path,
    options: DemoOptions,
    data: FoldData,
    results: Sequence[RunResult],
    differences: Mapping[str, Estimate],
    examples: Sequence[tuple[str, Sequence[Panel]]],
    seconds: Mapping[str, float],
    cell_accuracy: float,
) -> None:
    """Writes the report in one step; ``results`` has the untrained network first, examples are named."""
    names, novel = data.split.class_names, data.split.novel
    heads = [r for r in results if r.recipe in ("demo_pfenet", "demo_scl")]
    shown = [next(r for r in results if r.recipe == "demo_matcher" and r.shots == 1), *heads]
    shots = ["1-shot" if r.shots == 1 else f"{r.shots}-shot {r.fusion}" for r in shown]
    shown_options = as_json({**as_json(options), "out": options.out.name})  # no folder of this machine
    kinds = [(name, "unseen" if c in novel else "trained on") for c, name in names.items()]
    pictures = [
        Panel(
            picture_of(data.source.read_image(id)),
            f"A rendered picture with a {name} and other objects",
            name,
            kind,
        )
        for id, (name, kind) in zip(data.test.ids, kinds, strict=False)
    ]
    text = render(
        "demo.html",
        title="fewseg demo",
        style=asset("page.css"),
        label=label,
        png=_png_uri,
        options=options,
        protocol=options.protocol,
        results=results,
        heads=[r for r in results if r.shots == 1 and r.recipe in ("demo_pfenet", "demo_scl")],
        unseen=[names[c] for c in novel],
        headings=_HEADINGS,
        score_rows=score_rows(results),
        differences=differences,
        warning=warning(results),
        class_headings=["class", *(f"{label(r)}, {k}" for r, k in zip(shown, shots, strict=True))],
        class_rows=[[names[c], *(r.per_class_mean[c] for r in shown)] for c in novel],
        examples=examples,
        wrong=WRONG,
        missed=MISSED,
        pictures=pictures,
        times=[[name, f"{s:.1f}"] for name, s in {**seconds, "total": sum(seconds.values())}.items()],
        cell_accuracy=cell_accuracy,
        options_json=json.dumps(shown_options, indent=2),
    )
    atomic_write_text(path, text)


def _png_uri(picture: Picture) -> str:
    """A picture as a PNG data URI with a small palette."""
    palette = Image.fromarray(picture).quantize(_COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    palette.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
