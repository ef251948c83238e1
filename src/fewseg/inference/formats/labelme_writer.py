"""Predictions as LabelMe's JSON."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from fewseg.inference.formats.coco_rle import box_of
from fewseg.inference.formats.journalled import json_text
from fewseg.inference.formats.outlines import outlines
from fewseg.inference.formats.png import png_bytes
from fewseg.inference.formats.values import Mask, Prediction
from fewseg.inference.formats.writer import OutputNames, PredictionWriter
from fewseg.ops.files import atomic_write_text

_UNKNOWN = "__ignore__"


class LabelMeWriter(PredictionWriter):
    """Writes ``<image>.json``, one LabelMe file an image.

    ``mask`` shapes give the mask back to the pixel. ``polygon`` shapes can be edited in LabelMe; read by this
    package their IoU with the mask is 0.95 or more for a piece above 400 pixels (with ``tolerance`` 0 they
    are exact too). LabelMe's own export draws polygons a little larger, with their rim. Pixels of 255
    are shapes labelled ``__ignore__``, as LabelMe's own conversions have it.

    Args:
        folder: the output folder.
        classes: the names.
        shapes: ``mask`` or ``polygon``.
        tolerance: of polygons, pixels (see :func:`outlines.outlines`).
        images: the folder of images, to which ``imagePath`` leads from the file; without it that is the
            image's name.
        stems: see :class:`~fewseg.inference.formats.writer.OutputNames`.

    Raises:
        ValueError: the names or the kind of shapes are not accepted.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        shapes: Literal["mask", "polygon"] = "mask",
        tolerance: float = 0.75,
        images: Path | None = None,
        stems: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(classes)
        if shapes not in ("mask", "polygon"):
            raise ValueError(f"shapes are {shapes!r}; accepted are 'mask' and 'polygon'")
        self._names = OutputNames(folder, stems)
        self._shapes, self._tolerance, self._images = shapes, tolerance, images

    def _write(self, prediction: Prediction) -> None:
        path = self._names.file(prediction.name, ".json")
        image = prediction.name
        if self._images is not None:
            image = Path(os.path.relpath(self._images / prediction.name, path.parent)).as_posix()
        shapes: list[dict[str, object]] = []
        layers = [(name, prediction.mask(j)) for j, name in enumerate(prediction.classes, 1)]
        said = [f"score {score:.4f}" for score in prediction.scores]
        for (name, mask), text in zip([*layers, (_UNKNOWN, prediction.unknown)], [*said, ""], strict=True):
            for shape in self._drawn(mask):
                shapes.append({"label": name, **shape, "group_id": None, "description": text, "flags": {}})
        height, width = prediction.size
        value = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
            "fewseg": {"scores": dict(zip(prediction.classes, map(float, prediction.scores), strict=True))},
        }
        atomic_write_text(path, json_text(value))

    def _drawn(self, mask: Mask) -> Iterator[dict[str, object]]:
        if not mask.any():
            return
        if self._shapes == "polygon":
            for path in outlines(mask, self._tolerance):
                yield {"shape_type": "polygon", "points": [[x, y] for x, y in path], "mask": None}
            return
        x, y, width, height = box_of(mask)
        piece = png_bytes(mask[y : y + height, x : x + width])
        corners = [[x, y], [x + width - 1, y + height - 1]]
        yield {"shape_type": "mask", "points": corners, "mask": base64.b64encode(piece).decode("ascii")}

    def __contains__(self, name: object) -> bool:
        return self._names.file(str(name), ".json").is_file()
