"""JSON lines: one file of predictions, a line an image, that can be read while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewseg.annotations.json_values import field, number, size_field, typed
from fewseg.annotations.rle import decode_coco
from fewseg.annotations.values import Mask, Prediction
from fewseg.annotations.writer import LINES_FORMAT, parse, scan
from fewseg.types import IGNORE, DataError

MOST_PIXELS = 2**30  # more than any image that is labelled


def prediction_of(line: dict[str, object], classes: tuple[str, ...], where: str) -> Prediction:
    """Returns the prediction of a line."""
    size = size_field(line, "height", "width", where)
    if size[0] * size[1] > MOST_PIXELS:
        raise DataError(f"{where} is of {size[1]} x {size[0]} pixels: it is broken; write the file again")
    scores = field(line, "scores", dict, where)
    numbers = {name: j for j, name in enumerate(classes, 1)}
    labels: Mask = np.zeros(size, dtype=np.uint8)
    for region in field(line, "regions", list, where):
        name = field(typed(region, dict, where), "class", str, where)
        if name not in numbers:
            raise DataError(f"{where}: a region must be of {list(classes)}, got {name!r}: write it again")
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


def read_jsonl(path: Path) -> Iterator[Prediction]:
    """Yields a file's predictions, of two of one image the last; a half written last line is left out."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a file of predictions: check the path")
    with path.open("rb") as file:
        first, places, _ = scan(file, path)
        if first is None or first.get("format") != LINES_FORMAT:
            raise DataError(f"{path} must begin with {LINES_FORMAT!r}: give a file of predictions")
        classes = tuple(typed(c, str, f"{path}: classes") for c in field(first, "classes", list, str(path)))
        for k, place in enumerate(places.values(), 1):
            file.seek(place)
            yield prediction_of(parse(file.readline(), path), classes, f"{path}, image {k}")
