"""The masks of a workspace as one file in any of the formats of ``fewseg label``."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from fewseg.annotations import Prediction, output_stems
from fewseg.annotations.options import Format
from fewseg.annotations.values import file_safe
from fewseg.inference.outputs import FORMATS, LINES, Outputs
from fewseg.serve.limits import Refused
from fewseg.serve.workspace import Workspace

_SINGLE = {
    "coco": "coco.json",
    "coco-results": "coco-results.json",
    "label-studio": "label-studio.json",
    "jsonl": LINES,
}


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file for the user.

    Attributes:
        name: what to call it.
        media_type: of HTTP.
        content: its bytes.
    """

    name: str
    media_type: str
    content: bytes


def export(space: Workspace, form: str, threshold: float = 0.5, *, settled: bool = False) -> Download:
    """Writes the masks of all images: settled ones as they are, the others as predicted.

    The writers work in a temporary folder, on names that are numbers: a user's file name appears in the
    result alone.

    Args:
        space: the workspace.
        form: one of :data:`~fewseg.inference.outputs.FORMATS`.
        threshold: of predictions.
        settled: leave out images whose mask is not settled.

    Returns:
        A JSON file, or a ZIP of the files of all images.

    Raises:
        Refused: 409, there is nothing to write.
        ValueError: the format is unknown or the threshold out of range.
        OSError: the disk is full.
    """
    if form not in FORMATS:
        raise ValueError(f"the format is {form!r}; accepted are {', '.join(FORMATS)}")
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}; accepted is a number between 0 and 1")
    classes = space.classes
    images = [i for i in space.images if i.role != "open" or not settled]
    if not images or not classes or not any(image.role != "open" for image in space.images):
        raise Refused(409, "there is no mask yet: annotate an image of a class first")
    numbers = {image.name: f"{k:06}" for k, image in enumerate(images)}
    with tempfile.TemporaryDirectory(prefix="fewseg-") as folder:
        outputs = Outputs(Path(folder), classes, [cast(Format, form)], numbers)
        try:
            for image in images:
                outputs.write(prediction_of(space, image.id, threshold, probability=outputs.probability))
        finally:
            outputs.close()
        if form in _SINGLE:
            kind = "application/x-ndjson" if form == "jsonl" else "application/json"
            content = (Path(folder) / _SINGLE[form]).read_bytes()
            return Download(name=_SINGLE[form], media_type=kind, content=content)
        stems = output_stems(numbers)
        named = {number: file_safe(stems[name]) for name, number in numbers.items()}
        return Download(name=f"{form}.zip", media_type="application/zip", content=_zip(Path(folder), named))


def prediction_of(space: Workspace, id: str, threshold: float, *, probability: bool) -> Prediction:
    """Returns an image's mask as writers take it, with the workspace's classes.

    A class that no support shows has the probability 0; a settled mask has the score 1.

    Raises:
        Refused: 404, there is no such image.
        ValueError: the threshold is not between 0 and 1.
    """
    image, classes = space.image(id), space.classes
    found = space.segmentation(id, threshold)
    settled = image.mask
    if found is None:
        size = image.encoded.size
        labels = np.zeros(size, dtype=np.uint8) if settled is None else settled
        empty = np.zeros((len(classes), *size), dtype=np.float32) if probability else None
        made = Prediction(
            name=image.name, labels=labels, classes=classes, scores=(0.0,) * len(classes), probability=empty
        )
    else:
        own = found.prediction(image.name, probability)
        places = [found.classes.index(name) if name in found.classes else None for name in classes]
        maps = None
        if own.probability is not None:
            none = np.zeros(image.encoded.size, dtype=np.float32)
            maps = np.stack([none if k is None else own.probability[k] for k in places])
        made = Prediction(
            name=image.name,
            labels=space.numbered(found) if settled is None else settled,
            classes=classes,
            scores=tuple(0.0 if k is None else own.scores[k] for k in places),
            probability=maps,
            facts=own.facts,
        )
    if settled is None:
        return made
    return replace(made, scores=(1.0,) * len(classes), facts={"settled": image.role}, settled=True)


def _zip(folder: Path, named: dict[str, str]) -> bytes:
    """All files below a folder but the lines; the number at the front of a name becomes the image's name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.name == LINES:
                continue
            number = path.name.partition(".")[0]
            name = named[number] + path.name[len(number) :] if number in named else path.name
            archive.write(path, f"{path.parent.relative_to(folder).as_posix()}/{name}")
    return content.getvalue()
