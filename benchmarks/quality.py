"""How well quality without labels ranks failures: AUROC of IoU < 0.5 and rank correlation with the true IoU.

Each of a fold's novel classes gets K supports and some queries that show it, drawn from its test images,
the same for every method. Numbers are pooled over classes and folds.

uv run python benchmarks/quality.py --models voc5i_mini_matcher 'runs/pfenet-fold{fold}/best.safetensors'
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from fewseg.data.transforms import binary_mask
from fewseg.inference import Segmenter
from fewseg.recipes.datasets import voc5i_mini

PARTS = ("reverse", "agreement", "margin", "score")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to measure.

    Attributes:
        models: recipes or checkpoints; {fold} in a path becomes the fold.
        folds: which.
        shots: K.
        queries: of each class.
        size: side of the network's input, pixels.
        min_area: pixels that a class must cover on an image.
        seed: of the draw.
        out: file for all rows, one JSON object a query; none by default.
    """

    models: tuple[str, ...] = ("voc5i_mini_matcher",)
    folds: tuple[int, ...] = (0, 1, 2, 3)
    shots: int = 5
    queries: int = 8
    size: int = 241
    min_area: int = 2048
    seed: int = 0
    out: Path | None = None


def measured(study: Study, name: str) -> list[dict[str, float]]:
    """True IoU and the parts of quality of every query."""
    rows: list[dict[str, float]] = []
    for fold in study.folds:
        data = voc5i_mini(fold)
        whole = Segmenter.from_checkpoint(name.replace("{fold}", str(fold)), size=study.size)
        for class_id in data.split.novel:
            shown = list(data.test.images_of(class_id, study.min_area))
            random.Random(f"{study.seed} {class_id}").shuffle(shown)
            supports, queries = shown[: study.shots], shown[study.shots :][: study.queries]
            truth = {id: binary_mask(data.source.read_labels(id), class_id) for id in supports + queries}
            segmenter = whole.empty()
            images = [data.source.read_image(id) for id in supports]
            segmenter.add_class("it", images, [truth[id] for id in supports])
            for id in queries:
                found = segmenter.segment(data.source.read_image(id))
                counted = truth[id].numpy() != 255
                said, true = found.mask("it") & counted, truth[id].numpy() == 1
                part = found.quality.classes["it"]
                row = {kind: getattr(part, kind) or 0.0 for kind in PARTS}
                iou = float((said & true).sum() / max(1, (said | true).sum()))
                rows.append(row | {"iou": iou, "fold": fold, "class": class_id})
            print(f"{name}, fold {fold}, class {class_id}: {len(rows)} queries", file=sys.stderr, flush=True)
    return rows


def auroc(scores: np.ndarray, failed: np.ndarray) -> float:
    """Chance that a success scores above a failure; ties count half."""
    good, bad = scores[~failed][:, None], scores[failed][None]
    return float(((good > bad) + 0.5 * (good == bad)).mean()) if good.size and bad.size else float("nan")


def main(study: Study) -> None:
    table = Table(title=f"voc5i-mini, folds {study.folds}, {study.shots}-shot, {study.size} px")
    headings = ["model", "queries", "mean IoU", "IoU < 0.5"]
    headings += [f"{kind}: {what}" for kind in PARTS for what in ("AUROC", "Spearman")]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name in study.models:
        rows = measured(study, name)
        if study.out is not None:
            lines = "".join(json.dumps({"model": name, **row}) + "\n" for row in rows)
            with study.out.open("a") as file:
                file.write(lines)
        iou = np.array([row["iou"] for row in rows])
        failed = iou < 0.5
        cells = [name, str(len(rows)), f"{iou.mean():.3f}", f"{failed.mean():.0%}"]
        for kind in PARTS:
            scores = np.array([row[kind] for row in rows])
            known = scores.std() > 0
            rank = spearmanr(scores, iou).statistic if known else float("nan")
            cells += [f"{auroc(scores, failed):.3f}", f"{rank:.3f}"]
        table.add_row(*cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main(tyro.cli(Study))
