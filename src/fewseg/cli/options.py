"""The options of each command; tyro makes the command line of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Trains a recipe on one fold; run again, it goes on where it stopped.

    ``--part NAME=CLASS`` first puts another part in a config's place, as often as wanted: ``--part
    method.prior=NoPrior``, ``--part method.fusion=ScoreAverage``, ``--part train.optimiser=SGD``.

    Attributes:
        fold: 0 to 3.
        root: folder of the data set; recipes for the small real set find it by themselves.
        out: folder for checkpoints and logs; runs/RECIPE-foldF-seedS by default.
        devices: GPUs (DDP), or 1.
        quiet: no progress bar.
        method: the method's parts.
        train: the training.
    """

    method: Any
    train: Any
    fold: int = 0
    root: Path | None = None
    out: Path | None = None
    devices: int = 1
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Tests a checkpoint on the novel classes of its fold and writes result files.

    Attributes:
        what: a checkpoint (.safetensors), or the name of a recipe without training.
        recipe: the recipe whose data, protocol and lines to use; the checkpoint's own by default.
        fold: needed where the checkpoint does not say; must be the one it was trained on.
        root: folder of the data set.
        out: folder for the result files.
        ways: only these N; the recipe's by default.
        shots: only these K.
        fusion: only these fusions, for each N and K; the recipe's by default. mean, average and cross-guided
            are of methods that score pairs; mean and iterative (IQI) of those that compare prototypes.
        on: segment the queries, or the support images themselves (SRPNet's "(sup)" rows).
        episodes: episodes a seed; the protocol's by default (another number is another protocol).
        seeds: the protocol's by default.
        backbone: for a recipe without training: another timm network, such as convnext_tiny or
            vit_small_patch14_dinov2.
        backbone_weights: path of the frozen trunk's weights, where it moved.
        manifest: recorded episodes to replay (of `fewseg episodes`), one file a seed.
        quiet: no progress bar.
    """

    what: Annotated[str, tyro.conf.Positional]
    recipe: str | None = None
    fold: int | None = None
    root: Path | None = None
    out: Path = Path("results")
    ways: tuple[int, ...] = ()
    shots: tuple[int, ...] = ()
    fusion: tuple[Literal["mean", "average", "cross-guided", "iterative"], ...] = ()
    on: Literal["query", "support"] | None = None
    episodes: int | None = None
    seeds: tuple[int, ...] = ()
    backbone: str | None = None
    backbone_weights: str | None = None
    manifest: tuple[Path, ...] = ()
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class EpisodesCommand:
    """Writes a recipe's test episodes to manifests (JSONL), one file a seed.

    Attributes:
        recipe: whose data and protocol.
        fold: 0 to 3.
        ways: N.
        shots: K of each way.
        root: folder of the data set.
        out: folder for the manifests.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    fold: int = 0
    ways: int = 1
    shots: int = 1
    root: Path | None = None
    out: Path = Path("episodes")


@dataclass(frozen=True, kw_only=True)
class DataCommand:
    """Says what a data set holds, and what is missing.

    Attributes:
        dataset: pascal (VOC 2012 and SBD below ROOT), folder (<class>/images, <class>/masks), list (a file
            of `image mask` lines with VOC class ids) or voc5i-mini.
        root: the data set's folder.
        list_file: for ``list``: the list; its paths are relative to the root.
        min_area: pixels a class must cover to count as present.
    """

    dataset: Annotated[Literal["pascal", "folder", "list", "voc5i-mini"], tyro.conf.Positional]
    root: Annotated[Path, tyro.conf.Positional]
    list_file: Path | None = None
    min_area: int = 2048


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
        fusion: how K supports become one answer; the method's own by default.
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
        quiet: no progress bar.
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
    fusion: Literal["mean", "average", "cross-guided", "iterative", "attention"] | None = None
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
class ServeCommand:
    """Serves a page where images are annotated and the others predicted, until it is stopped (Ctrl-C).

    Attributes:
        model: a checkpoint (.safetensors) or a recipe without training.
        host: the address to listen on. Any other than this machine's own lets everybody in the network use
            the page: there is no password.
        port: to listen on; 0 for any that is free.
        backbone: for a recipe without training: another timm network.
        backbone_weights: path of the frozen trunk's weights.
        size: side of the network's input in pixels; the recipe's or the training's by default.
        fusion: how K supports become one answer; the method's own by default.
        tiles: cut images into overlapping tiles of so many pixels; by default an image is resized to fit.
        overlap: of tiles, a share in [0, 0.9].
        max_pixels: larger images are refused.
        upload_mib: larger files are refused.
        session_mib: what one open page may keep in memory.
        sessions: pages that are open at the same time.
        idle_minutes: after which a page that nobody uses loses what it holds.
    """

    model: str = "pascal_matcher_resnet50"
    host: str = "127.0.0.1"
    port: int = 8017
    backbone: str | None = None
    backbone_weights: str | None = None
    size: int | None = None
    fusion: Literal["mean", "average", "cross-guided", "iterative", "attention"] | None = None
    tiles: int | None = None
    overlap: float = 0.25
    max_pixels: int = 40_000_000
    upload_mib: int = 64
    session_mib: int = 2048
    sessions: int = 8
    idle_minutes: int = 60


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Compares two result files episode by episode, with an interval of the difference.

    Attributes:
        a: a result file to measure against.
        b: a result file.
        allow_different_protocols: compare all the same, saying what differs.
    """

    a: Annotated[Path, tyro.conf.Positional]
    b: Annotated[Path, tyro.conf.Positional]
    allow_different_protocols: bool = False


@dataclass(frozen=True, kw_only=True)
class TableCommand:
    """Prints the tables of a folder of results, with paired gains and published values.

    Attributes:
        folder: where result files lie.
        page: a Markdown file whose results block is written anew.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    page: Path | None = None


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
