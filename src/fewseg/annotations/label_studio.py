"""Label Studio's JSON export: one file, or one value, for a list of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from fewseg.annotations.image_files import IMAGE_SUFFIXES, check_annotated_size, image_size
from fewseg.annotations.json_values import field, number, points_of, shown, size_field, typed
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.rle import decode_brush, encode_brush
from fewseg.annotations.shapes import Canvas, Kind, Region, ellipse, outlines, polygon, rectangle, stroke
from fewseg.annotations.values import Items, Mask, Prediction, Problem
from fewseg.annotations.writer import JournalledWriter, json_list
from fewseg.types import DataError

Task = Mapping[str, Any]
_SIDES = ("original_height", "original_width")
_CHANGED = ("updated_at", "created_at")


def is_label_studio(value: object) -> bool:
    """Whether a JSON value is a list of Label Studio tasks, or one task."""
    tasks = value if isinstance(value, list) else [value]
    return bool(tasks) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    )


def iter_label_studio(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> Items:
    """Yields an export's images; a task without an annotation is left out, one without a region negative."""
    tasks: Sequence[Task] = value if isinstance(value, list) else [value]
    for k, task in enumerate(tasks):
        where = f"{path}, task {shown(task.get('id', k))}"
        try:
            lists = [task.get("annotations", task.get("completions"))]
            lists += [task.get("predictions")] if options.predictions else []
            chosen = (chosen_annotation(annotations, where) for annotations in lists)
            annotation = next((a for a in chosen if a is not None), None)
            if annotation is not None:
                image = finder.find(_image_name(task["data"], where), where)
                size = image_size(image, options.max_pixels)
                canvas = drawn(field(annotation, "result", list, where), size, where, options)
                yield canvas.annotated(image)
        except DataError as error:
            yield Problem(where, error)


def is_json_min(value: object) -> bool:
    """Whether a JSON value is Label Studio's JSON-MIN: a list of annotations with their task's data."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(row, dict)
            and not isinstance(row.get("data"), dict)
            and {"image", "annotation_id"} & set(row)
            for row in value
        )
    )


def iter_json_min(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> Items:
    """Yields the images of JSON-MIN; of several annotations of one task the latest counts."""
    tasks: dict[object, dict[str, Any]] = {}
    for k, row in enumerate(value):
        id = row.get("id", f"entry {k}")
        texts = {key: v for key, v in row.items() if isinstance(v, str) and key not in _CHANGED}
        result = [
            {"id": f"{tag} {n}", "value": v, **{side: v[side] for side in _SIDES if side in v}}
            for tag, values in row.items()
            if isinstance(values, list)
            for n, v in enumerate(values)
            if isinstance(v, dict)
        ]
        task = tasks.setdefault(str(id), {"id": id, "data": texts, "annotations": []})
        task["annotations"].append({"result": result, **{key: row[key] for key in _CHANGED if key in row}})
    yield from iter_label_studio(list(tasks.values()), path, finder, options)


def chosen_annotation(given: object, where: str) -> Mapping[str, Any] | None:
    """Returns the annotation of a task that counts: of the ground truths, else of all, the latest."""
    annotations = typed(given if given is not None else [], list, f"{where}: annotations")
    valid = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    if annotations and not valid and not all(isinstance(a, dict) for a in annotations):
        raise DataError(f"{where}: annotations must be objects, got {shown(annotations)}: export as JSON")
    best = [a for a in valid if a.get("ground_truth")] or valid
    if not best:
        return None
    return max(enumerate(best), key=lambda placed: (changed_at(placed[1]), placed[0]))[1]


def changed_at(annotation: Mapping[str, Any]) -> float:
    """Returns when an annotation was last changed, in seconds since 1970; 0 where that is unknown."""
    time = annotation.get("updated_at") or annotation.get("created_at")
    try:
        return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


def drawn(result: Sequence[Any], size: tuple[int, int], where: str, options: ReadOptions) -> Canvas:
    """Draws the regions of an annotation."""
    canvas = Canvas(size)
    items = [typed(item, dict, f"{where}, region {k}") for k, item in enumerate(result)]
    labelled = {str(item.get("id")) for item in items if labels_of(item)}
    for k, item in enumerate(items):
        place = f"{where}, region {shown(item.get('id', k))}"
        value = item.get("value")
        if not isinstance(value, dict) or not _is_shape(value):
            continue  # choices, texts, relations: not about pixels
        labels = labels_of(item)
        if not labels:
            if str(item.get("id")) in labelled:
                continue  # a region and its label, as two entries of one id: the one with the label counts
            raise DataError(f"{place} must have a label, got none: label it in Label Studio")
        check_annotated_size(place, size, size_field(item, "original_height", "original_width", place))
        if item.get("image_rotation"):
            raise DataError(
                f"{place}: image_rotation must be 0, got {shown(item['image_rotation'])}: turn the file"
            )
        region, kind = _region(value, size, options, place)
        for label in labels:
            canvas.add(label, region, kind)
    return canvas


def _image_name(data: Mapping[str, Any], where: str) -> str:
    texts = {key: v for key, v in data.items() if isinstance(v, str)}
    if "image" in texts:
        return texts["image"]
    likely = [
        v
        for v in texts.values()
        if PurePosixPath(v.split("?")[0]).suffix.lower() in IMAGE_SUFFIXES or "?d=" in v
    ]
    if len(likely) != 1:
        raise DataError(
            f"{where}: its data must have 'image', or one value that names an image file, got "
            f"{sorted(data)[:8]}: export it again"
        )
    return likely[0]


def labels_of(item: Mapping[str, Any]) -> list[str]:
    """Returns the labels of a region, of whatever tool; none where it is broken."""
    value = item.get("value")
    if not isinstance(value, dict):
        return []
    keys = sorted(k for k in value if k.endswith("labels"))
    labels = [label for key in keys if isinstance(value[key], list) for label in value[key]]
    return list(dict.fromkeys(label for label in labels if isinstance(label, str) and label))


def _is_shape(value: Mapping[str, Any]) -> bool:
    return "rle" in value or "points" in value or ("x" in value and "y" in value)


def _region(
    value: Mapping[str, Any], size: tuple[int, int], options: ReadOptions, where: str
) -> tuple[Region, Kind]:
    """Returns a region's pixels, and what it is."""
    if "rle" in value:
        return decode_brush(field(value, "rle", list, where), size, where).astype(np.bool_), "region"
    tall, wide = size[0] / 100, size[1] / 100
    if "points" in value:
        points = points_of(value["points"], where)
        if len(points) < 3:
            raise DataError(
                f"{where}: a polygon must have 3 points or more, got {len(points)}: draw it again"
            )
        return polygon([(x * wide, y * tall) for x, y in points], size), "region"

    def read(key: str) -> float:
        return number(value[key], f"{where}: {key!r}")

    x, y = read("x") * wide, read("y") * tall
    turn = read("rotation") if value.get("rotation") is not None else 0.0
    if "radiusX" in value and "radiusY" in value:
        return ellipse(x, y, read("radiusX") * wide, read("radiusY") * tall, size, turn), "region"
    if "width" in value and "height" in value:
        return rectangle(x, y, read("width") * wide, read("height") * tall, size, turn), "box"
    return stroke([(x, y)], options.stroke, size), "scribble"


Tool = Literal["brushlabels", "polygonlabels"]


class LabelStudioWriter(JournalledWriter):
    """Writes tasks with predictions, or with an annotation where a person has settled the image."""

    file = "label-studio.json"

    def _header(self) -> dict[str, object]:
        named = [*vars(self.options.label_studio).values(), "fewseg"]
        return {"format": "fewseg-label-studio-1", "classes": list(self.classes), "options": named}

    def _line(self, prediction: Prediction) -> dict[str, object]:
        names = self.options.label_studio
        url = names.image_url.replace("{name}", quote(prediction.name))
        content = label_studio_prediction(prediction, names.from_name, names.to_name)
        answer = {"annotations": [_annotation(content)]} if prediction.settled else {"predictions": [content]}
        return {"task": {"data": {"image": url}, **answer}}

    def _pieces(self) -> Iterator[str]:
        yield from json_list(line["task"] for line in self.journal)


def _annotation(prediction: dict[str, Any]) -> dict[str, object]:
    """What a prediction is once a person has settled it."""
    shared = [{k: v for k, v in region.items() if k != "score"} for region in prediction["result"]]
    return {"result": [{**region, "origin": "manual"} for region in shared]}


def label_studio_prediction(
    prediction: Prediction,
    from_name: str = "tag",
    to_name: str = "image",
    model_version: str = "fewseg",
    tool: Tool = "brushlabels",
) -> dict[str, Any]:
    """Returns a prediction as Label Studio's object; its score is the least of what it shows."""
    height, width = prediction.size
    result, scores = [], []
    for n, thing in enumerate(prediction.things()):
        scores.append(thing.score)
        suffix = f"\0instance {n}" if prediction.instances is not None else ""
        for k, value in enumerate(_values(thing.mask(prediction.size), tool)):
            key = f"{prediction.name}\0{thing.class_name}{suffix}" + (f"\0{k}" if k else "")
            region: dict[str, object] = {"id": hashlib.sha256(key.encode()).hexdigest()[:10], "type": tool}
            region |= {"from_name": from_name, "to_name": to_name}
            region |= {"original_width": width, "original_height": height, "image_rotation": 0}
            region |= {"origin": "prediction", "score": thing.score}
            region |= {"value": {**value, tool: [thing.class_name]}}
            result.append(region)
    least = min(scores or [float(s) for s in prediction.scores])
    return {"model_version": model_version, "score": least, "result": result}


def _values(mask: Mask, tool: Tool) -> Iterator[dict[str, object]]:
    """A mask as the values of Label Studio's regions; polygons in percent of the image's sides."""
    if tool == "brushlabels":
        yield {"format": "rle", "rle": encode_brush(mask)}
        return
    height, width = mask.shape
    for path in outlines(mask):
        yield {"points": [[100 * x / width, 100 * y / height] for x, y in path], "closed": True}
