"""The outputs of a folder run: the wanted formats, and the line that marks an image as done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fewseg.annotations.formats import FORMATS, WriteOptions
from fewseg.annotations.names import file_safe
from fewseg.annotations.options import Format, LabelStudioNames
from fewseg.annotations.values import Prediction
from fewseg.annotations.writer import PredictionWriter

LINES = "predictions.jsonl"


class Outputs:
    """Writes predictions in several formats below one folder; not for several threads.

    - ``masks/<image>.png`` (png), ``probability/<image>.<class>.png``, ``coco.json``, ``coco-results.json``,
      ``labelme/<image>.json``, ``label-studio.json``;
    - ``predictions.jsonl`` always: its line is written last, so that an image that has one has everything.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        formats: Sequence[Format],
        stems: Mapping[str, str],
        images: Path | None = None,
        label_studio: LabelStudioNames | None = None,
    ) -> None:
        options = WriteOptions(stems=stems, images=images, label_studio=label_studio or LabelStudioNames())
        self.lines = folder / LINES
        self.probability = "probability" in formats
        self._writers: list[PredictionWriter] = []
        try:
            chosen: list[Format] = [name for name in formats if name != "jsonl"]
            chosen.append("jsonl")  # last: an image that has a line there has everything
            for name in dict.fromkeys(chosen):
                self._writers.append(FORMATS[name](folder, classes, options))
        except BaseException:
            self.close(finish=False)
            raise

    def write(self, prediction: Prediction) -> None:
        """Writes a prediction in every format."""
        for writer in self._writers:
            writer.write(prediction)

    def __contains__(self, name: object) -> bool:
        return all(name in writer for writer in self._writers)

    def close(self, finish: bool = True) -> None:
        """Ends all outputs; with ``finish`` those that are one file for all images are made."""
        failed: OSError | None = None
        for writer in self._writers:
            try:
                writer.close(finish=finish)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed


def longest_ending(formats: Sequence[str], classes: Sequence[str]) -> int:
    """Returns the bytes of the longest ending of a file of one image."""
    endings = [".json"] if {"labelme", "labelme-polygons"} & set(formats) else [".png"]
    if "probability" in formats:
        endings += [f".{file_safe(name)}.png" for name in classes]
    return max(len(ending.encode()) for ending in endings)
