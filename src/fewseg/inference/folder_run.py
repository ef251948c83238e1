"""``fewseg label``: a folder of images, from supports to files, that can be stopped and goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.inference.contact_sheet import THUMBS, thumbnail, write_thumbnail
from fewseg.inference.formats import output_stems
from fewseg.inference.found_images import wrong_names
from fewseg.inference.images import read_image
from fewseg.inference.model import PreparedImage
from fewseg.inference.outputs import Format, LabelStudioNames, Outputs, check_formats, longest_ending
from fewseg.inference.run_file import SHAPES, claimed
from fewseg.inference.segmenter import Segmenter
from fewseg.inference.session import Answer, Session
from fewseg.inference.stream import Stream
from fewseg.ops.progress import progress_bar

logger = logging.getLogger(__name__)

_NO_MEMORY = "there is not enough memory for this image: lower --batch or --size, or make it smaller"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a folder is labelled.

    Attributes:
        formats: what to write, beside ``predictions.jsonl``.
        threshold: least probability, in (0, 1), of a class against background.
        quality: judge every image.
        thumbnails: keep a small picture of every image for the contact sheet.
        batch: images that go through the network together.
        workers: threads that read.
        label_studio: names of the Label Studio project.

    Raises:
        ValueError: a number is out of range, or formats write the same files.
    """

    formats: tuple[Format, ...] = ("png",)
    threshold: float = 0.5
    quality: bool = True
    thumbnails: bool = True
    batch: int = 1
    workers: int = 2
    label_studio: LabelStudioNames = field(default_factory=LabelStudioNames)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold is {self.threshold}; accepted is a number between 0 and 1")
        check_formats(self.formats)
        if self.batch < 1 or self.workers < 1:
            raise ValueError(f"batch {self.batch} and workers {self.workers}: give 1 or more of each")


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did.

    Attributes:
        done: images that were labelled now.
        before: images that an earlier run had labelled.
        problems: name of an image to what is wrong with it.
    """

    done: int
    before: int
    problems: Mapping[str, str]


def label_images(
    segmenter: Segmenter,
    images: Mapping[str, Path],
    folder: Path,
    options: RunOptions | None = None,
    *,
    progress: bool = True,
) -> RunReport:
    """Labels images; a second run does only what is missing.

    Args:
        segmenter: with its supports.
        images: name to file, of :func:`~fewseg.inference.found_images.find_images`.
        folder: where everything goes.
        options: how.
        progress: show a bar, or print lines where there is no terminal.

    Returns:
        What was done; an image that cannot be used is in ``problems`` and loses no other.

    Raises:
        DataError: the folder holds a run with other supports, another model or other settings, or another
            process labels into it now.
        ValueError: there is no support, or an option is not accepted.
        OSError: the folder is not writable or the disk is full; what was written is whole, and the same run
            goes on from there.
    """
    options = options or RunOptions()
    session = segmenter.session()
    with claimed(folder, _facts(session, options)):
        unnamed = wrong_names(images, longest_ending(options.formats, session.supports.classes))
        for text in unnamed.values():
            logger.warning("skipped: %s", text)
        named = {name: file for name, file in images.items() if name not in unnamed}
        outputs = Outputs(
            folder,
            session.supports.classes,
            options.formats,
            output_stems(list(named)),
            images=_root(images),
            label_studio=options.label_studio,
        )
        finished = False
        try:
            todo = [name for name in named if name not in outputs]
            work = _Work(segmenter, session, named, outputs, folder, options)
            lost = _run(work, todo, options, progress)
            finished = True
        finally:
            outputs.close(finish=finished)
    problems = {_printable(name): text for name, text in unnamed.items()} | lost
    return RunReport(done=len(todo) - len(lost), before=len(named) - len(todo), problems=problems)


def _run(work: _Work, names: Sequence[str], options: RunOptions, progress: bool) -> dict[str, str]:
    """Labels images and returns, of those that could not be used, what is wrong with them."""
    lost: dict[str, str] = {}

    def failed(name: str, error: Exception) -> None:
        lost[name] = f"{name}: {_NO_MEMORY}" if isinstance(error, MemoryError) else str(error)
        logger.warning("skipped: %s", lost[name])

    stream = Stream(
        work.read,
        work.compute,
        work.write,
        failed,
        skipped=(DataError, MemoryError),
        workers=options.workers,
        ahead=2 * options.workers + options.batch,
        batch=options.batch,
    )
    with progress_bar(progress, lines=True) as bar:
        task = bar.add_task("label", total=len(names))
        for _ in stream.run(names):
            bar.advance(task)
    return lost


@dataclass(frozen=True)
class _Read:
    image: PreparedImage
    thumb: NDArray[np.uint8] | None


class _Work:
    """The three steps of the stream."""

    def __init__(
        self,
        segmenter: Segmenter,
        session: Session,
        images: Mapping[str, Path],
        outputs: Outputs,
        folder: Path,
        options: RunOptions,
    ) -> None:
        self.segmenter, self.session, self.images = segmenter, session, images
        self.outputs, self.thumbs, self.options = outputs, folder / THUMBS, options

    def read(self, name: str) -> _Read:
        pixels = read_image(self.images[name], name, self.segmenter.max_pixels)
        thumb = thumbnail(pixels) if self.options.thumbnails else None
        return _Read(self.segmenter.model.prepare(pixels), thumb)

    def compute(self, batch: list[tuple[str, _Read]]) -> list[tuple[Answer, NDArray[np.uint8] | None]]:
        encoded = self.segmenter.model.encode([read.image for _, read in batch])
        answers = self.session.answer(encoded, quality=self.options.quality)
        return [(answer, read.thumb) for answer, (_, read) in zip(answers, batch, strict=True)]

    def write(self, name: str, result: tuple[Answer, NDArray[np.uint8] | None]) -> None:
        answer, thumb = result
        found = self.session.finish(answer, self.options.threshold)
        if thumb is not None:
            write_thumbnail(self.thumbs, name, thumb, found.labels)
        self.outputs.write(found.prediction(name, probability=self.outputs.probability))


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _root(images: Mapping[str, Path]) -> Path | None:
    """The folder that names are relative to."""
    for name, file in images.items():
        return file.absolute().parents[name.count("/")]
    return None


def _facts(session: Session, options: RunOptions) -> dict[str, object]:
    """What must be the same in two runs into one folder."""
    shapes = [name for name in options.formats if name in ("labelme", "labelme-polygons")]
    return {
        "format": "fewseg-run-1",
        "model": session.model.digest,
        "model_name": session.model.name,
        "supports": _supports_key(session),
        "classes": list(session.supports.classes),
        "shots": {name: len(session.supports.positives(name)) for name in session.supports.classes},
        "threshold": options.threshold,
        "quality": options.quality,
        **({SHAPES: shapes[0]} if shapes else {}),
    }


def _supports_key(session: Session) -> str:
    """Key of the annotated images and their masks, whatever their order."""
    keys: list[Sequence[str]] = []
    for shot in session.supports.shots:
        masks = [f"{name} {_digest(mask)}" for name, mask in sorted(shot.masks.items())]
        keys.append([shot.image.digest, *masks])
    return _digest(torch.frombuffer(bytearray(json.dumps(sorted(keys)).encode()), dtype=torch.uint8))


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
