"""All formats: a path is read by what it holds, and a writer is opened by the format's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fewseg.annotations.coco import CocoWriter, is_coco, iter_coco
from fewseg.annotations.json_values import load_json, shown
from fewseg.annotations.jsonl import JsonlWriter
from fewseg.annotations.label_studio import LabelStudioWriter, is_label_studio, iter_label_studio
from fewseg.annotations.labelme import LabelMeWriter, is_labelme, iter_labelme
from fewseg.annotations.mask_files import IndexPngWriter, ProbabilityPngWriter, iter_mask_folder
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import Format, LabelStudioNames, ReadOptions
from fewseg.annotations.values import AnnotatedImage, Items, Problem
from fewseg.annotations.writer import PredictionWriter
from fewseg.ops.parallel import summary
from fewseg.types import DataError

_JSON_READERS = ((is_labelme, iter_labelme), (is_coco, iter_coco), (is_label_studio, iter_label_studio))

_JSON_KINDS = (
    "COCO (images, annotations, categories), LabelMe (shapes) and Label Studio's JSON export (a list with "
    "data)"
)


def read_supports(path: Path | str, options: ReadOptions | None = None) -> list[AnnotatedImage]:
    """Reads annotated images; all must be usable."""
    items = list(iter_supports(path, options))
    found = [item for item in items if isinstance(item, AnnotatedImage)]
    wrong = [str(item.error) for item in items if isinstance(item, Problem)]
    if wrong:
        count = f"{len(wrong)} of {len(items)}"
        raise DataError(f"{path}: {count} annotated images cannot be used{summary(wrong)}")
    if not found:
        raise DataError(f"{path} holds no annotated image: annotate one, or give another path")
    return found


def iter_supports(path: Path | str, options: ReadOptions | None = None) -> Items:
    """Reads annotated images one by one; what is wrong with one of them does not lose the others."""
    path, options = Path(path), options or ReadOptions()
    options.check()
    if not path.exists():
        raise DataError(
            f"{path} does not exist; expected a folder of images and masks or a JSON file: check the path"
        )
    if path.is_dir():
        yield from _folder(path, options)
        return
    if path.suffix.lower() == ".jsonl":
        raise DataError(
            f"{path} has JSON lines, which are an output alone; expected {_JSON_KINDS}, or a folder of "
            "images and masks: give the masks of that run with their images, or write one of these formats"
        )
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start and not start.startswith((b"{", b"[")):
        raise DataError(
            f"{path} is no JSON file; expected {_JSON_KINDS}, or a folder of images and masks: give one"
        )
    value = load_json(path)
    finder = ImageFinder.beside(path, options.images)
    for recognises, read in _JSON_READERS:
        if recognises(value):
            yield from read(value, path, finder, options)
            return
    raise _unknown_format(value, path)


def _unknown_format(value: object, path: Path) -> DataError:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict) and "image_id" in first:
        return DataError(
            f"{path} is a list of COCO results, without images' names; expected the data set's form: give it"
        )
    if isinstance(first, dict) and "image" in first:
        return DataError(
            f"{path} looks like Label Studio's JSON-MIN; expected its JSON export: export it as JSON"
        )
    keys = f"an object with {sorted(value)[:6]}" if isinstance(value, dict) else shown(value)
    return DataError(
        f"{path} is of an unknown format ({keys}); expected {_JSON_KINDS}: export as one of them"
    )


def _folder(root: Path, options: ReadOptions) -> Items:
    """A folder with JSON files holds annotations in them; any other holds mask files."""
    files = sorted(f for f in root.iterdir() if f.suffix.lower() == ".json" and not f.name.startswith("."))
    if not files:
        if next(root.iterdir(), None) is None:
            raise DataError(f"{root} is empty; expected images and masks, or JSON files: give another folder")
        yield from iter_mask_folder(root, options)
        return
    if (root / "masks").is_dir():
        raise DataError(
            f"{root} holds masks/ and JSON files ({files[0].name}); expected one of both: give the JSON file"
        )
    if len(files) == 1:
        yield from iter_supports(files[0], options)
        return
    finder = ImageFinder.beside(root, options.images)
    for file in files:
        try:
            value = load_json(file)
            if not is_labelme(value):
                raise DataError(
                    f"{file} is not of LabelMe ({shown(value)}); expected several files of LabelMe, or one"
                )
        except DataError as error:
            yield Problem(str(file), error)
        else:
            yield from iter_labelme(value, file, finder, options)


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How predictions are written."""

    stems: Mapping[str, str] = field(default_factory=dict)  # see :func:`output_stems`
    images: Path | None = None  # the folder that LabelMe's relative paths lead to
    label_studio: LabelStudioNames = field(default_factory=LabelStudioNames)


FORMATS: Mapping[Format, Callable[[Path, tuple[str, ...], WriteOptions], PredictionWriter]] = {
    "png": lambda out, classes, o: IndexPngWriter(out / "masks", classes, o.stems),
    "probability": lambda out, classes, o: ProbabilityPngWriter(out / "probability", classes, o.stems),
    "coco": lambda out, classes, o: CocoWriter(out / "coco.json", classes),
    "coco-results": lambda out, classes, o: CocoWriter(out / "coco-results.json", classes, "results"),
    "labelme": lambda out, classes, o: LabelMeWriter(
        out / "labelme", classes, images=o.images, stems=o.stems
    ),
    "labelme-polygons": lambda out, classes, o: LabelMeWriter(
        out / "labelme", classes, "polygon", images=o.images, stems=o.stems
    ),
    "label-studio": lambda out, classes, o: LabelStudioWriter(
        out / "label-studio.json", classes, **vars(o.label_studio)
    ),
    "jsonl": lambda out, classes, o: JsonlWriter(out / "predictions.jsonl", classes),
}
"""Name -> opens its writer: (output folder, class names, options)."""
