"""YOLO's segmentation labels: a text file an image, in ``labels``, with the classes' names in ``data.yaml``.

A line is ``class x y x y ...``, a polygon in fractions of the image's sides, or ``class x y width height``, a
box around its centre. ``labels/a/x.txt`` belongs to ``images/a/x.jpg``, and ``train/labels/x.txt`` to
``train/images/x.jpg``; where neither is beside ``data.yaml``, its ``path`` and the folders of ``train``,
``val`` and ``test`` count. Label Studio's export has ``classes.txt`` instead of ``data.yaml``. CVAT's YOLO
1.1 has ``obj.names``, and images and labels side by side in ``obj_train_data``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fewseg.annotations.coco import fill_polygons
from fewseg.annotations.image_files import image_size
from fewseg.annotations.json_values import read_annotations, shown
from fewseg.annotations.mask_files import CLASSES_FILE, read_names
from fewseg.annotations.names import image_of_stem
from fewseg.annotations.options import ReadOptions, image_files
from fewseg.annotations.shapes import Canvas, check_points, outlines, rectangle
from fewseg.annotations.values import Items, Prediction, Problem, warn_of_left_out
from fewseg.annotations.writer import FilesWriter
from fewseg.ops.files import atomic_write_text
from fewseg.types import DataError

_NAMES = "obj.names"  # of YOLO 1.1: a name a line
_SLACK = 0.01  # that exported fractions reach past the image's edges


def is_yolo(root: Path) -> bool:
    """Whether a folder has YOLO's label files."""
    return any(True for folder in _label_folders(root) for _ in _label_files(folder))


def iter_yolo(root: Path, options: ReadOptions, description: Path | None = None) -> Items:
    """Yields the images that have a label file, which is empty for a negative; a box is filled."""
    described = (root / "data.yaml", *sorted(root.glob("*.y*ml")))
    description = description or next((f for f in described if f.is_file()), None)
    folders = _label_folders(root)
    if not folders and description is not None:
        folders = _described_folders(description)
    if not folders:
        where = f"{root}, or by path, train and val of {description.name}" if description else f"{root}"
        raise DataError(f"found no folder labels in {where}; expected labels/ and images/: put them there")
    names = _names(root, description)
    used: set[Path] = set()
    for labels, beside in folders.items():
        images = options.images or beside
        for file in _label_files(labels):
            try:
                image = image_of_stem(images / file.relative_to(labels).with_suffix(""), file)
                used.add(image)
                size = image_size(image, options.max_pixels)
                canvas = Canvas(size)
                for number, line in enumerate(read_annotations(file).decode("utf-8-sig").splitlines(), 1):
                    _draw(line, names, canvas, f"{file}, line {number}")
                yield canvas.annotated(image, (names[number] for number in sorted(names)))
            except DataError as error:
                yield Problem(str(file), error)
            except UnicodeDecodeError:
                yield Problem(str(file), DataError(f"{file} is not UTF-8 text: export it again"))
    searched = {options.images} if options.images else set(folders.values())
    images_there = [f for images in sorted(searched) if images.is_dir() for f in image_files(images)]
    unlabelled = [f for f in images_there if f not in used]
    warn_of_left_out(root, unlabelled, "no label file; an empty one makes a negative")


def _label_folders(root: Path) -> dict[Path, Path]:
    """Returns folder of labels -> that of images."""
    if (root / _NAMES).is_file():
        return {f: f for f in sorted(root.glob("obj_*_data")) if f.is_dir()}
    labels = root / "labels"
    found = [labels] if labels.is_dir() else sorted(f for f in root.glob("*/labels") if f.is_dir())
    return {f: f.with_name("images") for f in found}


def _described_folders(description: Path) -> dict[Path, Path]:
    """Returns the folder of labels -> that of images, of each split that a description has."""
    value = _description(description)
    base = description.parent / str(value.get("path") or "")
    folders = {}
    for split in ("train", "val", "test"):
        places = value.get(split)
        for place in places if isinstance(places, list) else [places]:
            parts = (base / str(place)).parts
            if place and "images" in parts:
                last = len(parts) - 1 - parts[::-1].index("images")
                labels = Path(*parts[:last], "labels", *parts[last + 1 :])
                if labels.is_dir():
                    folders[labels] = Path(*parts)
    return folders


def _label_files(labels: Path) -> Iterator[Path]:
    return (f for f in sorted(labels.rglob("*.txt")) if f.name != CLASSES_FILE and not f.name.startswith("."))


def _names(root: Path, description: Path | None) -> Mapping[int, str]:
    if description is None:
        file = next((f for f in (root / _NAMES, root / CLASSES_FILE) if f.is_file()), None)
        if file is not None:
            return dict(enumerate(read_names(file)))
        raise DataError(
            f"{root} has YOLO's labels and no names of classes; expected data.yaml ('names: [a, b]') or "
            f"{CLASSES_FILE} (a name a line, the first is class 0): add one"
        )
    value = _description(description)
    if "kpt_shape" in value:
        raise DataError(
            f"{description} is of key points (kpt_shape); expected polygons or boxes: export the labels of "
            "segmentation"
        )
    listed = value.get("names")
    names = dict(enumerate(listed)) if isinstance(listed, list) else listed
    if (
        not isinstance(names, dict)
        or not names
        or not all(type(k) is int and type(v) in (str, int) and v != "" for k, v in names.items())
    ):
        raise DataError(
            f"{description}: 'names' must be a list of names, or numbers with names, got {shown(listed)}: "
            "export it again, or put quotes around names"
        )
    if len({str(name) for name in names.values()}) != len(names):
        raise DataError(f"{description}: 'names' must be different, got {shown(listed)}: rename one")
    return {number: str(name) for number, name in names.items()}


def _description(path: Path) -> Mapping[str, Any]:
    """Returns what a description holds, nothing where it is no mapping."""
    try:
        value = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise DataError(f"{path} is no readable YAML ({text}): export it again") from error
    return value if isinstance(value, dict) else {}


def _draw(line: str, names: Mapping[int, str], canvas: Canvas, where: str) -> None:
    if not line.strip():
        return
    check_points(line.count(" ") // 2, f"{where}: a polygon")
    try:
        first, *numbers = (float(text) for text in line.split())
        values = np.array(numbers)
    except ValueError as error:
        raise DataError(f"{where} must be numbers, got {shown(line)}: export it again") from error
    if first not in names:
        raise DataError(f"{where}: the class must be one of {shown(sorted(names))}, got {first:g}: name it")
    if len(values) % 2 or len(values) < 4:
        raise DataError(
            f"{where}: after the class must come x y of 3 points or more, or x y width height (no "
            f"confidence, no keypoints), got {len(values)} numbers: export the labels of segmentation"
        )
    if not ((values >= -_SLACK) & (values <= 1 + _SLACK)).all():
        raise DataError(
            f"{where} must have fractions of the image's sides, from 0 to 1, got {shown(line)}: divide x by "
            "its width and y by its height"
        )
    height, width = canvas.size
    points = values * np.tile((width, height), len(values) // 2)
    if len(values) == 4:
        x, y, wide, tall = points.tolist()
        canvas.add(names[int(first)], rectangle(x - wide / 2, y - tall / 2, wide, tall, canvas.size), "box")
    else:
        canvas.add(names[int(first)], fill_polygons([points], canvas.size))


class YoloWriter(FilesWriter):
    """Writes ``labels/<image>.txt``, polygons whose holes are joined to them, and ``data.yaml``."""

    folder, ending = "yolo/labels", ".txt"

    def _begin(self) -> None:
        value = {"train": "images", "val": "images", "names": dict(enumerate(self.classes))}
        self._write_listing("yolo/data.yaml", yaml.safe_dump(value, allow_unicode=True))

    def _write(self, prediction: Prediction) -> None:
        height, width = prediction.size
        text = ""
        for thing in prediction.things():
            number, corner = self.classes.index(thing.class_name), thing.box[:2]
            for path in outlines(thing.piece, corner=corner, single=prediction.instances is not None):
                points = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in path)
                text += f"{number} {points}\n"
        atomic_write_text(self.path(prediction.name), text)
