"""What all writers of predictions have in common: a journal by which a killed run goes on."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

from fewseg.annotations.names import file_safe
from fewseg.annotations.options import LabelStudioNames
from fewseg.annotations.rle import encode_coco, encode_piece
from fewseg.annotations.values import Prediction, box_of, check_classes, check_name
from fewseg.ops.files import atomic_path, atomic_write_text, naming, parse_json
from fewseg.types import DataError


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How predictions are written."""

    stems: Mapping[str, str] = field(default_factory=dict)  # see :func:`.names.output_stems`
    images: Path | None = None  # the folder that LabelMe's relative paths lead to
    label_studio: LabelStudioNames = field(default_factory=LabelStudioNames)


class PredictionWriter(ABC):
    """Writes predictions one by one; ``name in writer`` is whether an earlier run has written it."""

    def __init__(self, out: Path, classes: tuple[str, ...], options: WriteOptions | None = None) -> None:
        check_classes(classes)
        self.out, self.classes, self.options = out, classes, options or WriteOptions()
        self._begin()

    def _begin(self) -> None:  # noqa: B027 (most need nothing)
        """Checks that the classes suit the format, and opens its files."""

    def write(self, prediction: Prediction) -> None:
        """Writes a prediction; one of the same name is replaced."""
        if prediction.classes != self.classes:
            raise ValueError(
                f"{prediction.name!r} must have the classes of the output, {list(self.classes)}, in this "
                f"order, got {list(prediction.classes)}: open another output"
            )
        self._write(prediction)

    @abstractmethod
    def _write(self, prediction: Prediction) -> None: ...

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...

    def close(self, finish: bool = True) -> None:  # noqa: B027 (files that are whole need no end)
        """Ends the output; with ``finish`` it becomes complete, now or after an OSError in the next run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=error is None)


class FilesWriter(PredictionWriter):
    """A file for each image, in a folder of the output."""

    folder: ClassVar[str]
    ending: ClassVar[str]

    def path(self, name: str, ending: str | None = None) -> Path:
        """Returns the file of an image: folders and name, each part made safe, and an ending."""
        check_name(name)
        head, slash, tail = name.rpartition("/")
        stem = self.options.stems.get(name, head + slash + (tail.rpartition(".")[0] or tail))
        check_name(stem)
        *folders, last = map(file_safe, stem.split("/"))
        return self.out.joinpath(self.folder, *folders, last + (ending or self.ending))

    def __contains__(self, name: object) -> bool:
        return self.path(str(name)).is_file()

    def _write_listing(self, name: str, text: str) -> None:
        """Writes the file that lists the classes; one of other classes is not replaced."""
        path = self.out / name
        if path.is_file() and path.read_bytes() != text.encode():
            raise DataError(
                f"{path} lists other classes than {list(self.classes)}: choose another output folder or "
                "remove it"
            )
        atomic_write_text(path, text)


_KEY = "name"
LINES_FORMAT = "fewseg-predictions-1"


def parse(line: bytes, path: Path) -> dict[str, Any]:
    """Returns the JSON object of a line."""
    try:
        value = parse_json(line)
    except ValueError as error:
        raise DataError(f"{path} has a broken line ({error}): remove the file and run again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a file of this kind: choose another output, or remove it")
    return value


def scan(file: IO[bytes], path: Path) -> tuple[dict[str, Any] | None, dict[str, int], int]:
    """Reads a journal once."""
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
    """Appends a JSON object an image; of two lines of one name the last counts, a half line is cut off."""

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
        first, self._places, end = scan(self._file, self.path)
        if first is not None and first != header:
            raise DataError(
                f"{self.path} must be of a run with {header}, got one with {first}: choose another output "
                "folder, or remove the file"
            )
        self._file.truncate(end)
        if first is None:
            self._append(header)

    def _append(self, value: Mapping[str, object]) -> int:
        line = json_text(value).encode() + b"\n"
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
        """Appends an image's line."""
        self._places[name] = self._append({_KEY: name, **value})

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Reads the lines that count one by one, in the order in which their names came first."""
        for place in list(self._places.values()):
            self._file.seek(place)
            yield parse(self._file.readline(), self.path)

    def close(self) -> None:
        """Brings the file to the disk and closes it."""
        if not self._file.closed:
            with naming(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()


def line_of(prediction: Prediction) -> dict[str, object]:
    """Returns a prediction as a JSON object, without its name and its probability.

    ``regions`` has an entry for each class that occurs: class, box [x, y, width, height], area in pixels,
    and the mask as COCO's compressed RLE; ``instances``, where they were looked for, one for each of
    them, with a score; ``unknown`` is the RLE of the pixels that are 255, if any are.
    """
    regions = []
    for j, name in enumerate(prediction.classes, 1):
        mask = prediction.mask(j)
        if mask.any():
            area, box = int(mask.sum()), box_of(mask)
            regions.append({"class": name, "bbox": box, "area": area, "segmentation": encode_coco(mask)})
    scores = dict(zip(prediction.classes, map(float, prediction.scores), strict=True))
    height, width = prediction.size
    line: dict[str, object] = {"height": height, "width": width, "scores": scores, "regions": regions}
    if prediction.instances is not None:
        line["instances"] = [
            {"class": thing.class_name, "bbox": thing.box, "area": thing.area, "score": thing.score}
            | {"segmentation": encode_piece(thing.piece, thing.box, prediction.size)}
            for thing in prediction.instances
        ]
    if prediction.unknown.any():
        line["unknown"] = encode_coco(prediction.unknown)
    if prediction.facts:
        line["facts"] = dict(prediction.facts)
    return line


class LinesWriter(PredictionWriter):
    """Appends a line for each image to a journal, which can be read at any time."""

    file: ClassVar[str] = "predictions.jsonl"
    journal_file: ClassVar[str] = "{}"

    def _begin(self) -> None:
        self.journal = Journal(self.out / self.journal_file.format(self.file), self._header())

    def _header(self) -> dict[str, object]:
        """Returns the first line."""
        return {"format": LINES_FORMAT, "classes": list(self.classes)}

    def _line(self, prediction: Prediction) -> dict[str, object]:
        """Returns a prediction as a JSON object, without its name."""
        return line_of(prediction)

    def _write(self, prediction: Prediction) -> None:
        self.journal.add(prediction.name, self._line(prediction))

    def __contains__(self, name: object) -> bool:
        return name in self.journal

    def close(self, finish: bool = True) -> None:
        """Brings the lines to the disk."""
        self.journal.close()


class JournalledWriter(LinesWriter):
    """One JSON file for all images, made on finishing from a hidden journal beside it, which stays."""

    journal_file = ".{}.journal"

    def close(self, finish: bool = True) -> None:
        """Makes the file of all lines in one step, image by image."""
        try:
            if finish:
                with (
                    atomic_path(self.out / self.file) as temporary,
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
