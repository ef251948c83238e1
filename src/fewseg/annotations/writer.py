"""What all writers of predictions have in common."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from fewseg.annotations.rle import box_of, decode_coco, encode_coco
from fewseg.annotations.values import (
    Mask,
    Prediction,
    check_classes,
    check_name,
    file_safe,
    number,
    size_field,
    typed,
)
from fewseg.annotations.values import json_field as field
from fewseg.ops.files import atomic_path
from fewseg.types import IGNORE, DataError


class PredictionWriter(ABC):
    """Writes predictions one by one; ``name in writer`` tells what an earlier run has written.

    A context manager: leaving it without an error finishes the output. After an error, or when the process is
    killed, what was written stays, and a writer for the same output goes on from there. Not for several
    threads.

    Args:
        classes: the names that every prediction has.

    Raises:
        ValueError: the names are not accepted.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        check_classes(classes)
        self.classes = classes

    def write(self, prediction: Prediction) -> None:
        """Writes a prediction; one of the same name is replaced.

        Raises:
            ValueError: it has other classes than the writer, or lacks what the format needs.
            OSError: the disk is full or not writable; no file or line is left half.
        """
        if prediction.classes != self.classes:
            raise ValueError(
                f"{prediction.name!r} has the classes {list(prediction.classes)} and the output "
                f"{list(self.classes)}; accepted are the same, in the same order: open another output"
            )
        self._write(prediction)

    @abstractmethod
    def _write(self, prediction: Prediction) -> None: ...

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...

    def close(self, finish: bool = True) -> None:  # noqa: B027 (files that are whole need no end)
        """Ends the output; with ``finish`` it becomes complete.

        Raises:
            OSError: it could not be written; another run can finish it.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=error is None)


class OutputNames:
    """The files of images in an output folder.

    Args:
        folder: the output folder.
        stems: image name -> output name without a suffix (see :func:`image_names.output_stems`); names that
            are not in it lose their suffix.
    """

    def __init__(self, folder: Path, stems: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.stems = stems or {}

    def file(self, name: str, ending: str) -> Path:
        """Returns the file of an image: folders and name, each part made safe, and an ending (``.png``).

        Raises:
            ValueError: the name leaves the folder.
        """
        check_name(name)
        stem = self.stems.get(name)
        if stem is None:
            head, _, tail = name.rpartition("/")
            base = tail.rpartition(".")[0] or tail
            stem = f"{head}/{base}" if head else base
        check_name(stem)
        *folders, last = stem.split("/")
        return self.folder.joinpath(*(file_safe(part) for part in folders), file_safe(last) + ending)


_KEY = "name"


def parse(line: bytes, path: Path) -> dict[str, Any]:
    """Returns the JSON object of a line.

    Raises:
        DataError: it is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} has a broken line ({error}): remove the file and run again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a file of this kind: choose another output, or remove it")
    return value


def scan(file: IO[bytes], path: Path) -> tuple[dict[str, Any] | None, dict[str, int], int]:
    """Reads a journal once.

    Returns:
        The first line, or None; name -> place of its last line, in bytes; and where the last whole line ends.

    Raises:
        DataError: a whole line is broken.
    """
    first: dict[str, Any] | None = None
    places: dict[str, int] = {}
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        value = parse(line, path)
        if first is None:
            first = value
        else:
            places[str(value.get(_KEY))] = end
        end += len(line)
    return first, places, end


class Journal:
    """Appends a JSON object for each image; finds those that are there already.

    The first line says what the file is, so that a second run with other classes is refused. A last line that
    a killed run left half is cut off on opening, and one that does not fit on the disk is cut off at once. Of
    two lines of one name the last counts. Memory is a number for each name.

    Args:
        path: the file; made with its folder, or continued.
        header: JSON object of the first line.

    Raises:
        DataError: the file is there with another header, or is not such a file.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._open(dict(header))
        except BaseException:
            self._file.close()
            raise

    def _open(self, header: dict[str, object]) -> None:
        self._file.seek(0)
        found, self._places, end = scan(self._file, self.path)
        if found is not None and found != header:
            raise DataError(
                f"{self.path} was written with {found} and this run has {header}; accepted is the same: "
                "choose another output folder, or remove the file"
            )
        self._file.truncate(end)
        if found is None:
            self._append(header)

    def _append(self, value: Mapping[str, object]) -> int:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        place = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self._cut(place)
            raise OSError(
                error.errno,
                f"could not write {self.path}: {error.strerror}; what was written before is whole. Free "
                "some space and run again: it goes on from there",
            ) from error
        return place

    def _cut(self, place: int) -> None:
        """Ends the file at a place, past its buffer, which the failed line is still in."""
        with suppress(OSError):
            self._file.close()
        os.truncate(self.path, place)
        self._file = self.path.open("a+b")

    def add(self, name: str, value: Mapping[str, object]) -> None:
        """Appends an image's line.

        Raises:
            OSError: the disk is full; the file ends with the line before.
        """
        self._places[name] = self._append({_KEY: name, **value})

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Reads the lines that count one by one, in the order in which their names came first."""
        for place in list(self._places.values()):
            self._file.seek(place)
            yield parse(self._file.readline(), self.path)

    def close(self) -> None:
        """Brings the file to the disk and closes it."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class JsonlWriter(PredictionWriter):
    """Appends a line for each image to one file (see :func:`jsonl.line_of`), which can be read at any time.

    Args:
        path: the file; continued where it is there.
        classes: the names.

    Raises:
        DataError: the file is there with other classes, or is of another kind.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        super().__init__(classes)
        self.journal = Journal(path, self._header())

    def _header(self) -> dict[str, object]:
        """Returns the first line."""
        return header(self.classes)

    def _line(self, prediction: Prediction) -> dict[str, object]:
        """Returns an image's line without its name."""
        return line_of(prediction)

    def _write(self, prediction: Prediction) -> None:
        self.journal.add(prediction.name, self._line(prediction))

    def __contains__(self, name: object) -> bool:
        return name in self.journal

    def close(self, finish: bool = True) -> None:
        """Brings the lines to the disk."""
        self.journal.close()


class JournalledWriter(JsonlWriter):
    """One JSON file for all images, made on finishing from a hidden file of lines beside it, which stays.

    A killed run leaves the lines; the next one goes on from there and makes the file of all of them.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        super().__init__(path.with_name(f".{path.name}.journal"), classes)
        self.path = path

    def close(self, finish: bool = True) -> None:
        """Makes the file of all lines in one step, image by image.

        Raises:
            OSError: it could not be written; the lines are there, and the file is what it was.
        """
        try:
            if finish:
                with (
                    atomic_path(self.path) as temporary,
                    temporary.open("w", encoding="utf-8", newline="") as out,
                ):
                    out.writelines(self._pieces())
        finally:
            self.journal.close()

    @abstractmethod
    def _pieces(self) -> Iterator[str]:
        """Yields the file's text."""


def json_text(value: object) -> str:
    """Returns compact JSON; NaN is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_list(values: Iterable[object]) -> Iterator[str]:
    """Yields the text of a JSON list, a line for each value."""
    yield "["
    for k, value in enumerate(values):
        yield ("," if k else "") + "\n" + json_text(value)
    yield "\n]"


_FORMAT = "fewseg-predictions-1"


def header(classes: tuple[str, ...]) -> dict[str, object]:
    """Returns the first line of a file of predictions."""
    return {"format": _FORMAT, "classes": list(classes)}


def line_of(prediction: Prediction) -> dict[str, object]:
    """Returns a prediction as a JSON object, without its name and its probability.

    ``regions`` has an entry for each class that occurs: class, box [x, y, width, height], area in pixels, and
    the mask as COCO's compressed RLE; ``unknown`` is the RLE of the pixels that are 255, where there are any.
    """
    height, width = prediction.size
    regions = []
    for j, name in enumerate(prediction.classes, 1):
        mask = prediction.mask(j)
        if mask.any():
            area, box = int(mask.sum()), box_of(mask)
            regions.append({"class": name, "bbox": box, "area": area, "segmentation": encode_coco(mask)})
    line: dict[str, object] = {
        "height": height,
        "width": width,
        "scores": dict(zip(prediction.classes, (float(s) for s in prediction.scores), strict=True)),
        "regions": regions,
    }
    if prediction.unknown.any():
        line["unknown"] = encode_coco(prediction.unknown)
    if prediction.facts:
        line["facts"] = dict(prediction.facts)
    return line


def prediction_of(line: dict[str, object], classes: tuple[str, ...], where: str) -> Prediction:
    """Returns the prediction of a line.

    Raises:
        DataError: the line is broken.
    """
    size = size_field(line, "height", "width", where)
    scores = field(line, "scores", dict, where)
    numbers = {name: j for j, name in enumerate(classes, 1)}
    labels: Mask = np.zeros(size, dtype=np.uint8)
    for region in field(line, "regions", list, where):
        name = field(typed(region, dict, where), "class", str, where)
        if name not in numbers:
            raise DataError(
                f"{where} has a region of {name!r}; accepted are {list(classes)}: write the file again"
            )
        labels[decode_coco(field(region, "segmentation", dict, where), size, where) == 1] = numbers[name]
    if "unknown" in line:
        labels[decode_coco(field(line, "unknown", dict, where), size, where) == 1] = IGNORE
    try:
        return Prediction(
            name=field(line, "name", str, where),
            labels=labels,
            classes=classes,
            scores=tuple(number(scores.get(name), f"{where}: the score of {name!r}") for name in classes),
            facts=field(line, "facts", dict, where) if "facts" in line else {},
        )
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def read_jsonl(path: Path) -> Iterator[Prediction]:
    """Reads a file of predictions, one by one; of two of one image the last counts.

    A last line that is half (the file is being written, or its run was killed) is left out.

    Raises:
        DataError: the file is missing or not of this kind, or a line is broken.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; accepted is a file of predictions: check the path")
    with path.open("rb") as file:
        first, places, _ = scan(file, path)
        if first is None or first.get("format") != _FORMAT:
            raise DataError(
                f"{path} does not begin with {_FORMAT!r}; accepted is a file of predictions: give one"
            )
        classes = tuple(typed(c, str, f"{path}: classes") for c in field(first, "classes", list, str(path)))
        for k, place in enumerate(places.values(), 1):
            file.seek(place)
            yield prediction_of(parse(file.readline(), path), classes, f"{path}, image {k}")
