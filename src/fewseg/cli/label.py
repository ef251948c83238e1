"""``fewseg label`` and ``fewseg export``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from fewseg.cli.inference_options import ExportCommand, LabelCommand

if TYPE_CHECKING:
    from fewseg.inference.folder_run import RunOptions
    from fewseg.inference.formats import AnnotatedImage, ReadOptions
    from fewseg.inference.segmenter import Segmenter

SOME_FAILED = 3
"""Exit status of a run that could not use some of the images."""


def label(arguments: Sequence[str], console: Console) -> int:
    """Labels a folder; see ``LabelCommand``."""
    command = tyro.cli(LabelCommand, prog="fewseg label", args=arguments)
    from fewseg.inference.contact_sheet import write_sheet
    from fewseg.inference.folder_run import label_images
    from fewseg.inference.found_images import find_images
    from fewseg.inference.outputs import LINES

    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)
    options = _run_options(command)
    _check(command)
    images = find_images(command.images, leave_out=command.out)
    read = _annotated(command.support, _read_options(command))  # first: wrong input is told at once
    segmenter = _segmenter(command)
    _give_supports(segmenter, command.support, read)
    told = [segmenter.support(name) for name in segmenter.classes]
    shown = ", ".join(f"{s.name} ({s.shots} shown, {s.negatives} without)" for s in told)
    console.print(f"classes: {shown}", highlight=False, markup=False, soft_wrap=True)
    if command.save_support is not None:
        segmenter.save_supports(command.save_support)
    report = label_images(segmenter, images, command.out, options, progress=not command.quiet)
    if command.sheet > 0:
        write_sheet(command.out, command.out / LINES, report.problems, command.sheet)
    before = f", {report.before} were there before" if report.before else ""
    console.print(
        f"labelled: {report.done}{before}; skipped: {len(report.problems)}\noutput: {command.out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return SOME_FAILED if report.problems else 0


def export(arguments: Sequence[str], console: Console) -> None:
    """Writes ONNX graphs; see ``ExportCommand``."""
    command = tyro.cli(ExportCommand, prog="fewseg export", args=arguments)
    from fewseg.inference.formats import ReadOptions
    from fewseg.inference.onnx_export import ABOUT, export_onnx
    from fewseg.inference.segmenter import Segmenter
    from fewseg.ops.files import check_writable

    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)
    check_writable(command.out / ABOUT)
    read = _annotated(command.support, ReadOptions(class_name=command.class_name))
    segmenter = Segmenter.from_checkpoint(
        command.model,
        size=command.size,
        backbone=command.backbone,
        backbone_weights=command.backbone_weights,
    )
    _give_supports(segmenter, command.support, read)
    done = export_onnx(segmenter.model, segmenter.session(), command.out, command.tolerance)
    console.print(
        f"written: {done.folder}\nONNX Runtime differs from torch by {done.extract_error:.1e} (extract) and "
        f"{done.segment_error:.1e} (segment) of the largest value",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _check(command: LabelCommand) -> None:
    """Checks what can be told before the model is loaded and the supports are encoded.

    Raises:
        ValueError: an option is not accepted, or another process is at the folder.
        OSError: an output cannot be written.
    """
    from fewseg.inference.run_file import check_folder
    from fewseg.ops.files import check_writable

    if command.graphs is not None and command.backend != "onnx":
        raise ValueError("--graphs is for the ONNX backend: give --backend onnx too, or leave it out")
    if command.precision != "fp32" and command.backend == "onnx":
        raise ValueError("--precision bf16 is for torch: leave it out, or leave --backend onnx out")
    if command.sheet < 0:
        raise ValueError(f"--sheet is {command.sheet}; accepted are numbers of images, 0 for no sheet")
    check_folder(command.out)
    if command.save_support is not None:
        check_writable(command.save_support)


def _run_options(command: LabelCommand) -> RunOptions:
    from fewseg.inference.folder_run import RunOptions
    from fewseg.inference.outputs import LabelStudioNames

    return RunOptions(
        formats=command.format,
        threshold=command.threshold,
        quality=command.quality,
        thumbnails=command.sheet > 0,
        batch=command.batch,
        workers=command.workers,
        label_studio=LabelStudioNames(
            image_url=command.image_url, from_name=command.from_name, to_name=command.to_name
        ),
    )


def _segmenter(command: LabelCommand) -> Segmenter:
    from fewseg.inference.segmenter import Segmenter
    from fewseg.inference.views import Tiles, Whole

    segmenter = Segmenter.from_checkpoint(
        command.model,
        size=command.size,
        views=Whole() if command.tiles is None else Tiles(side=command.tiles, overlap=command.overlap),
        fusion=command.fusion,
        backbone=command.backbone,
        backbone_weights=command.backbone_weights,
        precision=command.precision,
        max_pixels=command.max_pixels,
    )
    if command.backend != "onnx":
        return segmenter
    from fewseg.inference.onnx_model import on_onnx_runtime

    return Segmenter(on_onnx_runtime(segmenter.model, command.graphs), max_pixels=command.max_pixels)


def _read_options(command: LabelCommand) -> ReadOptions:
    from fewseg.inference.formats import ReadOptions

    return ReadOptions(
        images=command.support_images,
        class_name=command.class_name,
        stroke=command.stroke,
        max_pixels=command.max_pixels,
    )


def _annotated(support: Path, options: ReadOptions) -> list[AnnotatedImage] | None:
    """The annotated images; None where the supports are a set that was saved.

    Raises:
        DataError: they cannot be read, or none of them names a class.
    """
    from fewseg.data.errors import DataError
    from fewseg.inference.formats import read_supports

    if support.suffix == ".safetensors":
        return None
    read = read_supports(support, options)
    if not any(image.masks for image in read):
        raise DataError(
            f"{support}: no class is marked on any of its {len(read)} images; accepted are supports of which "
            "one at least shows the thing: annotate it there"
        )
    return read


def _give_supports(segmenter: Segmenter, support: Path, read: list[AnnotatedImage] | None) -> None:
    if read is None:
        segmenter.load_supports(support)
    else:
        segmenter.add_annotated(read)
