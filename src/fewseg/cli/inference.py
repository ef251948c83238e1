"""``fewseg label``, ``export``, ``serve``, ``demo``, ``import-checkpoint``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class LabelCommand:
    """Labels a folder of images by a few annotated ones; run again, it does what is missing.

    Exit status: 0 all labelled, 3 some images could not be used (they are named), 1 nothing could be done.

    Attributes:
        support: annotated images: a folder (<class>/images with <class>/masks, images with masks, x.jpg
            beside x.png, LabelMe's files), a JSON file (COCO, LabelMe, Label Studio), or a saved support
            set (.safetensors).
        images: a folder, a pattern such as 'photos/**/*.jpg', or files.
        out: folder for masks, predictions.jsonl and contact-sheet.html.
        model: a checkpoint (.safetensors) or a recipe without training.
        format: what to write beside predictions.jsonl: png (class numbers), probability, coco, coco-results,
            labelme, labelme-polygons, label-studio.
        class_name: the class of masks that name none.
        support_images: folder of the support images, where the JSON file does not say.
        stroke: width of scribbles in pixels, where the file gives none.
        backbone: for a recipe without training: another timm network, such as vit_small_patch14_dinov2.
        backbone_weights: path of the frozen trunk's weights.
        size: side of the network's input in pixels; the recipe's or the training's by default.
        backend: what runs the backbone: torch, or ONNX Runtime (CPU only, needs `fewseg[onnx]`), which is
            faster on CPUs once there are tens of images.
        graphs: for the ONNX backend: a folder that `fewseg export` wrote; without it the graph is made first.
        fusion: how K supports become one answer; the method's own by default.
        precision: bf16 is up to twice as fast on CPUs that have it, with nearly the same masks.
        tiles: cut images into overlapping tiles of so many pixels; by default an image is resized to fit.
        overlap: of tiles, a share in [0, 0.9].
        threshold: least probability of a class against background.
        quality: judge every image (no further backbone pass, several of the head).
        sheet: images on the contact sheet, those of the lowest quality; 0 for none.
        save_support: also write the encoded supports to this file, which --support takes.
        image_url: of Label Studio's tasks; {name} becomes the image's name.
        from_name: name of Label Studio's BrushLabels tag.
        to_name: name of Label Studio's Image tag.
        max_pixels: larger images are refused.
        batch: images that go through the network together; more helps on a GPU.
        workers: threads that read images.
        quiet: no progress: no bar in a terminal, no lines elsewhere.
    """

    support: Path
    images: tuple[str, ...]
    out: Path
    model: str = "pascal_matcher_resnet50"
    format: tuple[
        Literal[
            "png",
            "probability",
            "coco",
            "coco-results",
            "labelme",
            "labelme-polygons",
            "label-studio",
            "jsonl",
        ],
        ...,
    ] = ("png",)
    class_name: str = "object"
    support_images: Path | None = None
    stroke: float = 10.0
    backbone: str | None = None
    backbone_weights: str | None = None
    size: int | None = None
    backend: Literal["torch", "onnx"] = "torch"
    graphs: Path | None = None
    fusion: Literal["mean", "average", "cross-guided", "iterative", "attention"] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    tiles: int | None = None
    overlap: float = 0.25
    threshold: float = 0.5
    quality: bool = True
    sheet: int = 300
    save_support: Path | None = None
    image_url: str = "/data/local-files/?d={name}"
    from_name: str = "tag"
    to_name: str = "image"
    max_pixels: int = 89_478_485
    batch: int = 1
    workers: int = 2
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes a model as two ONNX graphs, extract and segment, and checks them in ONNX Runtime.

    Needs the extra: ``pip install 'fewseg[onnx]'``. The support state is an input of segment.onnx; its sizes
    are those of the supports given here.

    Attributes:
        support: annotated images or a saved support set, as `fewseg label` takes them.
        out: folder for extract.onnx, segment.onnx and model.json.
        model: a checkpoint (.safetensors) or a recipe without training.
        class_name: the class of masks that name none.
        backbone: for a recipe without training: another timm network.
        backbone_weights: path of the frozen trunk's weights.
        size: side of the network's input in pixels; the recipe's or the training's by default.
        tolerance: largest difference from torch, as a share of the largest value.
    """

    support: Path
    out: Path
    model: str = "pascal_matcher_resnet50"
    class_name: str = "object"
    backbone: str | None = None
    backbone_weights: str | None = None
    size: int | None = None
    tolerance: float = 1e-3


if TYPE_CHECKING:
    from fewseg.annotations import AnnotatedImage, ReadOptions
    from fewseg.demo import DemoOptions
    from fewseg.inference.folder_run import RunOptions
    from fewseg.inference.segmenter import Segmenter
    from fewseg.serve import ServeOptions

SOME_FAILED = 3
"""Exit status of a run that could not use some of the images."""


def label(command: LabelCommand, console: Console) -> int:
    """Labels a folder; see ``LabelCommand``."""
    from fewseg.inference.contact_sheet import write_sheet
    from fewseg.inference.folder_run import label_images
    from fewseg.inference.images import find_images
    from fewseg.inference.outputs import LINES

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


def export(command: ExportCommand, console: Console) -> None:
    """Writes ONNX graphs; see ``ExportCommand``."""
    from fewseg.annotations import ReadOptions
    from fewseg.inference.onnx import ABOUT, export_onnx
    from fewseg.inference.segmenter import Segmenter
    from fewseg.ops.files import check_writable

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
    """Checks what can be told before the model is loaded and the supports are encoded."""
    from fewseg.inference.folder_run import check_folder
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
    from fewseg.annotations import LabelStudioNames
    from fewseg.inference.folder_run import RunOptions

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
    from fewseg.inference.model import Tiles, Whole
    from fewseg.inference.segmenter import Segmenter

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
    from fewseg.inference.onnx import on_onnx_runtime

    return Segmenter(on_onnx_runtime(segmenter.model, command.graphs), max_pixels=command.max_pixels)


def _read_options(command: LabelCommand) -> ReadOptions:
    from fewseg.annotations import ReadOptions

    return ReadOptions(
        images=command.support_images,
        class_name=command.class_name,
        stroke=command.stroke,
        max_pixels=command.max_pixels,
    )


def _annotated(support: Path, options: ReadOptions) -> list[AnnotatedImage] | None:
    """The annotated images; None where the supports are a set that was saved."""
    from fewseg.annotations import read_supports
    from fewseg.types import DataError

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


@dataclass(frozen=True, kw_only=True)
class ImportCommand:
    """Turns released PFENet or SCL(PFENet) weights into a fewseg checkpoint; runs no code from the file.

    Attributes:
        source: the released .pth file.
        target: the .safetensors file to write.
        fold: the PASCAL-5i fold it was trained on, so that a test on classes of its training is refused; no
            released file says so.
        scales: its pyramid scales.
    """

    source: Annotated[Path, tyro.conf.Positional]
    target: Annotated[Path, tyro.conf.Positional]
    fold: int | None = None
    scales: tuple[float, ...] = (60, 30, 15, 8)


def demo(options: DemoOptions, console: Console) -> None:
    """Runs the demo."""
    from fewseg.demo import rich_table, run_demo

    found = run_demo(options)
    console.print(rich_table(found.results))
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in found.seconds.items())
    console.print(f"time: {spent}\nreport: {found.report}", highlight=False, soft_wrap=True)


def import_checkpoint(command: ImportCommand, console: Console) -> None:
    """Writes a checkpoint of released weights."""
    from fewseg.data.folds import pascal_5i
    from fewseg.engine import released

    split = None if command.fold is None else pascal_5i(command.fold)
    imported = released.import_checkpoint(
        command.source, command.target, scales=command.scales, class_split=split
    )
    console.print(f"{imported.method}: {imported.report.summary()}\nwritten: {command.target}")


def serve(options: ServeOptions, console: Console) -> None:
    """Serves the page."""
    from fewseg.serve import serve as run_server

    run_server(options, partial(console.print, highlight=False, markup=False, soft_wrap=True))
