"""Options of training, evaluation, recorded episodes and imported checkpoints, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fewseg.engine.choices import FusionName, PrecisionOption, Target


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Trains a recipe on one fold; run again, it goes on where it stopped.

    ``--part NAME=CLASS`` first puts another part in a config's place, as often as wanted: ``--part
    method.prior=NoPrior``, ``--part method.fusion=ScoreAverage``, ``--part train.optimiser=SGD``.

    Attributes:
        recipe: its name, already given.
        fold: 0 to 3.
        root: folder of the data set; recipes for the small real set find it by themselves.
        out: folder for checkpoints and logs; runs/RECIPE-foldF-seedS by default.
        devices: GPUs (DDP), or 1.
        quiet: no progress bar.
        method: the method's parts.
        train: the training.
    """

    recipe: Annotated[str, tyro.conf.Suppress]
    method: Any
    train: Any
    fold: int = 0
    root: Path | None = None
    out: Path | None = None
    devices: int = 1
    quiet: bool = False


Classes = Literal["novel", "held-out"]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Tests a checkpoint on the novel classes of its fold and writes result files."""

    # a checkpoint (.safetensors), or the name of a recipe without training.
    what: Annotated[str, tyro.conf.Positional]
    # the recipe whose data, protocol and lines to use; the checkpoint's own by default.
    recipe: str | None = None
    fold: int | None = None  # needed where the checkpoint does not say; must be the one it was trained on.
    root: Path | None = None  # folder of the data set.
    # folder for the result files; shards of an unfinished evaluation are kept in it.
    out: Path = Path("results")
    ways: tuple[int, ...] = ()  # only these N; the recipe's by default.
    shots: tuple[int, ...] = ()  # only these K.
    # only these fusions, for each N and K; the recipe's by default. mean, average, cross-guided, attention
    # and vote are of methods that score pairs; mean and iterative (IQI) of those that compare prototypes.
    fusion: tuple[FusionName, ...] = ()
    # "held-out": the base classes that the checkpoint's training held out (``--train.held-out``), on training
    # images that it left out, to choose by.
    classes: Classes = "novel"
    on: Target | None = None  # segment the queries, or the support images themselves (SRPNet's "(sup)" rows).
    # multi-scale with a pass for each side of an input, such as 321 473: probabilities are added.
    sizes: tuple[int, ...] = ()
    # multi-scale with one pass (SD-AANet, Table IV): its logits are resized to these sides and their
    # probabilities added.
    output_sizes: tuple[int, ...] = ()
    # for canet and scl-canet: factors of the images' own size at which queries are segmented, the answer of
    # all shots and scales being fed back (0.7 1 1.3); the checkpoint's by default.
    image_scales: tuple[float, ...] = ()
    # episodes a seed; the protocol's by default (a different number makes a different protocol).
    episodes: int | None = None
    seeds: tuple[int, ...] = ()  # the protocol's by default.
    # a published one in place of the recipe's: paper-scl, paper-srpnet, paper-sdaanet, pfenet or hsnet. On a
    # data set that it was not published for it has the values for PASCAL-5i.
    protocol: str | None = None
    # for a recipe without training: a different timm network, such as convnext_tiny or
    # vit_small_patch14_dinov2.
    backbone: str | None = None
    backbone_weights: str | None = None  # path of the frozen trunk's weights, where it moved.
    manifest: tuple[Path, ...] = ()  # recorded episodes to replay (of `fewseg episodes`), one file a seed.
    # of features and head; auto is as it was trained, and without training bf16 where the machine has it.
    precision: PrecisionOption = "auto"
    # processes (on a GPU machine: GPUs) that share the work; the numbers stay the same. The script
    # that calls ``evaluate`` runs in each of them.
    processes: int = 1
    # workers on a Ray cluster, instead of --processes; starts a local cluster if none runs. Lost workers are
    # replaced.
    ray_workers: int = 0
    quiet: bool = False  # no progress bar.

    def check(self) -> None:
        """Checks what needs no data."""
        drawn = self.ways or self.shots or self.seeds
        if self.manifest and (drawn or self.episodes is not None or self.protocol is not None):
            raise ValueError(
                "manifests set ways, shots, episodes, seeds and protocol: leave --ways, --shots, --episodes, "
                "--seeds and --protocol out"
            )
        if self.processes < 1 or self.ray_workers < 0 or (self.processes > 1 and self.ray_workers):
            raise ValueError(
                f"--processes {self.processes} and --ray-workers {self.ray_workers}: give at least one "
                "process, or Ray workers in their place"
            )
        if self.episodes is not None and self.episodes < 1:
            raise ValueError(f"--episodes must be at least 1, got {self.episodes}")
        for option, sizes in (("--sizes", self.sizes), ("--output-sizes", self.output_sizes)):
            invalid = [size for size in sizes if size < 9 or size % 8 != 1]
            if invalid or len(set(sizes)) != len(sizes):
                raise ValueError(
                    f"{option} must be different sides of 8k + 1 pixels, got {' '.join(map(str, sizes))}"
                )


@dataclass(frozen=True, kw_only=True)
class EpisodesOptions:
    """Writes a recipe's test episodes to manifests (JSONL), one file a seed."""

    recipe: Annotated[str, tyro.conf.Positional]  # whose data and protocol.
    fold: int = 0  # 0 to 3.
    ways: int = 1  # N.
    shots: int = 1  # K of each way.
    root: Path | None = None  # folder of the data set.
    out: Path = Path("episodes")  # folder for the manifests.


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Turns released PFENet, SCL or SD-AANet weights into a fewseg checkpoint; runs no code of the file."""

    source: Annotated[Path, tyro.conf.Positional]  # the released .pth file.
    target: Annotated[Path, tyro.conf.Positional]  # the .safetensors file to write.
    # the PASCAL-5i fold it was trained on, so that a test on classes of its training is refused; no released
    # file records it.
    fold: int | None = None
    # its pyramid scales; those of the released models on PASCAL, 60 30 15 8, by default. A file of SCL(CANet)
    # has none.
    scales: tuple[float, ...] | None = None

    def check(self) -> None:
        """Raises a FileNotFoundError where the released file does not exist."""
        if not self.source.is_file():
            raise FileNotFoundError(f"no weight file at {self.source}: give the path of a released .pth file")
