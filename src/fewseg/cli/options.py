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
        sizes: multi-scale: sides of the inputs whose probabilities are added, such as 321 473.
        episodes: episodes a seed; the protocol's by default (another number is another protocol).
        seeds: the protocol's by default.
        protocol: a published one in place of the recipe's: paper-scl, paper-srpnet, paper-sdaanet, pfenet or
            hsnet.
        backbone: for a recipe without training: another timm network, such as convnext_tiny or
            vit_small_patch14_dinov2.
        backbone_weights: path of the frozen trunk's weights, where it moved.
        manifest: recorded episodes to replay (of `fewseg episodes`), one file a seed.
        precision: of features and head: fp32 or bf16; by default as it was trained, bf16 without training.
        processes: processes (on a GPU machine: GPUs) that share the work; the numbers stay the same.
        ray_workers: instead, workers on a Ray cluster, or on one of this machine; lost ones are replaced.
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
    sizes: tuple[int, ...] = ()
    episodes: int | None = None
    seeds: tuple[int, ...] = ()
    protocol: str | None = None
    backbone: str | None = None
    backbone_weights: str | None = None
    manifest: tuple[Path, ...] = ()
    precision: Literal["fp32", "bf16"] | None = None
    processes: int = 1
    ray_workers: int = 0
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
        dataset: pascal (VOC 2012 and SBD below ROOT), coco (COCO 2014), fss1000, folder (<class>/images,
            <class>/masks), list (a file of `image mask` lines with VOC class ids) or voc5i-mini.
        root: the data set's folder.
        list_file: for ``list``: the list; its paths are relative to the root.
        min_area: pixels a class must cover to count as present.
    """

    dataset: Annotated[
        Literal["pascal", "coco", "fss1000", "folder", "list", "voc5i-mini"], tyro.conf.Positional
    ]
    root: Annotated[Path, tyro.conf.Positional]
    list_file: Path | None = None
    min_area: int = 2048


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Compares two result files episode by episode, with an interval of the difference.

    Attributes:
        a: a result file to measure against.
        b: a result file.
        allow_different_protocols: compare all the same, saying what differs.
        episodes: say which difference so many episodes (all seeds together) would find; those there are by
            default.
    """

    a: Annotated[Path, tyro.conf.Positional]
    b: Annotated[Path, tyro.conf.Positional]
    allow_different_protocols: bool = False
    episodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TableCommand:
    """Prints the tables of a folder of results, with paired gains and published values.

    Attributes:
        folder: where result files lie.
        page: a Markdown file whose results block is written anew.
        by_size: also print mIoU by the size of the target, in bins of 500 pixels.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    page: Path | None = None
    by_size: bool = False


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
