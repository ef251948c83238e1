"""The masks of a page as one file, in any of the formats of ``fewseg label``."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from starlette.responses import Response

from fewseg.annotations.formats import FORMATS
from fewseg.annotations.names import file_safe, output_stems
from fewseg.annotations.values import Instance, Prediction
from fewseg.annotations.writer import WriteOptions
from fewseg.inference.instances import instances_of, numbered
from fewseg.inference.options import MIN_AREA, Split
from fewseg.inference.outputs import LINES, SUMMARY, Outputs, write_summary
from fewseg.inference.segmentation import Segmentation
from fewseg.ops.files import temporary_folder
from fewseg.serve.limits import RequestError
from fewseg.serve.pages import PageState

EXAMPLES = "examples.safetensors"
TABLE = "table"
"""The format that is no mask: a row an image and class with number and area of its instances."""


def export(
    page: PageState,
    form: str,
    threshold: float = 0.5,
    *,
    settled: bool = False,
    instances: Split | None = None,
) -> Response:
    """Writes the masks of all images, predicted where nobody has settled them, or of settled ones alone.

    With ``instances``, formats that can hold single things hold them in place of whole classes.
    """
    if form not in (*FORMATS, TABLE):
        raise ValueError(f"the format must be one of {', '.join((*FORMATS, TABLE))}, got {form!r}")
    if form == TABLE:
        instances = instances or "components"
    classes, images = page.classes, page.images
    if not classes or all(image.role == "open" for image in images):
        raise RequestError(409, "there is no mask yet: annotate an image of a class first")
    if settled:
        images = tuple(image for image in images if image.role != "open")
    numbers = {image.name: f"{k:06}" for k, image in enumerate(images)}  # users' names are no paths
    with temporary_folder() as folder:
        formats = [] if form == TABLE else [form]
        outputs = Outputs(folder, classes, formats, WriteOptions(stems=numbers))
        try:
            planes = 1 + len(classes) / 2 if outputs.probability else 1
            for image in images:
                answer = page.segmentation(image.id, threshold)
                with page.claim(image, planes):
                    outputs.write(_shown(page, image.id, answer, outputs.probability, instances))
        finally:
            outputs.close()
        if form == TABLE:
            write_summary(folder)
            return attachment("instances.csv", "text/csv", (folder / SUMMARY).read_bytes())
        for file in filter(Path.is_file, sorted(folder.glob("[!.]*"))):  # of a format that is one file
            if (file.name == LINES) == (form == "jsonl"):
                media_type = "application/x-ndjson" if form == "jsonl" else "application/json"
                return attachment(file.name, media_type, file.read_bytes())
        stems = output_stems(numbers)
        names = {number: file_safe(stems[name]) for name, number in numbers.items()}
        return attachment(f"{form}.zip", "application/zip", _zip(folder, names))


def examples(page: PageState) -> Response:
    """The page's examples as the file of a support set, which ``fewseg label`` takes."""
    with temporary_folder() as folder:
        path = folder / EXAMPLES
        page.save_supports(path)
        return attachment(EXAMPLES, "application/octet-stream", path.read_bytes())


def attachment(name: str, media_type: str, content: bytes) -> Response:
    """A file to save."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


def _shown(
    page: PageState, id: str, answer: Segmentation | None, probability: bool, split: Split | None
) -> Prediction:
    """An image's mask as writers take it, with the page's classes.

    A class that no support shows has the probability 0; a settled mask has the score 1.
    """
    image, classes = page.image(id), page.classes
    settled = image.mask
    labels, maps, facts = np.zeros(image.size, np.uint8), None, dict[str, object]()
    things: tuple[Instance, ...] | None = () if split else None
    scores, planes = dict[str, float](), dict[str, np.ndarray]()
    if answer is not None:
        predicted = answer.prediction(image.name, probability)
        things = answer.instances(split) if split and settled is None else things
        labels, facts = page.renumbered(answer), dict(predicted.facts)
        scores = dict(zip(predicted.classes, predicted.scores, strict=True))
        if predicted.probability is not None:
            planes = dict(zip(predicted.classes, predicted.probability, strict=True))
    if probability:
        zeros = np.zeros(image.size, np.float32)
        maps = np.stack([planes.get(name, zeros) for name in classes])
    if settled is not None:
        labels, scores, facts = settled, dict.fromkeys(classes, 1.0), {"settled": image.role}
        if split:
            things = instances_of(*numbered(settled, len(classes), split, MIN_AREA), classes)
    return Prediction(
        name=image.name,
        labels=labels,
        classes=classes,
        scores=tuple(scores.get(name, 0.0) for name in classes),
        probability=maps,
        facts=facts,
        settled=settled is not None,
        instances=things,
    )


def _zip(folder: Path, names: dict[str, str]) -> bytes:
    """All files below a folder but the JSON lines; a number that begins a name becomes the image's name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.name == LINES:
                continue
            number = path.name.partition(".")[0]
            name = names[number] + path.name[len(number) :] if number in names else path.name
            name = f"{path.parent.relative_to(folder).as_posix()}/{name}"
            if "ImageSets" in path.parts:  # a list of such numbers
                archive.writestr(name, "".join(f"{names[n]}\n" for n in path.read_text().split()))
            else:
                archive.write(path, name)
    return content.getvalue()
