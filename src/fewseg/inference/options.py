"""The options of ``fewseg label`` and ``fewseg export``; free of torch, so that they are parsed at once."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from fewseg.annotations.options import SUPPORT_FORMATS, Format, LabelStudioNames, ReadOptions
from fewseg.engine.choices import FusionName, PrecisionOption
from fewseg.inference.find import find_images
from fewseg.ops.files import check_writable
from fewseg.ops.places import as_url, is_remote
from fewseg.recipes.names import check_recipe_name

AUTO, AUTO_RECIPE = "auto", "fitted_resnet50"
DEFAULT_MODEL = AUTO
"""The method that suits the examples best."""

QUICK_MODEL = "pascal_matcher_resnet50"
"""The recipe that needs no training, no checkpoint and no time to fit."""


Split = Literal["components", "watershed"]
"""How a class's mask becomes single things."""

MIN_AREA = 10
"""Pixels of the smallest thing that is counted by default."""


Refinement = Literal["auto", "off", "half", "full"]
"""How far the edges of masks follow those of the image."""

LEAST_SIZE = 33
"""Pixels of the smallest input of a network."""


def check_size(size: int) -> None:
    """Raises a ValueError where the side of an input, in pixels, is too small for a network."""
    if size < LEAST_SIZE:
        raise ValueError(
            f"the input size must be {LEAST_SIZE} pixels or more, best of the form 8k + 1, got {size}"
        )


def check_tiles(side: int | None, overlap: float) -> None:
    """Raises a ValueError where the side of a tile, in pixels, or its overlap is out of range."""
    if (side is not None and side < 1) or not 0 <= overlap <= 0.9:
        raise ValueError(
            f"tiles must have a side of at least 1 pixel and an overlap in [0, 0.9], got {side} and {overlap}"
        )


def check_instances(split: str, min_area: int) -> None:
    """Raises a ValueError where a split is unknown or an area is below 1."""
    if split not in get_args(Split):
        raise ValueError(f"the split of instances must be one of {', '.join(get_args(Split))}, got {split!r}")
    if min_area < 1:
        raise ValueError(f"the least area must be 1 pixel or more, got {min_area}")


def auto_recipe(model: str) -> str | None:
    """The recipe whose backbone and size ``auto`` and ``auto:RECIPE`` use; None for all other models."""
    kind, _, recipe = model.partition(":")
    return (recipe or AUTO_RECIPE) if kind == AUTO else None


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is used, and how."""

    model: str = DEFAULT_MODEL
    """a checkpoint (.safetensors), a recipe without training, or "auto" for the method that suits the
    examples best by a cross-validation on them, which takes a minute or more on two CPU cores ("auto:RECIPE"
    for the backbone of a fitted head's recipe)."""
    backbone: str | None = None
    """for a recipe without training: a different timm network, such as vit_small_patch14_dinov2."""
    backbone_weights: str | None = None  # path of the frozen trunk's weights, where it moved.
    size: int | None = None
    """side of the network's input in pixels; the recipe's or the training's by default."""
    fusion: FusionName | None = None
    """how K supports become one answer, of those that the method has; the method's own by default."""
    precision: PrecisionOption = "auto"
    """bf16 is up to twice as fast where the CPU or GPU has it, with nearly the same masks, and up to six
    times slower elsewhere; auto takes what the machine has, or what a saved support set was encoded in."""
    tiles: int | None = None
    """cut images into overlapping tiles of so many pixels; by default an image is resized to fit."""
    overlap: float = 0.25  # of tiles, a share in [0, 0.9].
    refine: Refinement = "auto"
    """how far the edges of masks follow those of the image (a guided filter); auto leaves it to the examples
    where they choose, and is off elsewhere."""

    def check(self) -> None:
        """Raises a FileNotFoundError or a ValueError for an unknown checkpoint or recipe, or a bad number."""
        if self.size is not None:
            check_size(self.size)
        check_tiles(self.tiles, self.overlap)
        if Path(self.model).suffix and not Path(self.model).exists():
            raise FileNotFoundError(f"no checkpoint at {self.model}: give the path of a .safetensors file")
        if not Path(self.model).exists():
            check_recipe_name(auto_recipe(self.model) or self.model, (AUTO,))


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a folder is labelled and what is written."""

    formats: Annotated[tuple[Format, ...], arg(name="format")] = ("png",)
    """what to write, beside predictions.jsonl."""
    threshold: float = 0.5
    """least probability, in (0, 1), of a class against background; with auto, 0.5 stands for the threshold
    that was chosen for the class."""
    instances: Split | None = None
    """find single things, with area, box and score, in all formats that can hold them, and count them in
    summary.csv: components are the connected pieces of a class; watershed splits them where they are narrow,
    for round things that touch."""
    min_area: int = MIN_AREA  # pixels of the smallest thing that is counted; of --instances alone.
    quality: bool = True  # judge every image (no further backbone pass, several of the head).
    sheet: int = 300  # images on the contact sheet, those of the lowest quality; 0 for none.
    batch: int = 1  # images that go through the network together; more helps on a GPU.
    workers: int = 2  # threads that read images.
    label_studio: LabelStudioNames = field(default_factory=LabelStudioNames)
    """names of the Label Studio project."""
    quiet: bool = False  # no progress: no bar in a terminal, no lines elsewhere.

    def check(self) -> None:
        """Raises a ValueError where a number is out of range or two formats write the same files."""
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {self.threshold}")
        if self.sheet < 0:
            raise ValueError(f"sheet must be a number of images, 0 for no contact sheet, got {self.sheet}")
        if self.instances is not None:
            check_instances(self.instances, self.min_area)
        if self.batch < 1 or self.workers < 1:
            raise ValueError(f"batch and workers must be 1 or more, got {self.batch} and {self.workers}")
        if {"labelme", "labelme-polygons"} <= set(self.formats):
            raise ValueError("labelme and labelme-polygons write the same files: choose one of them")


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labels a folder of images from a few annotated ones. Run it again to continue.

    Exit status: 0 all labelled, 3 some images could not be used (they are named), 1 nothing could be done.
    """

    support: Path
    """annotated images: a JSON file (COCO, LabelMe, Label Studio, VIA), CVAT's XML, YOLO's data.yaml, a saved
    support set (.safetensors), or a folder: <class>/images with <class>/masks, images with masks, x.jpg
    beside x.png (with classes.txt, a name a line, where masks show several classes), or a folder exported
    by one of these tools."""
    images: tuple[str, ...]  # a folder, a pattern such as 'photos/**/*.jpg', or files.
    out: Path  # folder for masks, predictions.jsonl and contact-sheet.html.
    save_support: Path | None = None  # also write the encoded supports to this file, which --support takes.
    backend: Literal["torch", "onnx"] = "torch"
    """what runs the backbone; onnx (CPU only, needs `fewseg[onnx]`) is faster from tens of images on."""
    graphs: Path | None = None
    """for the ONNX backend: a folder that `fewseg export` wrote; without it the graph is made first."""
    model: ModelOptions = field(default_factory=ModelOptions)  # which model is used, and how.
    read: ReadOptions = field(default_factory=ReadOptions)
    """how annotated images are read; its ``max_pixels`` is the limit of all images."""
    run: RunOptions = field(default_factory=RunOptions)  # how a folder is labelled and what is written.
    ray: bool = False
    """label on a Ray cluster ($RAY_ADDRESS), or on one of this machine. Images may then lie anywhere that
    fsspec reads (s3://bucket/photos, photos.zip, a list.parquet with a column path), and so may --out, which
    gets Parquet files in place of --format."""
    ray_format: tuple[Format, ...] = ()
    """with --ray, and --out a folder of this machine: what to write from the Parquet files at the end, beside
    predictions.jsonl and the contact sheet; the same files as without --ray."""
    ray_workers: int = 0  # with --ray: how many hold the model; 0 for one on each GPU, or else on each CPU.
    ray_shard: int = 256  # with --ray: images of a Parquet file, which a killed run goes on after.

    def check(self) -> None:
        """Checks what can be known before a model is loaded.

        Raises:
            ValueError: an option is out of range or does not go with another one.
            OSError: an input does not exist, or an output cannot be written.
        """
        if self.ray_format and not self.ray:
            raise ValueError("--ray-format is for --ray: give --format")
        if self.graphs is not None and self.backend != "onnx":
            raise ValueError("--graphs is for the ONNX backend: give --backend onnx too, or leave it out")
        if self.model.precision == "bf16" and self.backend == "onnx":
            raise ValueError("--precision bf16 is for torch: leave it out, or leave --backend onnx out")
        self.read.check()
        self.run.check()
        self.model.check()
        check_support(self.support)
        if self.save_support is not None:
            check_writable(self.save_support)
        if self.ray:
            self._check_ray()
            return
        for place in self.images:
            if place.strip() and not Path(place).exists() and glob.escape(place) == place:
                raise FileNotFoundError(
                    f"{place} does not exist: give a folder of images, a pattern or files"
                )
        find_images(self.images, leave_out=self.out)
        check_writable(self.out / "run.json")

    def _check_ray(self) -> None:
        if self.ray_workers < 0 or self.ray_shard < 1:
            raise ValueError(
                f"--ray-workers must be 0 or more and --ray-shard 1 or more, got {self.ray_workers} and "
                f"{self.ray_shard}"
            )
        if self.backend != "torch":
            raise ValueError("--ray needs --backend torch: leave --backend out")
        if self.run.formats != RunOptions.formats:
            raise ValueError("--ray writes Parquet: give --ray-format in place of --format")
        if self.ray_format and is_remote(self.out):
            raise ValueError(
                f"--ray-format needs an --out on a disk of this machine, got {as_url(self.out)}: leave it "
                "out, or write from what fewseg.annotations.parquet.read_parquet gives"
            )
        if as_url(self.out).endswith(".zip"):
            raise ValueError(
                f"--ray cannot write into an archive, got --out {as_url(self.out)}: give a folder"
            )
        if not is_remote(self.out):
            check_writable(self.out / "run.json")
        if "probability" in self.ray_format:
            raise ValueError(
                "--ray-format cannot be probability, which Parquet files do not hold: leave it out"
            )
        replace(self.run, formats=self.ray_format).check()


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Writes a model as two ONNX graphs, extract and segment, and checks them in ONNX Runtime.

    Needs the extra: ``pip install 'fewseg[onnx]'``. The support state is an input of segment.onnx; its sizes
    are those of the supports given here.
    """

    support: Path  # annotated images or a saved support set, as `fewseg label` takes them.
    out: Path  # folder for extract.onnx, segment.onnx and model.json.
    tolerance: float = 1e-3  # largest difference from torch, as a share of the largest value.
    model: ModelOptions = field(default_factory=lambda: ModelOptions(model=QUICK_MODEL))
    """which model is exported, and how."""
    read: ReadOptions = field(default_factory=ReadOptions)  # how annotated images are read.

    def check(self) -> None:
        """Raises as :meth:`LabelOptions.check`."""
        self.read.check()
        self.model.check()
        if self.model.precision == "bf16":
            raise ValueError(f"--precision must be fp32 for an export, got {self.model.precision}")
        check_support(self.support)
        check_writable(self.out / "model.json")


def check_support(path: Path) -> None:
    """Raises a FileNotFoundError where nothing is at the path."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give {SUPPORT_FORMATS}, or a saved support set (.safetensors)"
        )
