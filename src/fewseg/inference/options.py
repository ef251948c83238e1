"""The options of ``fewseg label`` and ``fewseg export``; free of torch, so that they are parsed at once."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from fewseg.annotations.options import Format, LabelStudioNames, ReadOptions
from fewseg.engine.choices import FusionName, Precision
from fewseg.ops.files import check_writable

DEFAULT_MODEL = "pascal_matcher_resnet50"
"""The recipe that needs neither training nor a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is used, and how.

    Attributes:
        model: a checkpoint (.safetensors) or a recipe without training.
        backbone: for a recipe without training: a different timm network, such as vit_small_patch14_dinov2.
        backbone_weights: path of the frozen trunk's weights, where it moved.
        size: side of the network's input in pixels; the recipe's or the training's by default.
        fusion: how K supports become one answer: mean, average, cross-guided, attention or iterative, as far
            as the method has it; the method's own by default.
        precision: bf16 is up to twice as fast on CPUs that have it, with nearly the same masks.
        tiles: cut images into overlapping tiles of so many pixels; by default an image is resized to fit.
        overlap: of tiles, a share in [0, 0.9].
    """

    model: str = DEFAULT_MODEL
    backbone: str | None = None
    backbone_weights: str | None = None
    size: int | None = None
    fusion: FusionName | None = None
    precision: Precision = "fp32"
    tiles: int | None = None
    overlap: float = 0.25

    def check(self) -> None:
        """Raises a FileNotFoundError where the model is the path of a file that does not exist."""
        if Path(self.model).suffix and not Path(self.model).exists():
            raise FileNotFoundError(f"no checkpoint at {self.model}: give the path of a .safetensors file")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a folder is labelled and what is written.

    Attributes:
        formats: what to write, beside predictions.jsonl.
        threshold: least probability, in (0, 1), of a class against background.
        quality: judge every image (no further backbone pass, several of the head).
        sheet: images on the contact sheet, those of the lowest quality; 0 for none.
        batch: images that go through the network together; more helps on a GPU.
        workers: threads that read images.
        label_studio: names of the Label Studio project.
        quiet: no progress: no bar in a terminal, no lines elsewhere.
    """

    formats: Annotated[tuple[Format, ...], arg(name="format")] = ("png",)
    threshold: float = 0.5
    quality: bool = True
    sheet: int = 300
    batch: int = 1
    workers: int = 2
    label_studio: LabelStudioNames = field(default_factory=LabelStudioNames)
    quiet: bool = False

    def check(self) -> None:
        """Raises a ValueError where a number is out of range or two formats write the same files."""
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {self.threshold}")
        if self.sheet < 0:
            raise ValueError(f"sheet must be a number of images, 0 for no contact sheet, got {self.sheet}")
        if self.batch < 1 or self.workers < 1:
            raise ValueError(f"batch and workers must be 1 or more, got {self.batch} and {self.workers}")
        if {"labelme", "labelme-polygons"} <= set(self.formats):
            raise ValueError("labelme and labelme-polygons write the same files: choose one of them")


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labels a folder of images by a few annotated ones; run again, it does what is missing.

    Exit status: 0 all labelled, 3 some images could not be used (they are named), 1 nothing could be done.

    Attributes:
        support: annotated images: a folder (<class>/images with <class>/masks, images with masks, x.jpg
            beside x.png, LabelMe's files), a JSON file (COCO, LabelMe, Label Studio), or a saved support
            set (.safetensors).
        images: a folder, a pattern such as 'photos/**/*.jpg', or files.
        out: folder for masks, predictions.jsonl and contact-sheet.html.
        save_support: also write the encoded supports to this file, which --support takes.
        backend: what runs the backbone: torch, or ONNX Runtime (CPU only, needs `fewseg[onnx]`), which is
            faster on CPUs once there are tens of images.
        graphs: for the ONNX backend: a folder that `fewseg export` wrote; without it the graph is made first.
        model: which model is used, and how.
        read: how annotated images are read; its ``max_pixels`` is the limit of all images.
        run: how a folder is labelled and what is written.
    """

    support: Path
    images: tuple[str, ...]
    out: Path
    save_support: Path | None = None
    backend: Literal["torch", "onnx"] = "torch"
    graphs: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def check(self) -> None:
        """Checks what can be known before a model is loaded.

        Raises:
            ValueError: an option is out of range or does not go with another one.
            OSError: an input does not exist, or an output cannot be written.
        """
        if self.graphs is not None and self.backend != "onnx":
            raise ValueError("--graphs is for the ONNX backend: give --backend onnx too, or leave it out")
        if self.model.precision != "fp32" and self.backend == "onnx":
            raise ValueError("--precision bf16 is for torch: leave it out, or leave --backend onnx out")
        self.read.check()
        self.run.check()
        self.model.check()
        for place in self.images:
            if place.strip() and not Path(place).exists() and glob.escape(place) == place:
                raise FileNotFoundError(
                    f"{place} does not exist: give a folder of images, a pattern or files"
                )
        check_support(self.support)
        check_writable(self.out / "run.json")
        if self.save_support is not None:
            check_writable(self.save_support)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Writes a model as two ONNX graphs, extract and segment, and checks them in ONNX Runtime.

    Needs the extra: ``pip install 'fewseg[onnx]'``. The support state is an input of segment.onnx; its sizes
    are those of the supports given here.

    Attributes:
        support: annotated images or a saved support set, as `fewseg label` takes them.
        out: folder for extract.onnx, segment.onnx and model.json.
        tolerance: largest difference from torch, as a share of the largest value.
        model: which model is exported, and how.
        read: how annotated images are read.
    """

    support: Path
    out: Path
    tolerance: float = 1e-3
    model: ModelOptions = field(default_factory=ModelOptions)
    read: ReadOptions = field(default_factory=ReadOptions)

    def check(self) -> None:
        """Raises as :meth:`LabelOptions.check`."""
        self.read.check()
        self.model.check()
        if self.model.precision != "fp32":
            raise ValueError(f"--precision must be fp32 for an export, got {self.model.precision}")
        check_support(self.support)
        check_writable(self.out / "model.json")


def check_support(path: Path) -> None:
    """Raises a FileNotFoundError where nothing is at the path."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder of images and masks, a JSON file (COCO, LabelMe, Label "
            "Studio) or a saved support set (.safetensors)"
        )
