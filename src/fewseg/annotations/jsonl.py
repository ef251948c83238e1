"""JSON lines: one file of predictions, a line an image, that can be read while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewseg.annotations.json_values import field, number, size_field, typed
from fewseg.annotations.rle import box_of, decode_coco, encode_coco
from fewseg.annotations.values import Mask, Prediction
from fewseg.annotations.writer import LinesWriter, parse, scan
from fewseg.types import IGNORE, DataError

_FORMAT = "fewseg-predictions-1"


def header(classes: tuple[str, ...]) -> dict[str, object]:
    """Returns the first line of a file of predictions."""
    return {"format": _FORMAT, "classes": list(classes)}


def line_of(prediction: Prediction) -> dict[str, object]:
    """Returns a prediction as a JSON object, without its name and its probability.

    ``regions`` has an entry for each class that occurs: class, box [x, y, width, height], area in pixels, and
    the mask as COCO's compressed RLE; ``unknown`` is the RLE of the pixels that are 255, where there are any.
    """
    height, width = prediction.size
    regions = []
    for j, name in enumerate(prediction.classes, 1):
        mask = prediction.mask(j)
        if mask.any():
            area, box = int(mask.sum()), box_of(mask)
            regions.append({"class": name, "bbox": box, "area": area, "segmentation": encode_coco(mask)})
    line: dict[str, object] = {
        "height": height,
        "width": width,
        "scores": dict(zip(prediction.classes, (float(s) for s in prediction.scores), strict=True)),
        "regions": regions,
    }
    if prediction.unknown.any():
        line["unknown"] = encode_coco(prediction.unknown)
    if prediction.facts:
        line["facts"] = dict(prediction.facts)
    return line


def prediction_of(line: dict[str, object], classes: tuple[str, ...], where: str) -> Prediction:
    """Returns the prediction of a line."""
    size = size_field(line, "height", "width", where)
    scores = field(line, "scores", dict, where)
    numbers = {name: j for j, name in enumerate(classes, 1)}
    labels: Mask = np.zeros(size, dtype=np.uint8)
    for region in field(line, "regions", list, where):
        name = field(typed(region, dict, where), "class", str, where)
        if name not in numbers:
            raise DataError(
                f"{where} has a region of {name!r}; expected {list(classes)}: write the file again"
            )
        labels[decode_coco(field(region, "segmentation", dict, where), size, where) == 1] = numbers[name]
    if "unknown" in line:
        labels[decode_coco(field(line, "unknown", dict, where), size, where) == 1] = IGNORE
    try:
        return Prediction(
            name=field(line, "name", str, where),
            labels=labels,
            classes=classes,
            scores=tuple(number(scores.get(name), f"{where}: the score of {name!r}") for name in classes),
            facts=field(line, "facts", dict, where) if "facts" in line else {},
        )
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


class JsonlWriter(LinesWriter):
    """Appends a line for each image to one file (see :func:`line_of`), which can be read at any time."""

    def _header(self) -> dict[str, object]:
        return header(self.classes)

    def _line(self, prediction: Prediction) -> dict[str, object]:
        return line_of(prediction)


def read_jsonl(path: Path) -> Iterator[Prediction]:
    """Yields a file's predictions, of two of one image the last; a half written last line is left out."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a file of predictions: check the path")
    with path.open("rb") as file:
        first, places, _ = scan(file, path)
        if first is None or first.get("format") != _FORMAT:
            raise DataError(
                f"{path} does not begin with {_FORMAT!r}; expected a file of predictions: give one"
            )
        classes = tuple(typed(c, str, f"{path}: classes") for c in field(first, "classes", list, str(path)))
        for k, place in enumerate(places.values(), 1):
            file.seek(place)
            yield prediction_of(parse(file.readline(), path), classes, f"{path}, image {k}")
