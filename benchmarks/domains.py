"""How well a few annotated images label the rest: sets of photographs that are neither VOC nor COCO.

A draw takes K annotated images of each class of a set and tests every candidate on images that are left. The
backbone sees each image once; with --cache not even that in a second run. A finished cell is a JSON line of
--out, and the same command goes on where it was stopped. Prints the tables of all that the file holds.

A set is a folder with ``images/<name>.jpg`` and ``masks/<name>.png`` (class numbers, 255 for unknown).

uv run python benchmarks/domains.py --shots 5 --draws 3 --out runs/domains.jsonl
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from fewseg.inference.choose import REFINED, candidate_configs
from fewseg.inference.find import find_images
from fewseg.inference.model import Model, load_model
from fewseg.inference.options import ModelOptions
from fewseg.inference.segmentation import Session
from fewseg.inference.segmenter import Segmenter
from fewseg.inference.supports import SupportSet, save_supports
from fewseg.methods.mean import on_backbone
from fewseg.recipes.datasets import shared_folder

_REACH = 0.02  # of the diagonal: how far from its edge a mask counts for boundary IoU, as in the paper
_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LEAST = 4  # images for a rank correlation
KEY = ("set", "shots", "draw", "candidate")
Key = tuple[Any, ...]
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to measure.

    Attributes:
        folder: of the sets.
        sets: their names; all by default.
        shots: K, images of each class; of a class no more than half of its images.
        draws: of supports, each from its number and the set's name.
        queries: images that are tested in a draw.
        candidates: names, or beginnings of them; all by default.
        model: ``auto`` or ``auto:RECIPE``: its backbone is that of all candidates.
        checkpoints: trained ones, beside them.
        size: side of the network's input, pixels.
        out: a JSON line for each finished cell.
        cache: folder for encoded sets.
    """

    folder: Path = shared_folder() / "data" / "domains"
    sets: tuple[str, ...] = ()
    shots: tuple[int, ...] = (1, 5, 10)
    draws: int = 3
    queries: int = 16
    candidates: tuple[str, ...] = ()
    model: str = "auto"
    checkpoints: tuple[str, ...] = ()
    size: int = 473
    out: Path = Path("runs/domains.jsonl")
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A set: images as one encoded support set, and their masks at full size."""

    supports: SupportSet
    masks: Sequence[NDArray[np.uint8]]
    numbers: Sequence[int]
    seconds: float | None  # to read and encode an image; None from the cache


def domain(folder: Path, model: Model, cache: Path | None) -> Domain:
    """Reads and encodes a set."""
    files = find_images([folder / "images"])
    masks = [np.array(Image.open(folder / "masks" / f"{Path(name).stem}.png")) for name in files]
    numbers = sorted({int(own) for mask in masks for own in np.unique(mask)} - {0, 255})
    segmenter, start = Segmenter(model), time.perf_counter()
    stored = None if cache is None else cache / f"{folder.name}-{model.digest}.safetensors"
    if stored is not None and stored.is_file():
        segmenter.load_supports(stored)
        return Domain(supports=segmenter.supports, masks=masks, numbers=numbers, seconds=None)
    for file, mask in zip(files.values(), masks, strict=True):
        shown = [number for number in numbers if (mask == number).any()]
        own = {str(k): np.where(mask == 255, 255, mask == k).astype(np.uint8) for k in shown}
        segmenter.add_image(file, own)
    seconds = (time.perf_counter() - start) / len(files)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        save_supports(stored, segmenter.supports, model)  # the segmenter's own would choose first
    return Domain(supports=segmenter.supports, masks=masks, numbers=numbers, seconds=seconds)


def drawn(found: Domain, shots: int, key: str) -> tuple[list[int], list[int]]:
    """Places of the supports and of the images that are left, in the order of a draw."""
    shown = [{str(k) for k in found.numbers if (mask == k).any()} for mask in found.masks]
    order = list(range(len(shown)))
    random.Random(key).shuffle(order)
    names = found.supports.classes
    most = {name: min(shots, sum(name in own for own in shown) // 2) for name in names}
    count, taken = dict.fromkeys(names, 0), []
    for i in order:
        if any(count[name] < most[name] for name in shown[i]):
            taken.append(i)
            for name in shown[i]:
                count[name] += 1
    return taken, [i for i in order if i not in taken]


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask near its edge. Source: Boundary IoU (Cheng et al., CVPR 2021)."""
    reach = max(1, round(_REACH * float(np.hypot(*mask.shape))))
    outside = F.pad(1 - torch.from_numpy(mask)[None].float(), (reach,) * 4, value=1.0)
    for _ in range(2):  # a square kernel, by rows and by columns
        outside = F.max_pool1d(outside[0], 2 * reach + 1, stride=1).T[None]
    found: NDArray[np.bool_] = mask & (outside[0].numpy() > 0)
    return found


def overlap(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels of the intersection and of the union."""
    return np.array([(found & true).sum(), (found | true).sum()])


def tested(session: Session, found: Domain, queries: Sequence[int]) -> dict[str, Any]:
    """What a session makes of images: scores over all, and of each image and class; quality of auto alone."""
    names = session.supports.classes
    whole, edge = ({name: np.zeros(2, np.int64) for name in names} for _ in range(2))
    rows, spent = [], 0.0
    for i in queries:
        start = time.perf_counter()
        made = session.segment(found.supports.images[i].image, quality=session.choice is not None)
        labels = made.labels
        spent += time.perf_counter() - start
        counted = found.masks[i] != 255
        for j, name in enumerate(names, 1):
            own, true = (labels == j) & counted, found.masks[i] == int(name)
            both = overlap(own, true)
            whole[name] += both
            edge[name] += overlap(boundary(own), boundary(true))
            if both[1]:
                quality = made.quality and round(made.quality.classes[name].score, 4)
                rows.append([i, name, round(both[0] / both[1], 4), quality])
    iou, sharp = (
        {name: round(float(own[0] / max(1, own[1])), 4) for name, own in of.items()} for of in (whole, edge)
    )
    return {"iou": iou, "boundary": sharp, "image_s": round(spent / len(queries), 3), "rows": rows}


def sessions(model: Model) -> dict[str, Callable[[SupportSet], Session]]:
    """Every candidate by name, and the choice among them."""

    def alone(config: Any, refine: bool) -> Callable[[SupportSet], Session]:
        method = on_backbone(config, model.method.backbone)
        own = Model(method, config, model.size, model.views, precision=model.precision, refine=refine)
        return lambda supports: Session(own, supports)

    configs = [own for kind in candidate_configs(model.method.backbone.config).values() for own in kind]
    found = {"auto": lambda supports: Session(model, supports)}
    for name, config in configs:
        found |= {name: alone(config, False), name + REFINED: alone(config, True)}
    return found


def measure(work: Work, add: Callable[[Line], None], known: set[Key]) -> None:
    """Computes the cells that are not known."""
    auto = load_model(ModelOptions(model=work.model, size=work.size))
    models = {"": auto} | {
        Path(own).stem: load_model(ModelOptions(model=own, size=work.size)) for own in work.checkpoints
    }
    for folder in sorted(own for own in work.folder.iterdir() if (own / "images").is_dir()):
        if work.sets and folder.name not in work.sets:
            continue
        for name, model in models.items():
            made = {name: lambda supports, own=model: Session(own, supports)} if name else sessions(model)
            made = {k: v for k, v in made.items() if not work.candidates or k.startswith(work.candidates)}
            keys = [
                (folder.name, shots, draw, candidate)
                for shots in work.shots
                for draw in range(work.draws)
                for candidate in made
                if (folder.name, shots, draw, candidate) not in known
            ]
            if not keys:
                continue
            found = domain(folder, model, work.cache)
            for key in keys:
                _, shots, draw, candidate = key
                taken, left = drawn(found, shots, f"{draw} {folder.name}")
                start = time.perf_counter()
                session = made[candidate](found.supports.of(found.supports.images[i] for i in taken))
                fit = time.perf_counter() - start
                line = dict(zip(KEY, key, strict=True)) | {"supports": len(taken), "size": work.size}
                line |= {"encode_s": found.seconds, "fit_s": round(fit, 2)}
                line |= tested(session, found, left[: work.queries])
                if session.choice is not None:
                    line |= {"choice": session.choice.facts()}
                add(line)


def mean_iou(line: Line, kind: str = "iou") -> float:
    """Of the classes of a cell."""
    return 100 * mean(line[kind].values())


def shown(lines: Sequence[Line]) -> list[Table]:
    """Scores of each candidate, how far the expected IoU comes true, and whether quality sorts images."""
    sets = sorted({line["set"] for line in lines})
    found = []
    for shots in sorted({line["shots"] for line in lines}):
        table = Table(title=f"{shots}-shot: mean IoU of the classes, boundary IoU")
        table.add_column("candidate")
        for heading in (*sets, "mean", "fit s", "s/image"):
            table.add_column(heading, justify="right")
        groups: Mapping[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
        for line in lines:
            if line["shots"] == shots:
                groups[line["candidate"]][line["set"]].append(line)
        for candidate, own in groups.items():
            scores = {
                name: [mean(mean_iou(line, kind) for line in own[name]) for kind in ("iou", "boundary")]
                for name in sets
                if own[name]
            }
            cells = ["{:.1f}, {:.1f}".format(*scores[name]) if name in scores else "" for name in sets]
            if len(scores) == len(sets):
                cells.append("{:.1f}, {:.1f}".format(*np.mean(list(scores.values()), axis=0)))
            else:
                cells.append("")
            every = [line for of in own.values() for line in of]
            spent = [f"{mean(line[kind] for line in every):.2f}" for kind in ("fit_s", "image_s")]
            table.add_row(candidate, *cells, *spent)
        found.append(table)
    return [*found, _expected(lines), _sorted(lines)]


def _expected(lines: Sequence[Line]) -> Table:
    """Expected IoU of the choices against the real one, class by class."""
    pairs = np.array(
        [
            (own["iou"], line["iou"][name])
            for line in lines
            if line["candidate"] == "auto" and line["choice"]["calibrated"]
            for name, own in line["choice"]["classes"].items()
            if own["iou"] is not None
        ]
    ).reshape(-1, 2)
    title = "auto: expected IoU of a class against the real one"
    if len(pairs) >= _LEAST:
        title += f"; {len(pairs)} pairs, rank correlation {spearmanr(*pairs.T).statistic:.2f}"
        title += f", mean distance {np.abs(pairs[:, 0] - pairs[:, 1]).mean():.3f}"
    table = Table(title=title)
    for heading in ("expected", "classes", "mean expected", "mean real"):
        table.add_column(heading, justify="right")
    for low, high in pairwise(_BINS):
        own = pairs[(pairs[:, 0] >= low) & ((pairs[:, 0] < high) | (high == 1))]
        if len(own):
            values = (f"{value:.2f}" for value in own.mean(axis=0))
            table.add_row(f"{low:.1f}-{high:.1f}", str(len(own)), *values)
    return table


def _sorted(lines: Sequence[Line]) -> Table:
    """Rank correlation of the quality of an image's class with its IoU: mean over draws and classes."""
    table = Table(title="quality of a class on an image against its IoU: mean rank correlation within a draw")
    shots = sorted({line["shots"] for line in lines})
    for heading in ("candidate", "set", *(f"{own}-shot" for own in shots)):
        table.add_column(heading, justify="right" if heading.endswith("shot") else "left")
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name in line["iou"] if line["candidate"] == "auto" else ():
            values = np.array([row[2:] for row in line["rows"] if row[1] == name]).reshape(-1, 2)
            if len(values) >= _LEAST and (values.std(axis=0) > 0).all():
                rank = float(spearmanr(*values.T).statistic)
                found[line["candidate"], line["set"]][line["shots"]].append(rank)
    for key, own in sorted(found.items()):
        table.add_row(*key, *(f"{mean(own[k]):.2f}" if own[k] else "" for k in shots))
    return table


def main(work: Work) -> None:
    work.out.parent.mkdir(parents=True, exist_ok=True)
    stored = work.out.read_text().splitlines() if work.out.is_file() else []
    lines: list[Line] = [json.loads(text) for text in stored]

    def add(line: Line) -> None:
        lines.append(line)
        with work.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        place = " ".join(str(line[part]) for part in KEY)
        spent = f"fit {line['fit_s']:.1f} s, {line['image_s']:.2f} s an image"
        print(f"{place}: {mean_iou(line):.1f}, {spent}", file=sys.stderr, flush=True)

    measure(work, add, {tuple(line[part] for part in KEY) for line in lines})
    for table in shown(lines):
        Console(width=200).print(table)


if __name__ == "__main__":
    main(tyro.cli(Work))
