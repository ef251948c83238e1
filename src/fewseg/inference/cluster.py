"""``fewseg label --ray``: images from anywhere, labelled by the actors of a Ray cluster, shard by shard.

Each shard is a list of images that one actor labels as a single machine does, and writes as one Parquet file
in one step. A run goes on after a kill with the images that no file has.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewseg.annotations.image_files import read_rgb
from fewseg.annotations.options import ValueRange
from fewseg.annotations.parquet import parquet_bytes, part_name, read_columns, read_parquet
from fewseg.annotations.values import Prediction
from fewseg.annotations.writer import line_of
from fewseg.engine.executors import ray_cluster, ray_errors, ray_workers
from fewseg.inference.advice import Findings, RunSummary
from fewseg.inference.choose import Choice
from fewseg.inference.find import Place, find_everywhere
from fewseg.inference.folder_run import (
    CHOICE,
    RUN_FILE,
    SHAPES,
    RunReport,
    claimed,
    label_stream,
    opened_outputs,
    problems_of,
    range_before,
    run_facts,
    run_record,
    segmenter_of,
)
from fewseg.inference.images import value_range_of
from fewseg.inference.model import Model
from fewseg.inference.options import LabelOptions
from fewseg.inference.outputs import THUMBS, thumbnail, write_sheet, write_thumbnail, wrong_names
from fewseg.inference.segmentation import Session
from fewseg.inference.segmenter import Segmenter, evenly
from fewseg.inference.supports import SupportSet
from fewseg.ops.places import as_url, exists, is_remote, opened, read_bytes, write_bytes
from fewseg.ops.progress import progress_bar
from fewseg.recipes.resolve import best_device
from fewseg.types import DataError

logger = logging.getLogger(__name__)

_RETRIES = 3  # how often a shard is begun again whose actor was lost
_MOST_BYTES = 2**30  # of an image file


def label_on_ray(options: LabelOptions) -> RunReport:
    """Labels images on a Ray cluster; a second run does only what is missing.

    Args:
        options: with ``ray``; see :class:`~fewseg.inference.LabelOptions`.

    Returns:
        What was done; an image that cannot be used is in ``problems``, and in a row of its own of the
        results, and is not tried again.

    Raises:
        ValueError: an option is out of range, the supports or the model cannot be used, or the output is
            that of a different run or of one that is still going on.
        OSError: a place of images or the output cannot be reached or written; the same run continues there.
        RuntimeError: Ray is not installed, the cluster has other versions, or workers are lost repeatedly.
    """
    options.check()
    out = as_url(options.out) if is_remote(options.out) else str(options.out.absolute())
    images = find_everywhere(options.images, leave_out=options.out)
    record = _record(out)
    with ray_cluster(options.ray_workers) as ray:
        workers, resources = ray_workers(ray, options.ray_workers)
        # what is wrong with places and the cluster is reported before the model is loaded and fitted
        segmenter, expected = segmenter_of(options)
        if segmenter.value_range is None:
            before = range_before(record) or value_range_of(_some(images), options.read.max_pixels)
            segmenter.learn_range([], before)
        session = segmenter.session()
        options = replace(options, ray_workers=workers, run=replace(options.run, formats=options.ray_format))
        facts = {**run_facts(session, segmenter.value_range, options.run), "format": "fewseg-ray-run-1"}
        unnamed = wrong_names(images, options.ray_format, session.supports.classes)
        with _claimed(ray, out, facts) as keeper:
            done = _problems_by_name(out, key := _run_key(facts))
            todo = {k: place for k, place in images.items() if k not in done and k not in unnamed}
            for part in _label(ray, keeper, segmenter, session, todo, out, options, resources):
                if part["error"]:
                    raise OSError(f"{part['error']}; what was written is whole, and the same command goes on")
            summary = RunSummary(session)
            summary.findings.add(ray.get(keeper.found.remote()))
            rows = _problems_by_name(out, key) if todo else done
            if missing := todo.keys() - rows.keys():
                raise OSError(
                    f"{out} lacks {len(missing)} images that workers have written, such as {min(missing)}: "
                    "it must be one place for all machines, a shared disk or an object store"
                )
            lost = {k: text for k, text in rows.items() if text is not None}
            problems = problems_of(unnamed, {k: lost[k] for k in images if k in lost})
            for text in problems.values():
                logger.warning("skipped: %s", text)
            if options.ray_format:
                named = {k: place for k, place in images.items() if k not in unnamed}
                _write_formats(named, session.supports.classes, options)
                if options.run.sheet > 0:
                    _write_sheet(named, problems, segmenter.value_range, options, expected)
    return RunReport(
        done=len(todo.keys() - lost.keys()),
        before=len((done.keys() & images.keys()) - lost.keys()),
        problems=problems,
        summary=summary.lines,
    )


def _problems_by_name(out: str, key: str) -> dict[str, str | None]:
    """The images that results have, each with what is wrong with it; an image with masks has none."""
    rows = read_columns(out, ["name", "problem"], key)
    found: dict[str, str | None] = {}
    for name, problem in zip(rows["name"], rows["problem"], strict=True):
        found[name] = problem and found.get(name, problem)
    return found


def _run_key(facts: Mapping[str, object]) -> str:
    """Of all settings that results depend on."""
    known = {name: fact for name, fact in facts.items() if name not in ("format", CHOICE, SHAPES)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _write_formats(images: Mapping[str, Place], classes: tuple[str, ...], options: LabelOptions) -> None:
    """Writes what a run without Ray writes, from the Parquet files, and goes on where it was killed."""
    name, (place, path) = next(iter(images.items()), ("", ("", "")))
    root = Path(path).parents[name.count("/")] if place == "file://" and path.endswith(f"/{name}") else None
    with opened_outputs(options.out, classes, images, root, options.run) as outputs:
        todo = [name for name in images if name not in outputs]
        for prediction in read_parquet(str(options.out.absolute()), todo):
            outputs.write(prediction)


def _write_sheet(
    images: Mapping[str, Place],
    problems: Mapping[str, str],
    value_range: ValueRange | None,
    options: LabelOptions,
    expected: Sequence[str],
) -> None:
    """Writes the contact sheet; the images that it shows are read again."""

    def draw(prediction: Prediction) -> None:
        name = prediction.name
        try:
            content = _content(name, *images[name])
            pixels = read_rgb(name, options.read.max_pixels, value_range, content)
        except DataError as error:
            logger.warning("not on the contact sheet: %s", error)
            return
        write_thumbnail(options.out / THUMBS, name, thumbnail(pixels), prediction.labels)

    write_sheet(options.out, problems, options.run.sheet, expected, draw)


def _label(
    ray: Any,
    keeper: Any,
    segmenter: Segmenter,
    session: Session,
    images: Mapping[str, Place],
    out: str,
    options: LabelOptions,
    resources: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    """Labels images; yields what each shard came to."""
    if not images:
        return
    names, count = list(images), options.ray_shard
    shards = [
        {"names": group, "places": [images[k][0] for k in group], "paths": [images[k][1] for k in group]}
        for group in (names[i : i + count] for i in range(0, len(names), count))
    ]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # actors may have no GPU, or another one
    supports, choice = _moved(torch.device("cpu"), segmenter.model, session.supports, session.choice)
    given = ray.put((segmenter.model, supports, choice, segmenter.value_range))
    data = ray.data.from_items(shards, override_num_blocks=len(shards)).map(
        ShardLabeller,
        fn_constructor_args=(given, keeper, out, options),
        compute=ray.data.ActorPoolStrategy(size=min(options.ray_workers, len(shards))),
        **resources,
    )
    with progress_bar(not options.run.quiet) as bar, ray_errors(ray):
        task = bar.add_task("label", total=len(images))
        for part in data.iter_rows():
            bar.advance(task, part["images"])
            yield part


def _moved(
    device: torch.device, model: Model, supports: SupportSet, choice: Choice | None
) -> tuple[SupportSet, Choice | None]:
    """Moves the networks to a device; returns the supports and the choice there."""
    supports = supports.to(device)
    model.method.to(device)
    if choice is None:
        return supports, None
    choice.model.method.to(device)
    images = {support.image.digest: support.image for support in supports.images}
    held = [
        replace(h, image=replace(h.image, image=images.get(h.image.image.digest, h.image.image)))
        for h in choice.held
    ]
    return supports, replace(choice, held=tuple(held))


class ShardLabeller:
    """An actor that holds the model and labels one shard after the other."""

    def __init__(self, given: Any, keeper: Any, out: str, options: LabelOptions) -> None:
        import ray

        self.ray, self.keeper = ray, keeper
        self.model, supports, choice, self.value_range = ray.get(given)
        supports, choice = _moved(best_device(), self.model, supports, choice)
        self.session = Session(self.model, supports, choice=choice)
        self.out, self.options = out, options
        self.key = _run_key(run_facts(self.session, self.value_range, options.run))
        self.seen: dict[str, str] = {}  # of each place, the path of a file that was read

    def __call__(self, shard: dict[str, Any]) -> dict[str, Any]:
        """Writes the file of a shard, unless it exists already."""
        names = list(shard["names"])
        places = dict(zip(names, zip(shard["places"], shard["paths"], strict=True), strict=True))
        outcome = {"images": len(names), "error": ""}
        file = part_name(names)
        begun = self.ray.get(self.keeper.begin.remote(file))
        if begun > 1 + _RETRIES:
            outcome["error"] = (
                f"{begun - 1} workers were lost at the images {names[0]} .. {names[-1]}: give fewer workers, "
                "each with more memory, or see in Ray's logs why they died"
            )
            return outcome
        try:
            if not exists(self.out, file):
                summary, classes = RunSummary(self.session), self.session.supports.classes
                content = parquet_bytes(self._lines(places, summary), classes, self.key)
                write_bytes(self.out, file, content)
                self.ray.get(self.keeper.add.remote(summary.findings))
        except OSError as error:
            outcome["error"] = " ".join((error.strerror or str(error)).split())
        return outcome

    def _lines(self, places: Mapping[str, Place], summary: RunSummary) -> list[dict[str, object]]:
        """A line for each image, in order."""
        run, most = self.options.run, self.options.read.max_pixels
        lines: dict[str, dict[str, object]] = {}
        problems: dict[str, str] = {}
        refused: dict[str, _RefusedError] = {}  # by place

        def read(name: str) -> tuple[Tensor, None]:
            place, path = places[name]
            try:
                content = _content(name, place, path)
            except _RefusedError as error:
                refused.setdefault(place, error)
                raise
            self.seen[place] = path
            return read_rgb(name, most, self.value_range, content), None

        def write(prediction: Prediction, _: None) -> None:
            lines[prediction.name] = {"name": prediction.name, **line_of(prediction)}

        for _ in label_stream(self.model, self.session, places, read, write, problems, run, summary):
            pass
        for place, error in refused.items():  # an image is at fault only where another one can be read now
            if place not in self.seen:
                raise OSError(str(error)) from error
            read_bytes(place, self.seen[place], 1)
        lines |= {name: {"name": name, "problem": text} for name, text in problems.items()}
        return [lines[name] for name in places]


class _RefusedError(DataError):
    """An image that may not be read."""


def _content(name: str, place: str, path: str) -> bytes:
    """The bytes of an image file; a DataError where it is broken, gone, too large or may not be read."""
    try:
        content = read_bytes(place, path, _MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no {path} in {place}") from error
    except PermissionError as error:
        raise _RefusedError(f"{name}: {error}") from error
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{name} has more than {_MOST_BYTES} bytes: shrink it, or leave it out")
    return content


def _some(images: Mapping[str, Place]) -> Iterator[bytes]:
    """The contents of the images that a range of values is taken from, one by one; bad ones are left out."""
    for name in evenly(list(images)):
        with suppress(DataError):  # labelling names what is wrong
            yield _content(name, *images[name])


def _record(out: str) -> bytes | None:
    """The file of a run, where there is one."""
    try:
        return read_bytes(out, f"{opened(out)[1]}/{RUN_FILE}", _MOST_BYTES)
    except (FileNotFoundError, DataError):
        return None


@contextmanager
def _claimed(ray: Any, out: str, facts: Mapping[str, object]) -> Iterator[Any]:
    """As :func:`.folder_run.claimed`, of any place; two runs on one cluster are kept apart too."""
    key = hashlib.sha256(out.encode()).hexdigest()[:16]
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )  # no other machine may end the run when it goes
    try:
        keeper = ray.remote(num_cpus=0)(_Keeper)
        keeper = keeper.options(name=f"label {key}", namespace="fewseg", scheduling_strategy=here).remote()
    except ValueError as error:
        raise DataError(
            f"another run labels into {out} now: wait for it, or choose a different place"
        ) from error
    try:
        with nullcontext() if is_remote(out) else claimed(Path(out), facts):
            if is_remote(out):
                write_bytes(out, RUN_FILE, run_record(out, _record(out), facts).encode())
            yield keeper
    finally:
        ray.kill(keeper)


class _Keeper:
    """One for each place of results; lives as long as the process that labels, and counts for its workers."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._found = Findings()

    def begin(self, file: str) -> int:
        """How often the shard of a file was begun, this time included."""
        self._begun[file] += 1
        return self._begun[file]

    def add(self, found: Findings) -> None:
        """Adds what was found on the images of a shard, once its file is written."""
        self._found.add(found)

    def found(self) -> Findings:
        """What this run has found so far."""
        return self._found
