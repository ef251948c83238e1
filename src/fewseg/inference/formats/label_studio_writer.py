"""Predictions as Label Studio's JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from fewseg.inference.formats.brush_rle import encode_brush
from fewseg.inference.formats.journalled import JournalledWriter, json_list
from fewseg.inference.formats.outlines import outlines
from fewseg.inference.formats.values import Mask, Prediction

Tool = Literal["brushlabels", "polygonlabels"]


class LabelStudioWriter(JournalledWriter):
    """Writes Label Studio tasks with predictions: a brush region with its RLE and score for each class.

    Of an image that a person has settled the regions are an annotation, and the task is done.

    Pixels of 255 are in no region: Label Studio has no way to say that something is not known.

    Args:
        path: the file, for Label Studio's import.
        classes: the names, which the labelling configuration must have.
        image_url: the task's image, where ``{name}`` becomes the image's quoted name, for instance
            ``/data/local-files/?d={name}``.
        from_name: the name of the BrushLabels tag in the labelling configuration.
        to_name: the name of its Image tag.
        model_version: what Label Studio calls the predictions.

    Raises:
        DataError: the journal is there with other classes or names.
    """

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...],
        image_url: str = "/data/local-files/?d={name}",
        from_name: str = "tag",
        to_name: str = "image",
        model_version: str = "fewseg",
    ) -> None:
        self._url, self._tags, self._version = image_url, (from_name, to_name), model_version
        super().__init__(path, classes)

    def _header(self) -> dict[str, object]:
        options = [self._url, *self._tags, self._version]
        return {"format": "fewseg-label-studio-1", "classes": list(self.classes), "options": options}

    def _line(self, prediction: Prediction) -> dict[str, object]:
        url = self._url.replace("{name}", quote(prediction.name))
        made = label_studio_prediction(prediction, *self._tags, self._version)
        said = {"annotations": [_annotation(made)]} if prediction.settled else {"predictions": [made]}
        return {"task": {"data": {"image": url}, **said}}

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
    """Returns a prediction as Label Studio's object, for an import or an ML backend's answer.

    Its score is that of the least certain class that occurs, or of all classes where none does, so that
    sorting tasks by score brings up what to look at first.

    Args:
        prediction: of an image.
        from_name: the name of the labels' tag in the labelling configuration.
        to_name: the name of its Image tag.
        model_version: what Label Studio calls the prediction.
        tool: what the labels' tag is: a brush, whose region is exact, or a polygon for each piece.
    """
    height, width = prediction.size
    result, scores = [], []
    for j, (name, score) in enumerate(zip(prediction.classes, prediction.scores, strict=True), 1):
        mask = prediction.mask(j)
        if not mask.any():
            continue
        scores.append(float(score))
        for k, value in enumerate(_values(mask, tool)):
            key = f"{prediction.name}\0{name}" + (f"\0{k}" if k else "")
            result.append(
                {
                    "id": hashlib.sha256(key.encode()).hexdigest()[:10],
                    "type": tool,
                    "from_name": from_name,
                    "to_name": to_name,
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "origin": "prediction",
                    "score": float(score),
                    "value": {**value, tool: [name]},
                }
            )
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
