"""The outputs of a folder run: the wanted formats, the names that files can have, and the contact sheet."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from heapq import nsmallest
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations.formats import FORMATS
from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.names import file_safe, output_stems
from fewseg.annotations.options import Format
from fewseg.annotations.values import Mask, Prediction, check_name
from fewseg.annotations.writer import PredictionWriter, WriteOptions, parse, scan
from fewseg.inference.advice import verdict
from fewseg.ops.files import atomic_write_bytes, atomic_write_text
from fewseg.reports.templating import asset, render

LINES = "predictions.jsonl"
_LONGEST = 255  # bytes of a file's name in nearly all file systems


class Outputs:
    """Writes predictions in several formats below one folder; not thread-safe.

    ``predictions.jsonl`` is always among them. Its line is written last: an image with a line is complete.
    """

    def __init__(
        self, folder: Path, classes: tuple[str, ...], formats: Sequence[Format], options: WriteOptions
    ) -> None:
        self.probability = "probability" in formats
        self._writers: list[PredictionWriter] = []
        try:
            for name in dict.fromkeys(sorted([*formats, "jsonl"], key=lambda name: name == "jsonl")):
                self._writers.append(FORMATS[name](folder, classes, options))
        except BaseException:
            self.close(finish=False)
            raise

    def write(self, prediction: Prediction) -> None:
        """Writes a prediction in every format."""
        for writer in self._writers:
            writer.write(prediction)

    def __contains__(self, name: object) -> bool:
        return all(name in writer for writer in self._writers)

    def close(self, finish: bool = True) -> None:
        """Closes all outputs; ``finish`` also writes those with one file for all images."""
        failed: OSError | None = None
        for writer in self._writers:
            try:
                writer.close(finish=finish)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed


def wrong_names(names: Collection[str], formats: Sequence[str], classes: Sequence[str]) -> Mapping[str, str]:
    """Image names that outputs cannot have, each with the reason."""
    endings = [".json"] if {"labelme", "labelme-polygons"} & set(formats) else [".png"]
    if "probability" in formats:
        endings += [f".{file_safe(name)}.png" for name in classes]
    ending = max(len(ending.encode()) for ending in endings)
    wrong, stems = {}, output_stems(names)
    for name in names:
        try:
            name.encode()
            check_name(name)
            *folders, last = (len(file_safe(part).encode()) for part in stems[name].split("/"))
            length = max(*folders, last + ending, 0)
            if length > _LONGEST:
                wrong[name] = (
                    f"the file name {name!r} makes an output's name of {length} bytes, but at most "
                    f"{_LONGEST} are possible: rename the file"
                )
        except UnicodeEncodeError:
            wrong[name] = f"the file name {name!a} is not UTF-8: rename the file"
        except ValueError as error:
            wrong[name] = str(error)
    return wrong


SUMMARY = "summary.csv"


def write_summary(folder: Path) -> None:
    """Counts a run's instances: one row per image and class, with number, pixels and share of the image."""
    with (folder / LINES).open("rb") as file:
        first, places, _ = scan(file, folder / LINES)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("image", "class", "count", "area", "share"))
        for place in places.values():
            file.seek(place)
            line = parse(file.readline(), folder / LINES)
            for name in (first or {})["classes"]:
                areas = [instance["area"] for instance in line["instances"] if instance["class"] == name]
                share = sum(areas) / (line["height"] * line["width"])
                table.writerow((line["name"], name, len(areas), sum(areas), f"{share:.6f}"))
    atomic_write_text(folder / SUMMARY, text.getvalue())


THUMBS = ".thumbnails"
SHEET = "contact-sheet.html"
_SIDE = 400  # pixels of the longer side, at most

COLOURS = (
    "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00",
    "#0072b2", "#aa4499", "#44aa99", "#999933", "#882255", "#332288",
)  # fmt: skip
"""Of classes 1, 2, ..., from the start again after the last: distinct with any kind of colour vision.

Source: Okabe and Ito 2008, then Tol 2021 (muted).
"""


def thumbnail(pixels: Tensor) -> NDArray[np.uint8]:
    """An image (3, H, W) uint8 as (h, w, 3), its longer side at most 400 pixels."""
    step = -(-max(pixels.shape[-2:]) // _SIDE)
    small: NDArray[np.uint8] = pixels[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy()
    return small


def write_thumbnail(folder: Path, name: str, thumb: NDArray[np.uint8], labels: Mask) -> None:
    """Writes a thumbnail, and a colour image of the labels (H, W) to lay over it."""
    step = -(-max(labels.shape) // _SIDE)
    palette = [channel for colour in (*COLOURS, *COLOURS * 21) for channel in bytes.fromhex(colour[1:])]
    mask = Image.fromarray(labels[::step, ::step])
    mask.putpalette([0, 0, 0, *palette][:768])
    picture, overlay = io.BytesIO(), io.BytesIO()
    Image.fromarray(thumb).save(picture, format="JPEG", quality=80)
    mask.save(overlay, format="PNG", transparency=0, optimize=True)
    atomic_write_bytes(_path(folder, name, ".jpg"), picture.getvalue())
    atomic_write_bytes(_path(folder, name, ".png"), overlay.getvalue())


def _path(folder: Path, name: str, ending: str) -> Path:
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + ending)


def write_sheet(
    folder: Path,
    problems: Mapping[str, str],
    most: int,
    expected: Sequence[str] = (),
    draw: Callable[[Prediction], None] | None = None,
) -> None:
    """Writes one self-contained HTML file of the ``most`` images of a run with the lowest quality.

    ``expected`` are sentences on what to expect of the run; ``draw`` writes the thumbnails that do not exist.
    """
    classes: tuple[str, ...] = ()
    count = 0

    def cards() -> Iterator[tuple[float, str, Mapping[str, Any]]]:
        nonlocal classes, count
        for prediction in read_jsonl(folder / LINES):  # one by one: each holds a label map
            classes = prediction.classes  # the same in all lines
            count += 1
            score = float(str(prediction.facts.get("quality", min(prediction.scores))))
            yield score, prediction.name, prediction.facts

    lowest = nsmallest(most, cards(), key=itemgetter(0))
    shown = {name for _, name, _ in lowest}
    undrawn = {name for name in shown if not _path(folder / THUMBS, name, ".png").is_file()}
    for prediction in read_jsonl(folder / LINES) if draw is not None and undrawn else ():
        if draw is not None and prediction.name in undrawn:
            draw(prediction)
    text = render(
        "contact_sheet.html",
        title="Contact sheet",
        style=asset("page.css"),
        count=count,
        left_out=max(0, count - most),
        script=asset("contact_sheet.js"),
        legend=[(name, COLOURS[k % len(COLOURS)]) for k, name in enumerate(classes)],
        problems=problems,
        expected=expected,
        cards=[_card(folder / THUMBS, *item) for item in lowest],
    )
    atomic_write_text(folder / SHEET, text)


_SIGNS = {
    "reverse": "the examples are found again by it",
    "agreement": "it stays without one of the examples",
    "margin": "the probabilities are decided",
}


def _card(thumbs: Path, score: float, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    parts, presence = facts.get("parts", {}), facts.get("presence", {})
    signs = [
        f"{label}: {', '.join(f'{text} {part[k]:.2f}' for k, text in _SIGNS.items() if part[k] is not None)}"
        for label, part in parts.items()
    ]
    return {
        "name": name,
        "score": score,
        "verdict": verdict(score) if parts else "",
        "calibrated": facts.get("calibrated", True),
        "lines": [f"{label}: {verdict(part['score'])} ({part['score']:.2f})" for label, part in parts.items()]
        or [f"{label}: presence {value:.2f}" for label, value in presence.items()],
        "signs": signs,
        "picture": _data(_path(thumbs, name, ".jpg")),
        "mask": _data(_path(thumbs, name, ".png")),
    }


def _data(file: Path) -> str:
    """An image file as a data URL; empty if there is none."""
    kind = "jpeg" if file.suffix == ".jpg" else "png"
    return (
        f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}" if file.is_file() else ""
    )
