"""What all writers of predictions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fewseg.inference.formats.image_names import file_safe
from fewseg.inference.formats.values import Prediction, check_classes, check_name


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
