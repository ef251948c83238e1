"""What a person gets who draws strokes in place of masks: a scripted person on sets of photographs.

``image``: on one image, a first prompt (a scribble, a box) and then corrective dots, each where the mask is
most wrong; IoU of the class after 1, 3, 5 and 10 of them. The model gives its maps alone, no prediction.
``session``: one prompt on each of 1, 3, 5 and 10 images, completed as the page does, which become examples;
IoU of the class on other images, beside the same number of full masks and of bare strokes. ``stroke``:
milliseconds of a completion.

A set is a folder with ``images/<name>.jpg`` and ``masks/<name>.png`` (class numbers, 255 for unknown).

uv run python benchmarks/page_prompts.py --out runs/prompts.jsonl
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from fewseg.inference.complete import PAINTED, Canvas, Hints, canvas, complete
from fewseg.inference.find import find_images
from fewseg.inference.images import read_image
from fewseg.inference.model import Model, load_model
from fewseg.inference.options import QUICK_MODEL, ModelOptions
from fewseg.inference.quality import probabilities
from fewseg.inference.segmenter import Segmenter
from fewseg.recipes.datasets import shared_folder
from fewseg.types import IGNORE

Part = Literal["image", "session", "stroke"]
Mask = NDArray[np.bool_]
COUNTS = (1, 3, 5, 10)
_PEN = 6  # pixels: the diameter of strokes, less in what is thinner
_COARSE = 200  # pixels of the longer side at which a scribble is planned
_MIDDLE = 0.7  # share of the longest way through a thing that a scribble takes
_LEAST = 30  # pixels of a class in an image that is used


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to measure.

    Attributes:
        folder: of the sets.
        sets: their names; all by default.
        parts: of the measurement.
        images: of a set, in ``image``, and tested images in ``session``.
        draws: of examples, in ``session``.
        models: in ``session``.
        size: side of the network's input, pixels.
        out: a JSON line for each prompt.
    """

    folder: Path = shared_folder() / "data" / "domains"
    sets: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ("image", "session", "stroke")
    images: int = 8
    draws: int = 2
    models: tuple[str, ...] = (QUICK_MODEL,)
    size: int = 473
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Photo:
    """An image of a set with its true mask."""

    name: str
    image: Image.Image
    mask: NDArray[np.uint8]

    def classes(self) -> list[int]:
        """Those of more than a few pixels."""
        counts = np.bincount(self.mask.ravel(), minlength=256)
        return [k for k in range(1, IGNORE) if counts[k] >= _LEAST]


def photos(folder: Path, seed: int = 0) -> list[Photo]:
    """A set in an order by chance."""
    files = find_images([folder / "images"])
    found = [
        Photo(
            name=name,
            image=Image.open(file).convert("RGB"),
            mask=np.array(Image.open(folder / "masks" / f"{Path(name).stem}.png")),
        )
        for name, file in sorted(files.items())
    ]
    random.Random(f"{seed} {folder.name}").shuffle(found)
    return found


def iou(found: Mask, true: Mask, counted: Mask) -> float:
    union = ((found | true) & counted).sum()
    return float((found & true & counted).sum() / union) if union else 1.0


def largest(mask: Mask) -> Mask:
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def way_through(mask: Mask) -> list[tuple[float, float]]:
    """The middle of the longest way (x, y) through the largest piece of a mask, far from its rim."""
    piece = largest(mask)
    top, left = np.argwhere(piece).min(axis=0)
    bottom, right = np.argwhere(piece).max(axis=0) + 1
    step = max(1, -(-max(bottom - top, right - left) // _COARSE))
    grid = piece[top:bottom, left:right]
    h, w = (-(-side // step) for side in grid.shape)
    grid = np.pad(grid, ((0, h * step - grid.shape[0]), (0, w * step - grid.shape[1])))
    grid = grid.reshape(h, step, w, step).any(axis=(1, 3))
    depth = ndimage.distance_transform_edt(np.pad(grid, 1))[1:-1, 1:-1]
    numbers = np.arange(h * w).reshape(h, w)
    a, b, cost = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = (slice(0, h - dy), slice(max(0, -dx), w - max(0, dx)))
        two = (slice(dy, h), slice(max(0, dx), w - max(0, -dx)))
        both = grid[one] & grid[two]
        a.append(numbers[one][both])
        b.append(numbers[two][both])
        cost.append(np.hypot(dy, dx) / np.minimum(depth[one][both], depth[two][both]))
    graph = sparse.coo_array(
        (np.concatenate(cost), (np.concatenate(a), np.concatenate(b))), shape=(h * w, h * w)
    )
    start = int(depth.argmax())
    for _ in range(2):  # the farthest place from anywhere, and the farthest from there
        far, before = csgraph.dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        begin, start = start, int(np.where(np.isfinite(far), far, -1).argmax())
    way = [start]
    while way[-1] != begin:
        way.append(int(before[way[-1]]))
    cut = int(len(way) * (1 - _MIDDLE) / 2)
    return [(left + (k % w + 0.5) * step, top + (k // w + 0.5) * step) for k in way[cut : len(way) - cut]]


def drawn(hints: Hints, way: list[tuple[float, float]], number: int, pen: float) -> Hints:
    """Hints with a stroke; of one place it is a dot."""
    h, w = hints.labels.shape
    canvas = Image.new("1", (w, h))
    draw = ImageDraw.Draw(canvas)
    if len(way) > 1:
        draw.line(way, fill=1, width=max(1, round(pen)))
    for x, y in (way[0], way[-1]):
        draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=1)
        draw.point((x, y), fill=1)
    stroke = np.array(canvas)
    return Hints(labels=np.where(stroke, number, hints.labels), kind=np.where(stroke, PAINTED, hints.kind))


def no_hints(true: Mask) -> Hints:
    return Hints(labels=np.full(true.shape, IGNORE, np.uint8), kind=np.zeros(true.shape, np.uint8))


def scribble(hints: Hints, true: Mask, number: int = 1) -> Hints:
    way, depth = way_through(true), ndimage.distance_transform_edt(np.pad(largest(true), 1))
    usual = float(np.median([depth[int(y) + 1, int(x) + 1] for x, y in way]))
    return drawn(hints, way, number, min(_PEN, max(1.0, 2 * usual - 2)))


def box(hints: Hints, true: Mask, number: int = 1) -> Hints:
    ys, xs = np.nonzero(largest(true))
    kind = hints.kind.copy()
    kind[max(0, ys.min() - 2) : ys.max() + 3, max(0, xs.min() - 2) : xs.max() + 3] = PAINTED + number
    return Hints(labels=hints.labels, kind=kind)


def correction(hints: Hints, found: Mask, true: Mask, counted: Mask) -> Hints:
    """A dot where the mask is most wrong: the place farthest from everything that is right."""
    wrong = (found != true) & counted & (hints.kind != PAINTED)
    if not wrong.any():
        return hints
    depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return drawn(hints, [(x + 0.5, y + 0.5)], int(true[y, x]), min(_PEN, depth.max()))


PROMPTS = {"scribble": scribble, "box": box}


def on_one_image(image: Canvas, true: Mask, counted: Mask, prompt: str) -> list[float]:
    """IoU after 1, 2 .. 10 interactions."""
    hints, scores = PROMPTS[prompt](no_hints(true), true), []
    for _ in range(COUNTS[-1]):
        found = complete(image, hints) == 1
        scores.append(iou(found, true, counted))
        hints = correction(hints, found, true, counted)
    return scores


def one_image(folder: Path, work: Work, model: Model | None) -> Iterator[dict[str, Any]]:
    """Every class of some images, alone."""
    segmenter = Segmenter(model) if model else None
    for photo in photos(folder)[: work.images]:
        encoded = segmenter.encode(photo.image) if segmenter else None
        image = canvas(read_image(photo.image), encoded)
        for number in photo.classes():
            true, counted = photo.mask == number, photo.mask != IGNORE
            for prompt in PROMPTS:
                scores = on_one_image(image, true, counted, prompt)
                yield {
                    "part": "image",
                    "set": folder.name,
                    "image": photo.name,
                    "class": number,
                    "prompt": prompt,
                } | {"iou": [round(score, 4) for score in scores]}


def example(arm: str, image: Canvas, true: Mask, counted: Mask, chances: NDArray[np.float32] | None) -> Any:
    """The mask that becomes an example: 255 where the true one is unknown."""
    if arm == "full mask":
        found = true
    elif arm == "bare stroke":
        found = scribble(no_hints(true), true).kind == PAINTED
    else:
        found = complete(image, PROMPTS[arm](no_hints(true), true), chances) == 1
    return np.where(counted, found, IGNORE).astype(np.uint8)


def in_a_session(folder: Path, work: Work, model: Model) -> Iterator[dict[str, Any]]:
    """The class that most images show; examples are added one by one, and tested on the images after them."""
    for draw in range(work.draws):
        of_class = defaultdict(list)
        for photo in photos(folder, draw):
            for number in photo.classes():
                of_class[number].append(photo)
        number = max(of_class, key=lambda k: (len(of_class[k]), -k))
        showing = of_class[number][: COUNTS[-1] + work.images]
        encoded = [Segmenter(model).encode(photo.image) for photo in showing]
        pairs = [(photo.mask == number, photo.mask != IGNORE) for photo in showing]
        most = min(COUNTS[-1], len(showing) - work.images)
        for arm in ("full mask", *PROMPTS, "bare stroke"):
            segmenter, own, scores = Segmenter(model), [], {}
            for k in range(most):
                chances = None
                if segmenter.classes and arm in PROMPTS:
                    margins = segmenter.segment(encoded[k], quality=False).margins
                    chances = probabilities(margins).numpy()
                cut = canvas(read_image(showing[k].image), encoded[k])
                mask = example(arm, cut, *pairs[k], chances)
                own.append(iou(mask == 1, *pairs[k]))
                if (mask == 1).any():
                    segmenter.add_image(encoded[k], {"thing": mask})
                if k + 1 in COUNTS and segmenter.classes:
                    found = segmenter.segment(encoded[most:], quality=False)
                    scores[k + 1] = round(
                        mean(
                            iou(each.mask("thing"), *pair)
                            for each, pair in zip(found, pairs[most:], strict=True)
                        ),
                        4,
                    )
            yield {
                "part": "session",
                "set": folder.name,
                "draw": draw,
                "class": number,
                "model": model.name,
            } | {
                "prompt": arm,
                "examples": round(mean(own), 4),
                "iou": [scores.get(count) for count in COUNTS],
            }


def strokes(folder: Path, work: Work) -> Iterator[dict[str, Any]]:
    """Milliseconds of preparing an image and of each completion, at 640 px."""
    for photo in photos(folder)[: work.images]:
        small = photo.image.resize((640, round(640 * photo.image.height / photo.image.width)))
        true = np.array(Image.fromarray(photo.mask).resize(small.size, Image.Resampling.NEAREST)) > 0
        if not true.any():
            continue
        start = np.array([time.perf_counter(), time.process_time()])
        image = canvas(read_image(small))
        first, spent = 1000 * (np.array([time.perf_counter(), time.process_time()]) - start), []
        hints = scribble(no_hints(true), true)
        for _ in range(COUNTS[-1]):
            start = np.array([time.perf_counter(), time.process_time()])
            found = complete(image, hints) == 1
            taken = 1000 * (np.array([time.perf_counter(), time.process_time()]) - start)
            spent.append(taken.round(1).tolist())
            hints = correction(hints, found, true, np.ones_like(true))
        yield {"part": "stroke", "set": folder.name, "first": first.round(1).tolist(), "ms": spent}


def shown(lines: list[dict[str, Any]]) -> Iterator[Table]:
    for part in ("image", "session"):
        groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for line in lines:
            if line["part"] == part:
                groups[line["set"], line["prompt"]].append(line)
        table = Table(title=f"{part}: mean IoU")
        for heading in ("set", "prompt", "n", "example", *map(str, COUNTS)):
            table.add_column(heading)
        for key, own in sorted(groups.items()):
            places = [count - 1 for count in COUNTS] if part == "image" else range(len(COUNTS))
            columns = [[line["iou"][k] for line in own if line["iou"][k] is not None] for k in places]
            made = f"{100 * mean(line['examples'] for line in own):.1f}" if part == "session" else ""
            table.add_row(*key, str(len(own)), made, *(f"{100 * mean(c):.1f}" if c else "" for c in columns))
        if groups:
            yield table
    own = [line for line in lines if line["part"] == "stroke"]
    if own:
        spent = np.concatenate([line["ms"] for line in own])
        table = Table(title="milliseconds at 640 px: wall / CPU")
        for heading in ("", "n", "median", "p95"):
            table.add_column(heading)
        for name, values in (("stroke", spent), ("first look", np.array([line["first"] for line in own]))):
            columns = ("{:.0f} / {:.0f}".format(*np.percentile(values, p, axis=0)) for p in (50, 95))
            table.add_row(name, str(len(values)), *columns)
        yield table


def main(work: Work) -> None:
    lines: list[dict[str, Any]] = []
    models = [load_model(ModelOptions(model=name, size=work.size)) for name in work.models]
    for folder in sorted(own for own in work.folder.iterdir() if (own / "images").is_dir()):
        if work.sets and folder.name not in work.sets:
            continue
        made = {
            "image": lambda own=folder: one_image(own, work, models[0] if models else None),
            "session": lambda own=folder: (
                line for model in models for line in in_a_session(own, work, model)
            ),
            "stroke": lambda own=folder: strokes(own, work),
        }
        for part in work.parts:
            for line in made[part]():
                lines.append(line)
                if work.out:
                    work.out.parent.mkdir(parents=True, exist_ok=True)
                    with work.out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    for table in shown(lines):
        Console(width=140).print(table)


if __name__ == "__main__":
    main(tyro.cli(Work))
