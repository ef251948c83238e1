"""``fewseg label``: labels a folder of images; a killed run can be continued."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewseg.annotations.names import output_stems
from fewseg.annotations.options import CLASS_FORMATS, ValueRange
from fewseg.annotations.values import Prediction
from fewseg.annotations.writer import WriteOptions
from fewseg.inference.advice import RunSummary
from fewseg.inference.find import find_images
from fewseg.inference.images import read_image
from fewseg.inference.input_size import with_fitting_input
from fewseg.inference.model import Model, PreparedImage
from fewseg.inference.options import LabelOptions, RunOptions
from fewseg.inference.outputs import (
    SUMMARY,
    THUMBS,
    Outputs,
    thumbnail,
    write_sheet,
    write_summary,
    write_thumbnail,
    wrong_names,
)
from fewseg.inference.segmentation import Segmentation, Session
from fewseg.inference.segmenter import Segmenter, segmenter_with_supports
from fewseg.inference.stream import NO_MEMORY, stream
from fewseg.ops.files import atomic_write_text, naming, one_process, parse_json
from fewseg.ops.progress import progress_bar
from fewseg.types import DataError

logger = logging.getLogger(__name__)

A = TypeVar("A")

RUN_FILE = "run.json"
SHAPES, PRECISION, INSTANCES = "shapes of labelme", "precision", "instances"
"""Facts that the file of an earlier run may lack; shapes and precision then count as equal."""
CHOICE = "choice"
"""The fact that may differ between runs that continue each other: it follows from the others."""


@contextmanager
def claimed(folder: Path, facts: Mapping[str, object]) -> Iterator[None]:
    """Keeps a folder for runs with the same facts, one at a time, and records the facts in its run file."""
    path = folder / RUN_FILE
    with naming(path):
        folder.mkdir(parents=True, exist_ok=True)
    with one_process(folder, "labels into"):
        content = path.read_bytes() if path.is_file() else None
        atomic_write_text(path, run_record(str(folder), content, facts))
        yield


def run_record(folder: str, content: bytes | None, facts: Mapping[str, object]) -> str:
    """The content of a run's file; raises a DataError if ``content`` is that of a different run."""
    known: dict[str, object] = {}
    if content is not None:
        try:
            value = parse_json(content)
        except ValueError as error:
            raise DataError(
                f"{folder}/{RUN_FILE} is broken ({error}): remove it, or choose a different folder"
            ) from error
        known = {key: facts.get(key) for key in (SHAPES, PRECISION)}
        known |= value if isinstance(value, dict) else {}
        if differing := sorted(k for k in facts if k != CHOICE and known.get(k) != facts[k]):
            raise DataError(
                f"{folder} holds a run with a different {', '.join(differing)}; only the same run can "
                "continue there: choose a different folder, or remove this one"
            )
    facts = {k: v for k, v in known.items() if v is not None} | dict(facts)
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The result of a run.

    Attributes:
        done: number of images labelled by this run.
        before: number of images labelled by earlier runs.
        problems: image name to what is wrong with the image.
        summary: sentences on the images of this run: how good each class seems, and what to do where it is
            poor.
    """

    done: int
    before: int
    problems: Mapping[str, str]
    summary: tuple[str, ...] = ()


def label(options: LabelOptions) -> RunReport:
    """Labels a folder of images; a second run does only what is missing.

    Args:
        options: see :class:`~fewseg.inference.LabelOptions`.

    Returns:
        The report; an image that cannot be used is in its ``problems`` and does not stop the run.

    Raises:
        ValueError: an option is out of range, or the supports or the model cannot be used.
        OSError: an input does not exist, the folder is not writable or the disk is full.
    """
    options.check()
    if options.out.is_dir():
        with one_process(options.out, "labels into"):
            pass
    images = find_images(options.images, leave_out=options.out)
    segmenter, expected = segmenter_of(options)
    report = label_images(segmenter, images, options.out, options.run)
    if options.run.sheet > 0:
        write_sheet(options.out, report.problems, options.run.sheet, expected)
    return report


def segmenter_of(options: LabelOptions) -> tuple[Segmenter, list[str]]:
    """The segmenter with its supports, and sentences on what to expect, which are logged too."""
    convert: Callable[[Model], Model] | None = None
    model = options.model
    if options.backend == "onnx":
        from fewseg.inference.onnx import on_onnx_runtime

        convert = partial(on_onnx_runtime, folder=options.graphs)
        model = replace(model, precision="fp32")
    refit = None if convert is not None else with_fitting_input
    segmenter = segmenter_with_supports(model, options.support, options.read, convert, refit)
    classes = [segmenter.support(name) for name in segmenter.classes]
    shown = ", ".join(f"{s.name} ({s.shots} shown, {s.negatives} without)" for s in classes)
    logger.info("classes: %s", shown)
    if options.save_support is not None:
        segmenter.save_supports(options.save_support)
    choice = segmenter.session().choice
    expected = [] if choice is None else choice.lines
    for line in expected:
        logger.info("%s", line)
    return segmenter, expected


def label_images(
    segmenter: Segmenter, images: Mapping[str, Path], folder: Path, options: RunOptions | None = None
) -> RunReport:
    """Labels images without a contact sheet; a second run does only what is missing.

    Args:
        segmenter: a segmenter with supports.
        images: name to file, of :func:`~fewseg.inference.find_images`.
        folder: the folder of the outputs.
        options: options of the run.

    Returns:
        The report; an image that cannot be used is in its ``problems`` and does not stop the run.

    Raises:
        DataError: the folder holds a run with different supports, model or settings, or another process is
            labelling into it.
        ValueError: there is no support, or an option is out of range.
        OSError: the folder is not writable or the disk is full; written images are complete, and the same
            run continues there.
    """
    options = options or RunOptions()
    options.check()
    record = folder / RUN_FILE
    before = range_before(record.read_bytes() if record.is_file() else None)
    segmenter.learn_range(list(images.values()), before)
    session = segmenter.session()
    flat = [name for name in options.formats if name in CLASS_FORMATS]
    if options.instances and flat:
        logger.info(
            "%s: classes of pixels, without instances; these are in predictions.jsonl, %s and other formats",
            ", ".join(flat), SUMMARY,
        )  # fmt: skip
    with claimed(folder, run_facts(session, segmenter.value_range, options)):
        unnamed = wrong_names(images, options.formats, session.supports.classes)
        for text in unnamed.values():
            logger.warning("skipped: %s", text)
        named = {name: file for name, file in images.items() if name not in unnamed}
        summary = RunSummary(session)
        # the folder that names are relative to
        root = next((file.absolute().parents[name.count("/")] for name, file in images.items()), None)
        with opened_outputs(folder, session.supports.classes, named, root, options) as outputs:
            todo = {name: file for name, file in named.items() if name not in outputs}
            lost = _run(segmenter, session, todo, outputs, folder / THUMBS, options, summary)
    return RunReport(
        done=len(todo) - len(lost),
        before=len(named) - len(todo),
        problems=problems_of(unnamed, lost),
        summary=summary.lines,
    )


def problems_of(unnamed: Mapping[str, str], lost: dict[str, str]) -> dict[str, str]:
    """What is wrong with images that no output can name, then with others; all names can be printed."""
    return {name.encode("utf-8", "backslashreplace").decode(): text for name, text in unnamed.items()} | lost


@contextmanager
def opened_outputs(
    folder: Path, classes: tuple[str, ...], names: Iterable[str], root: Path | None, options: RunOptions
) -> Iterator[Outputs]:
    """The outputs for images of a folder ``root``, which are completed unless the block raises."""
    write = WriteOptions(stems=output_stems(names), images=root, label_studio=options.label_studio)
    outputs = Outputs(folder, classes, options.formats, write)
    finished = False
    try:
        yield outputs
        finished = True
    finally:
        outputs.close(finish=finished)
    if options.instances:
        write_summary(folder)


def _run(
    segmenter: Segmenter,
    session: Session,
    images: Mapping[str, Path],
    outputs: Outputs,
    thumbs: Path,
    options: RunOptions,
    summary: RunSummary,
) -> dict[str, str]:
    """Labels images and returns, for those that could not be used, what is wrong with them."""
    lost: dict[str, str] = {}

    def read(name: str) -> tuple[Tensor, NDArray[np.uint8] | None]:
        pixels = read_image(images[name], name, segmenter.max_pixels, segmenter.value_range)
        return pixels, thumbnail(pixels) if options.sheet > 0 else None

    def write(prediction: Prediction, thumb: NDArray[np.uint8] | None) -> None:
        if thumb is not None:
            write_thumbnail(thumbs, prediction.name, thumb, prediction.labels)
        outputs.write(prediction)

    finished = label_stream(segmenter.model, session, images, read, write, lost, options, summary)
    with progress_bar(not options.quiet) as bar:
        task = bar.add_task("label", total=len(images))
        for _ in finished:
            bar.advance(task)
    return lost


def label_stream(
    model: Model,
    session: Session,
    names: Iterable[str],
    read: Callable[[str], tuple[Tensor, A]],
    write: Callable[[Prediction, A], None],
    problems: dict[str, str],
    options: RunOptions,
    summary: RunSummary | None = None,
) -> Iterator[str]:
    """Labels images one by one; yields each name once it is written or among the problems.

    Args:
        model: the model that encodes the images.
        session: the session of the supports.
        names: names of the images.
        read: returns the pixels (3, H, W) uint8 of an image, and a value that is passed on to ``write``.
        write: takes the predictions, in the order of the names, each with that value.
        problems: receives the names of images that could not be used, and what is wrong with them.
        options: options of the run.
        summary: receives the results too.
    """

    def prepared(name: str) -> tuple[PreparedImage, A]:
        pixels, beside = read(name)
        return model.prepare(pixels), beside

    def compute(batch: list[tuple[str, tuple[PreparedImage, A]]]) -> list[tuple[Segmentation, A]]:
        encoded = model.encode([image for _, (image, _) in batch])
        found = session.segment_all(encoded, quality=options.quality)
        results = [result.at(options.threshold) for result in found]
        if summary is not None:
            for (name, _), image, result in zip(batch, encoded, results, strict=True):
                summary.add(name, image, result)
        return [(result, beside) for result, (_, (_, beside)) in zip(results, batch, strict=True)]

    def failed(name: str, error: Exception) -> None:
        text = NO_MEMORY if isinstance(error, MemoryError) else str(error)
        problems[name] = text if name in text else f"{name}: {text}"
        logger.warning("skipped: %s", problems[name])

    def written(name: str, result: tuple[Segmentation, A]) -> None:
        segmentation = result[0]
        instances = segmentation.instances(options.instances, options.min_area) if options.instances else None
        write(segmentation.prediction(name, "probability" in options.formats, instances), result[1])

    return stream(
        names,
        prepared,
        compute,
        written,
        failed,
        workers=options.workers,
        ahead=2 * options.workers + options.batch,
        batch=options.batch,
    )


def range_before(record: bytes | None) -> ValueRange | None:
    """The range of values of an earlier run, from its file."""
    try:
        low, high = parse_json(record or b"")["value_range"]
        return float(low), float(high)
    except (ValueError, TypeError, KeyError):
        return None  # no run, one without a range, or a broken file, which is reported later


def run_facts(session: Session, value_range: ValueRange | None, options: RunOptions) -> dict[str, object]:
    """Everything that must be equal in two runs into one folder, and what the supports have chosen."""
    shapes = [name for name in options.formats if name in ("labelme", "labelme-polygons")]
    return {
        "format": "fewseg-run-1",
        "model": session.model.digest,
        "model_name": session.model.name,
        PRECISION: session.model.precision,
        "supports": _supports_key(session),
        "classes": list(session.supports.classes),
        "shots": {name: len(session.supports.positives(name)) for name in session.supports.classes},
        "threshold": options.threshold,
        "quality": options.quality,
        "value_range": value_range and list(value_range),
        INSTANCES: f"{options.instances} of {options.min_area} pixels" if options.instances else None,
        **({SHAPES: shapes[0]} if shapes else {}),
        **({CHOICE: session.choice.facts()} if session.choice else {}),
    }


def _supports_key(session: Session) -> str:
    """Key of the annotated images and their masks, whatever their order."""
    keys: list[list[str]] = []
    for support in session.supports.images:
        masks = {name: mask.cpu().contiguous().numpy() for name, mask in sorted(support.masks.items())}
        keys.append([support.image.digest, *(f"{k} {_digest(v.tobytes())}" for k, v in masks.items())])
    return _digest(json.dumps(sorted(keys)).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
