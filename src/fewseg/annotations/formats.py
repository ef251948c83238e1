"""All formats: a path is read by what it holds, and a writer is opened by the format's name."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fewseg.annotations.coco import CocoResultsWriter, CocoWriter, is_coco, iter_coco
from fewseg.annotations.cvat_masks import CvatMaskWriter, is_cvat_masks, iter_cvat_masks
from fewseg.annotations.cvat_xml import is_cvat_folder, iter_cvat_folder, iter_cvat_xml
from fewseg.annotations.json_values import load_json, read_annotations, shown
from fewseg.annotations.label_studio import (
    LabelStudioWriter,
    is_json_min,
    is_label_studio,
    iter_json_min,
    iter_label_studio,
)
from fewseg.annotations.labelme import LabelMePolygonWriter, LabelMeWriter, is_labelme, iter_labelme
from fewseg.annotations.mask_files import IndexPngWriter, ProbabilityPngWriter, iter_mask_folder
from fewseg.annotations.names import ImageFinder
from fewseg.annotations.options import SUPPORT_FORMATS, ReadOptions
from fewseg.annotations.values import (
    AnnotatedImage,
    CompressedMasks,
    Items,
    OnlyIgnoredError,
    Problem,
    counted,
    warn_of_left_out,
)
from fewseg.annotations.via import is_via, iter_via
from fewseg.annotations.writer import LinesWriter, PredictionWriter
from fewseg.annotations.yolo import YoloWriter, is_yolo, iter_yolo
from fewseg.errors import first_line
from fewseg.ops.parallel import summary
from fewseg.types import DataError

logger = logging.getLogger(__name__)

_JSON_READERS = (
    (is_labelme, iter_labelme),
    (is_coco, iter_coco),
    (is_label_studio, iter_label_studio),
    (is_json_min, iter_json_min),
    (is_via, iter_via),
)

_FOLDER_READERS = (
    (is_yolo, iter_yolo),
    (is_cvat_masks, iter_cvat_masks),
    (is_cvat_folder, iter_cvat_folder),
)
"""Layouts of folders, recognised by what lies in them; any other folder holds JSON files or masks."""


_PLAIN = 50  # images whose masks are kept as they are


def read_supports(path: Path | str, options: ReadOptions | None = None) -> list[AnnotatedImage]:
    """Reads annotated images; all must be usable. Of thousands the masks are kept compressed."""
    supports: list[AnnotatedImage] = []
    wrong = []
    for item in iter_supports(path, options):
        if isinstance(item, Problem):
            wrong.append(str(item.error))
        elif len(supports) < _PLAIN:
            supports.append(item)
        else:
            supports.append(replace(item, masks=CompressedMasks(item.masks)))
    if wrong:
        count = f"{len(wrong)} of {len(wrong) + len(supports)}"
        raise DataError(f"{path}: {count} annotated images cannot be used{summary(wrong)}")
    if not supports:
        raise DataError(f"{path} holds no annotated image: annotate one, or give another path")
    return supports


def iter_supports(path: Path | str, options: ReadOptions | None = None) -> Items:
    """Reads annotated images one by one; what is wrong with one of them does not lose the others."""
    path, options = Path(path), options or ReadOptions()
    options.check()
    ignored: dict[str, list[str]] = defaultdict(list)
    assumed: Counter[str] = Counter()
    try:
        for item in _items(path, options):
            if isinstance(item, Problem) and isinstance(item.error, OnlyIgnoredError):
                ignored[str(item.error)].append(item.where)
                continue
            if isinstance(item, AnnotatedImage):
                assumed.update(item.assumed)
            yield item
    except _ODD_VALUES as error:
        raise DataError(
            f"{path} holds a value of a kind that its format does not have ({type(error).__name__}: "
            f"{first_line(error)}): correct it or export it again"
        ) from error
    for what, count in (+assumed).items():
        logger.warning("%s: %s", path, counted(count, what))
    for why, images in ignored.items():
        warn_of_left_out(path, images, why)


_ODD_VALUES = (TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What a list or an object leads to where a text or a number is expected and no reader looks."""


def _items(path: Path, options: ReadOptions) -> Items:
    if not path.exists():
        raise DataError(f"{path} does not exist; expected {SUPPORT_FORMATS}: check the path")
    if path.is_dir():
        yield from _folder(path, options)
        return
    if path.suffix.lower() in (".yaml", ".yml"):
        yield from iter_yolo(path.parent, options, path)
        return
    if path.suffix.lower() == ".xml":
        yield from iter_cvat_xml(path, options)
        return
    if path.suffix.lower() == ".jsonl":
        raise DataError(
            f"{path} has JSON lines, which are an output alone; expected {SUPPORT_FORMATS}: "
            "give the masks of that run with their images, or write one of these formats"
        )
    start = read_annotations(path, 64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start and not start.startswith((b"{", b"[")):
        raise DataError(f"{path} is no JSON file; expected {SUPPORT_FORMATS}: give one")
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
    keys = f"an object with {sorted(value)[:6]}" if isinstance(value, dict) else shown(value)
    return DataError(
        f"{path} is of an unknown format ({keys}); expected {SUPPORT_FORMATS}: export as one of them"
    )


def _folder(root: Path, options: ReadOptions) -> Items:
    """A folder of no other layout that has JSON files has annotations in them; else it has mask files.

    CVAT's COCO has its JSON files in ``annotations``.
    """
    inner = root / "annotations"
    json = _json_files(root)
    if not json and inner.is_dir() and not (root / "masks").is_dir():
        json = _json_files(inner)
    read = next((read for recognises, read in _FOLDER_READERS if recognises(root)), None)
    if (read or json) and (root / "masks").is_dir():
        other = "annotations of a different format" if read else f"JSON files ({json[0].name})"
        raise DataError(
            f"{root} holds masks/ and {other}; expected one of both: give the JSON file, or move one away"
        )
    if read is not None:
        yield from read(root, options)
    elif len(json) > 1:
        yield from _labelme_folder(json[0].parent, json, options)
    elif json:
        yield from _items(json[0], options)
    elif next(root.iterdir(), None) is None:
        raise DataError(f"{root} is empty; expected {SUPPORT_FORMATS}: give another folder")
    else:
        yield from iter_mask_folder(root, options)


def _json_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() == ".json" and not f.name.startswith("."))


def _labelme_folder(root: Path, files: Sequence[Path], options: ReadOptions) -> Items:
    finder = ImageFinder.beside(root, options.images)
    for file in files:
        try:
            value = load_json(file)
            if not is_labelme(value):
                raise DataError(
                    f"{file} must be of LabelMe, as one of several, got {shown(value)}: move it away"
                )
        except DataError as error:
            yield Problem(str(file), error)
        else:
            yield from iter_labelme(value, file, finder, options)


FORMATS: Mapping[str, type[PredictionWriter]] = {
    "png": IndexPngWriter,
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "labelme": LabelMeWriter,
    "labelme-polygons": LabelMePolygonWriter,
    "label-studio": LabelStudioWriter,
    "cvat": CvatMaskWriter,
    "coco-results": CocoResultsWriter,
    "probability": ProbabilityPngWriter,
    "jsonl": LinesWriter,
}
"""Name, of those in :data:`.options.TITLES`, -> writer."""
