"""Reading annotated images, whatever format they come in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewseg.annotations.coco import is_coco, iter_coco
from fewseg.annotations.label_studio import is_label_studio, iter_label_studio
from fewseg.annotations.labelme import is_labelme, read_labelme
from fewseg.annotations.mask_files import iter_mask_folder
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.values import AnnotatedImage, ImageFinder, Problem, load_json, shown
from fewseg.ops.parallel import summary
from fewseg.types import DataError

_JSON_KINDS = (
    "COCO (images, annotations, categories), LabelMe (shapes) and Label Studio's JSON export (a list with "
    "data)"
)


def read_supports(path: Path | str, options: ReadOptions | None = None) -> list[AnnotatedImage]:
    """Reads annotated images; all must be usable.

    Args:
        path: a JSON file (COCO, LabelMe, Label Studio) or a folder (LabelMe's files, or images and masks: see
            :mod:`~fewseg.annotations.mask_files`), told apart by content.
        options: how to read; the defaults where None.

    Returns:
        One value an image, in the file's order.

    Raises:
        DataError: the path is none of these, an image cannot be used (the message has a line for each), or
            there is no annotated image at all.
    """
    found: list[AnnotatedImage] = []
    wrong: list[str] = []
    for item in iter_supports(path, options):
        if isinstance(item, Problem):
            wrong.append(str(item.error))
        else:
            found.append(item)
    if wrong:
        raise DataError(
            f"{path}: {len(wrong)} of {len(wrong) + len(found)} annotated images cannot be "
            f"used{summary(wrong)}"
        )
    if not found:
        raise DataError(f"{path} holds no annotated image: annotate one, or give another path")
    return found


def iter_supports(path: Path | str, options: ReadOptions | None = None) -> Iterator[AnnotatedImage | Problem]:
    """Reads annotated images one by one; what is wrong with one of them does not lose the others.

    Args:
        path: as for :func:`read_supports`.
        options: how to read; the defaults where None.

    Yields:
        A result or a problem for each image.

    Raises:
        DataError: on the first step, when the whole path cannot be read as any format.
    """
    path, options = Path(path), options or ReadOptions()
    options.check()
    if not path.exists():
        raise DataError(
            f"{path} does not exist; accepted are a folder of images and masks or a JSON file: check the path"
        )
    if path.is_dir():
        yield from _folder(path, options)
        return
    if path.suffix.lower() == ".jsonl":
        raise DataError(
            f"{path} is of JSON lines, which are an output alone; accepted are {_JSON_KINDS}, or a folder of "
            "images and masks: give the masks of that run with their images, or write one of these formats"
        )
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start and not start.startswith((b"{", b"[")):
        raise DataError(
            f"{path} is no JSON file; accepted are {_JSON_KINDS}, or a folder of images and masks: give one"
        )
    yield from _json(load_json(path), path, options)


def _json(value: Any, path: Path, options: ReadOptions) -> Iterator[AnnotatedImage | Problem]:
    finder = ImageFinder.beside(path, options.images)
    if is_labelme(value):
        yield _labelme(value, path, finder, options)
    elif is_coco(value):
        yield from iter_coco(value, path, finder, options)
    elif is_label_studio(value):
        yield from iter_label_studio(value if isinstance(value, list) else [value], path, finder, options)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "image_id" in value[0]:
        raise DataError(
            f"{path} is a list of COCO results, without images' names; accepted is the data set's form: "
            "give it"
        )
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "image" in value[0]:
        raise DataError(
            f"{path} looks like Label Studio's JSON-MIN; accepted is its JSON export: export it as JSON"
        )
    else:
        keys = f"an object with {sorted(value)[:6]}" if isinstance(value, dict) else shown(value)
        raise DataError(
            f"{path} is of an unknown format ({keys}); accepted are {_JSON_KINDS}: export as one of them"
        )


def _labelme(value: Any, path: Path, finder: ImageFinder, options: ReadOptions) -> AnnotatedImage | Problem:
    try:
        return read_labelme(value, path, finder, options)
    except DataError as error:
        return Problem(str(path), error)


def _folder(root: Path, options: ReadOptions) -> Iterator[AnnotatedImage | Problem]:
    """A folder with JSON files holds annotations in them; another one holds mask files."""
    files = sorted(f for f in root.iterdir() if f.suffix.lower() == ".json" and not f.name.startswith("."))
    if not files:
        if next(root.iterdir(), None) is None:
            raise DataError(
                f"{root} is empty; accepted are images and masks, or JSON files: give another folder"
            )
        yield from iter_mask_folder(root, options)
        return
    if (root / "masks").is_dir():
        raise DataError(
            f"{root} holds masks/ and JSON files ({files[0].name}); accepted is one of both: give the JSON "
            "file"
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
                    f"{file} is not of LabelMe ({shown(value)}); accepted are several files of LabelMe, or "
                    "one"
                )
        except DataError as error:
            yield Problem(str(file), error)
        else:
            yield _labelme(value, file, finder, options)
