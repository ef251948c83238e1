"""Predictions as COCO's JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from fewseg.inference.formats.coco_rle import box_of, decode_coco
from fewseg.inference.formats.journalled import JournalledWriter, json_list, json_text
from fewseg.inference.formats.values import Prediction


def image_id(name: str) -> int:
    """A COCO image id made of a name: positive, of 48 bits, the same in every file and run.

    Of a million names two have the same id with a probability below 0.2 %.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) or 1


class CocoWriter(JournalledWriter):
    """Writes a COCO file: a data set with scores in its annotations, or a list of results.

    An annotation is all of a class on an image, as compressed RLE. Image ids are those given, or made of the
    image's name (:func:`image_id`), so that a data set and a list of results agree however they came about;
    results have the file's name too. Category ids are 1 .. N by the order of the classes, or those given.
    Pixels of 255 are a crowd of each class, which COCO leaves out of every count; a list of results has none.

    Args:
        path: the file.
        classes: the names.
        form: ``dataset`` has images, annotations and categories; ``results`` is the list that
            ``COCO.loadRes`` takes.
        image_ids: image name -> id, of the data set that results belong to.
        category_ids: class -> id, likewise.

    Raises:
        ValueError: a class has no id.
        DataError: the journal is there with other classes.
    """

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...],
        form: Literal["dataset", "results"] = "dataset",
        image_ids: Mapping[str, int] | None = None,
        category_ids: Mapping[str, int] | None = None,
    ) -> None:
        self._category_ids = category_ids or {name: j for j, name in enumerate(classes, 1)}
        missing = [name for name in classes if name not in self._category_ids]
        if missing:
            raise ValueError(f"category_ids lack {missing}; accepted is an id for each class: add them")
        super().__init__(path, classes)
        self._form, self._image_ids = form, image_ids

    def _write(self, prediction: Prediction) -> None:
        if self._image_ids is not None and prediction.name not in self._image_ids:
            raise ValueError(f"image_ids lack {prediction.name!r}; accepted is an id for each image: add it")
        super()._write(prediction)

    def _pieces(self) -> Iterator[str]:
        if self._form == "results":
            yield from json_list(self._annotations(results=True))
            return
        categories = [{"id": self._category_ids[name], "name": name} for name in self.classes]
        yield f'{{"info":{json_text({"description": "fewseg predictions"})}'
        yield f',"categories":{json_text(categories)},"images":'
        yield from json_list(
            {"id": id, "file_name": line["name"], "height": line["height"], "width": line["width"]}
            for id, line in self._lines()
        )
        yield ',"annotations":'
        yield from json_list(self._annotations(results=False))
        yield "}"

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line in self.journal:
            name = line["name"]
            yield image_id(name) if self._image_ids is None else self._image_ids[name], line

    def _annotations(self, results: bool) -> Iterator[dict[str, object]]:
        count = 0
        for id, line in self._lines():
            for region in line["regions"]:
                count += 1
                shared = {
                    "image_id": id,
                    "category_id": self._category_ids[region["class"]],
                    "segmentation": region["segmentation"],
                    "bbox": region["bbox"],
                    "score": line["scores"][region["class"]],
                }
                yield (
                    {"file_name": line["name"], **shared}
                    if results
                    else {"id": count, "iscrowd": 0, "area": region["area"], **shared}
                )
            if results or "unknown" not in line:
                continue
            unknown = decode_coco(line["unknown"], (line["height"], line["width"]), line["name"])
            for name in self.classes:
                count += 1
                yield {
                    "id": count,
                    "iscrowd": 1,
                    "area": int(unknown.sum()),
                    "image_id": id,
                    "category_id": self._category_ids[name],
                    "segmentation": line["unknown"],
                    "bbox": box_of(unknown),
                }
