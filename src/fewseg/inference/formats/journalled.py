"""Writers whose stream is a journal: JSON lines, and the base of those that make one JSON file of it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from fewseg.inference.formats.journal import Journal
from fewseg.inference.formats.jsonl import header, line_of
from fewseg.inference.formats.values import Prediction
from fewseg.inference.formats.writer import PredictionWriter
from fewseg.ops.files import atomic_path


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
