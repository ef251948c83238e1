"""``fewseg train``, ``evaluate``, ``episodes``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
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


def train_options(words: Sequence[str], console: Console) -> TrainCommand:
    """Parses the words after ``train``; the recipe's configs decide which options exist."""
    from fewseg.engine.config_json import with_parts
    from fewseg.recipes.registry import RECIPES, recipe

    if not words or words[0].startswith("-"):
        console.print("fewseg train RECIPE [options]; recipes:\n  " + "\n  ".join(RECIPES))
        if not {"-h", "--help"} & set(words):
            raise ValueError("no recipe given: name one of those above")
        raise SystemExit(0)
    chosen = recipe(words[0])
    if chosen.train is None:
        raise ValueError(f"{chosen.name} has nothing to train: `fewseg evaluate {chosen.name}`")
    left, parts = _take_parts(words[1:])
    chosen = replace(chosen, **with_parts({"method": chosen.method, "train": chosen.train}, parts))
    kinds = {"method": type(chosen.method), "train": type(chosen.train)}
    command_type = _with_types(TrainCommand, kinds)
    default = command_type(recipe=chosen.name, method=chosen.method, train=chosen.train)
    command: TrainCommand = tyro.cli(
        command_type,
        config=(tyro.conf.AvoidSubcommands,),
        prog=f"fewseg train {chosen.name}",
        args=left,
        default=default,
    )
    return command


def train(command: TrainCommand, console: Console) -> None:
    """Trains a recipe."""
    from fewseg.recipes.registry import recipe
    from fewseg.recipes.run import train_recipe

    chosen = replace(recipe(command.recipe), method=command.method, train=command.train)
    data = chosen.data(command.fold, command.root)
    folder = command.out or Path("runs") / f"{chosen.name}-fold{command.fold}-seed{command.train.seed}"
    path = train_recipe(chosen, data, folder, progress=not command.quiet, devices=command.devices)
    console.print(f"checkpoint: {path}\ntest it: fewseg evaluate {path}")


def _take_parts(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes every ``--part NAME=CLASS`` out of the words: they decide which options there are."""
    left, parts = list(words), []
    while "--part" in left:
        place = left.index("--part")
        if place + 1 == len(left):
            raise ValueError("--part needs a value NAME=CLASS, such as --part method.prior=NoPrior")
        parts.append(left[place + 1])
        del left[place : place + 2]
    return left, parts


def _with_types(command: type, kinds: dict[str, type]) -> type:
    """The command with its ``Any`` fields typed, so that tyro makes options of them."""
    fields: list[Any] = [(name, kind, field()) for name, kind in kinds.items()]
    return make_dataclass(
        command.__name__,
        fields,
        bases=(command,),
        kw_only=True,
        frozen=True,
        namespace={"__doc__": command.__doc__},
    )


def evaluate(command: EvaluateCommand, console: Console) -> None:
    """Tests a model and prints its tables."""
    from fewseg.recipes import evaluation
    from fewseg.reports.tables import print_results

    results = evaluation.evaluate(
        command.what,
        recipe_name=command.recipe,
        fold=command.fold,
        root=command.root,
        out=command.out,
        ways=command.ways,
        shots=command.shots,
        fusions=command.fusion,
        on=command.on,
        sizes=command.sizes,
        episodes=command.episodes,
        seeds=command.seeds,
        protocol_name=command.protocol,
        backbone=command.backbone,
        backbone_weights=command.backbone_weights,
        manifests=command.manifest,
        precision=command.precision,
        processes=command.processes,
        ray_workers=command.ray_workers,
        progress=not command.quiet,
    )
    print_results(results, console)
    console.print(f"result files: {command.out}")


def episodes(command: EpisodesCommand, console: Console) -> None:
    """Writes test episodes."""
    from fewseg.data.episodes import EpisodeSampler, record
    from fewseg.recipes.registry import recipe

    chosen = recipe(command.recipe)
    data = chosen.data(command.fold, command.root)
    sampler = EpisodeSampler(data.test, data.split, chosen.protocol, command.shots, ways=command.ways)
    for path in record(sampler, command.out):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
