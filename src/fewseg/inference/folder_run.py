"""Reading, computing and writing that overlap, with a bounded number of images in memory."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.annotations import Format, LabelStudioNames, output_stems
from fewseg.inference.contact_sheet import THUMBS, thumbnail, write_thumbnail
from fewseg.inference.images import read_image, wrong_names
from fewseg.inference.model import PreparedImage
from fewseg.inference.outputs import Outputs, check_formats, longest_ending
from fewseg.inference.segmenter import Segmenter
from fewseg.inference.session import Answer, Session
from fewseg.ops.files import atomic_write_text, check_writable, folder_alone, unwritten
from fewseg.ops.progress import progress_bar
from fewseg.types import DataError

K = TypeVar("K")
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class _Lost:
    error: Exception


class Stream(Generic[K, A, B]):
    """Runs keys through ``read`` in threads, ``compute`` in the caller's thread, ``write`` in one thread.

    No more than ``ahead`` images are between the start of their reading and the end of their computing, and
    no more than ``ahead`` between that and the end of their writing. Order is kept.

    Args:
        read: gives what one key needs to be computed; runs in several threads.
        compute: takes a batch of (key, read) and gives a result for each, in the same order.
        write: takes (key, result); runs in one thread of its own, in order.
        failed: called with (key, error) where ``read`` or ``compute`` raised one of ``skipped``: the image is
            left out. The images of a batch that raised are each computed alone first.
        skipped: kinds of errors that lose one image only; any other ends the stream.
        workers: threads that read.
        ahead: the bound.
        batch: how many are computed together.
    """

    def __init__(
        self,
        read: Callable[[K], A],
        compute: Callable[[list[tuple[K, A]]], list[B]],
        write: Callable[[K, B], None],
        failed: Callable[[K, Exception], None],
        *,
        skipped: tuple[type[Exception], ...],
        workers: int,
        ahead: int,
        batch: int = 1,
    ) -> None:
        self._read, self._compute, self._write, self._failed = read, compute, write, failed
        self._skipped, self._workers, self._batch = skipped, workers, batch
        self._ahead = max(ahead, batch)
        self._broken = threading.Event()

    def run(self, keys: Iterable[K]) -> Iterator[K]:
        """Works on all keys and yields each when it is written or left out.

        Raises:
            Exception: whatever ``write`` raised, or ``read`` or ``compute`` beyond ``skipped``; what was
                written stays, and nothing more is begun.
        """
        self._broken.clear()
        coming = iter(keys)
        reading: deque[tuple[K, Future[A]]] = deque()
        writing: deque[tuple[K, Future[None]]] = deque()
        readers, writer = ThreadPoolExecutor(self._workers), ThreadPoolExecutor(1)
        try:
            while True:
                for key in islice(coming, self._ahead - len(reading)):
                    reading.append((key, readers.submit(self._read, key)))
                if not reading:
                    break
                ready: list[tuple[K, A]] = []
                while reading and len(ready) < self._batch:
                    key, future = reading.popleft()
                    try:
                        ready.append((key, future.result()))
                    except self._skipped as error:
                        self._failed(key, error)
                        yield key
                for key, result in self._computed(ready):
                    if isinstance(result, _Lost):
                        self._failed(key, result.error)
                        yield key
                    else:
                        writing.append((key, writer.submit(self._written, key, result)))
                while writing and (len(writing) > self._ahead or writing[0][1].done()):
                    yield _finished(writing)
            while writing:
                yield _finished(writing)
        finally:
            self._broken.set()
            readers.shutdown(wait=True, cancel_futures=True)
            writer.shutdown(wait=True, cancel_futures=True)

    def _computed(self, ready: list[tuple[K, A]]) -> Iterator[tuple[K, B | _Lost]]:
        """The results of a batch; of one that cannot be computed, those of each image alone."""
        lost: Exception | None = None
        try:
            results = self._compute(ready) if ready else []
        except self._skipped as error:
            lost = error
        if lost is None:
            yield from ((key, result) for (key, _), result in zip(ready, results, strict=True))
        elif len(ready) == 1:
            yield ready[0][0], _Lost(lost)
        else:
            del lost  # its frames hold the batch's maps
            for one in ready:
                yield from self._computed([one])

    def _written(self, key: K, result: B) -> None:
        """Writes one, unless one before it failed."""
        if self._broken.is_set():
            return
        try:
            self._write(key, result)
        except BaseException:
            self._broken.set()
            raise


def _finished(writing: deque[tuple[K, Future[None]]]) -> K:
    key, future = writing.popleft()
    future.result()
    return key


RUN_FILE = "run.json"
SHAPES = "shapes of labelme"
"""A fact that a later run may add: no such file was written before it."""


@contextmanager
def claimed(folder: Path, facts: Mapping[str, object]) -> Iterator[None]:
    """Has a folder for a run, for the length of the block; its file says what the run is.

    Args:
        folder: is made where it is missing.
        facts: what must be the same in every run into this folder.

    Raises:
        DataError: it holds another run, or another process is at it.
        OSError: it is not writable, or a file is in its place.
    """
    path = folder / RUN_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with _alone(folder):
        facts = {**_known(path, facts), **facts}
        atomic_write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        yield


def check_folder(folder: Path) -> None:
    """Checks that a run can have a folder, as far as that can be told before the model; makes nothing.

    Raises:
        DataError: another process is at it.
        OSError: it is not writable, or a file is in its place.
    """
    check_writable(folder / RUN_FILE)
    if folder.is_dir():
        with _alone(folder):
            pass


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with folder_alone(folder) as alone:
        if not alone:
            raise DataError(
                f"another process labels into {folder} now; accepted is one at a time: wait for it, or "
                "choose another folder"
            )
        yield


def _known(path: Path, facts: Mapping[str, object]) -> dict[str, object]:
    """What the file says, which is nothing else than ``facts``; empty without a file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is broken ({error}): remove it, or choose another folder") from error
    found = found if isinstance(found, dict) else {}
    found.setdefault(SHAPES, facts.get(SHAPES))
    differing = sorted(k for k in facts if found.get(k) != facts[k])
    if differing:
        raise DataError(
            f"{path.parent} holds a run with another {', '.join(differing)}; accepted is the same run, which "
            "goes on: choose another folder, or remove this one"
        )
    return {k: v for k, v in found.items() if v is not None}


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
        images: name to file, of :func:`~fewseg.inference.images.find_images`.
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
