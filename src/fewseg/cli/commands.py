"""The options of each command; tyro makes the command line of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from fewseg.cli.label import export, label
from fewseg.cli.report import report
from fewseg.cli.serve import serve


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


def _demo(arguments: Sequence[str], console: Console) -> None:
    from fewseg.demo import DemoOptions, rich_table, run_demo

    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)  # one trunk, many loads
    found = run_demo(tyro.cli(DemoOptions, prog="fewseg demo", args=arguments))
    console.print(rich_table(found.results))
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in found.seconds.items())
    console.print(f"time: {spent}\nreport: {found.report}", highlight=False, soft_wrap=True)


def _train(arguments: Sequence[str], console: Console) -> None:
    from fewseg.engine.config_json import with_parts
    from fewseg.recipes.registry import RECIPES, recipe
    from fewseg.recipes.run import train_recipe

    if not arguments or arguments[0].startswith("-"):
        console.print("fewseg train RECIPE [options]; recipes:\n  " + "\n  ".join(RECIPES))
        if not {"-h", "--help"} & set(arguments):
            raise ValueError("no recipe given: name one of those above")
        return
    chosen = recipe(arguments[0])
    if chosen.train is None:
        raise ValueError(f"{chosen.name} has nothing to train: `fewseg evaluate {chosen.name}`")
    words, parts = _take_parts(arguments[1:])
    chosen = replace(chosen, **with_parts({"method": chosen.method, "train": chosen.train}, parts))
    kinds = {"method": type(chosen.method), "train": type(chosen.train)}
    command_type = _with_types(TrainCommand, kinds)
    default = command_type(method=chosen.method, train=chosen.train)
    command = tyro.cli(
        command_type,
        config=(tyro.conf.AvoidSubcommands,),
        prog=f"fewseg train {chosen.name}",
        args=words,
        default=default,
    )
    chosen = replace(chosen, method=command.method, train=command.train)
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


def _evaluate(arguments: Sequence[str], console: Console) -> None:
    from fewseg.recipes.evaluation import evaluate
    from fewseg.reports.render import rich_table
    from fewseg.reports.spread import protocol_line, spread_line
    from fewseg.reports.table import fold_tables

    command = tyro.cli(EvaluateCommand, prog="fewseg evaluate", args=arguments)
    results = evaluate(
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
    for table in fold_tables(results):
        console.print(rich_table(table))
    lines = [*dict.fromkeys(protocol_line(result) for result in results), *map(spread_line, results)]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    console.print(f"result files: {command.out}")


def _episodes(arguments: Sequence[str], console: Console) -> None:
    from fewseg.data.episodes import EpisodeSampler, record
    from fewseg.recipes.registry import recipe

    command = tyro.cli(EpisodesCommand, prog="fewseg episodes", args=arguments)
    chosen = recipe(command.recipe)
    data = chosen.data(command.fold, command.root)
    sampler = EpisodeSampler(data.test, data.split, chosen.protocol, command.shots, ways=command.ways)
    for path in record(sampler, command.out):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


def _data(arguments: Sequence[str], console: Console) -> None:
    from fewseg.data.check import check, check_coco, check_fss1000, check_pascal
    from fewseg.data.folder import FolderSource, ListFileSource
    from fewseg.data.folds import VOC_CLASSES, pascal_5i
    from fewseg.recipes.datasets import voc5i_mini

    if not arguments or arguments[0] != "check":
        console.print("fewseg data check DATASET ROOT [options]", markup=False)
        if arguments and arguments[0] in ("-h", "--help"):
            return
        raise ValueError(
            f"got `fewseg data {' '.join(arguments)}`: what can be done with a data set is check it"
        )
    command = tyro.cli(DataCommand, prog="fewseg data check", args=arguments[1:])
    splits = [pascal_5i(fold) for fold in range(4)]
    if command.dataset == "pascal":
        lines = check_pascal(command.root, command.root)
    elif command.dataset == "coco":
        lines = check_coco(command.root, command.min_area)
    elif command.dataset == "fss1000":
        lines = check_fss1000(command.root)
    elif command.dataset == "folder":
        lines = check(FolderSource(command.root), command.min_area)
    elif command.dataset == "voc5i-mini":
        lines = check(voc5i_mini(0, command.root).source, command.min_area, splits)
    elif command.list_file is None:
        raise ValueError("`fewseg data check list` needs --list-file: the file of `image mask` lines")
    else:
        source = ListFileSource(command.root, command.list_file, VOC_CLASSES)
        lines = check(source, command.min_area, splits)
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if any(line.startswith("WRONG") for line in lines):
        raise ValueError("the data set cannot be used as it is: see the lines marked WRONG")


def _compare(arguments: Sequence[str], console: Console) -> None:
    from fewseg.reports.compare import compare, comparison_lines, comparison_table

    command = tyro.cli(CompareCommand, prog="fewseg compare", args=arguments)
    found = compare(
        command.a,
        command.b,
        allow_different_protocols=command.allow_different_protocols,
        planned=command.episodes,
    )
    console.print(comparison_table(found))
    console.print("\n".join(comparison_lines(found)), highlight=False, markup=False)


def _table(arguments: Sequence[str], console: Console) -> None:
    from fewseg.reports.gains import gains, rich_gains
    from fewseg.reports.render import rich_table
    from fewseg.reports.results_page import load_folder, update_page
    from fewseg.reports.sizes import rich_sizes
    from fewseg.reports.spread import protocol_line
    from fewseg.reports.table import fold_tables

    command = tyro.cli(TableCommand, prog="fewseg table", args=arguments)
    found, left_out = load_folder(command.folder)
    counts = {id(result): counts for result, counts in found}
    for table in fold_tables([result for result, _ in found]):
        console.print(rich_table(table))
        own = {protocol_line(r): None for row in table.rows for r in row.results.values()}
        console.print("\n".join(own), markup=False, highlight=False, soft_wrap=True)
        pairs = gains(table, lambda result: counts[id(result)])
        if pairs:
            console.print(rich_gains(table, pairs))
        if command.by_size:
            console.print(rich_sizes(table, lambda result: counts[id(result)]))
    for reason in left_out:
        console.print(f"left out: {reason}")
    if command.page is not None:
        update_page(command.page, command.folder)
        console.print(f"written: {command.page}")


def _import(arguments: Sequence[str], console: Console) -> None:
    from fewseg.data.folds import pascal_5i
    from fewseg.engine.released import import_checkpoint

    command = tyro.cli(ImportCommand, prog="fewseg import-checkpoint", args=arguments)
    split = None if command.fold is None else pascal_5i(command.fold)
    imported = import_checkpoint(command.source, command.target, scales=command.scales, class_split=split)
    console.print(f"{imported.method}: {imported.report.summary()}\nwritten: {command.target}")


COMMANDS: dict[str, Callable[[Sequence[str], Console], int | None]] = {
    "demo": _demo,
    "label": label,
    "export": export,
    "serve": serve,
    "data": _data,
    "train": _train,
    "evaluate": _evaluate,
    "episodes": _episodes,
    "compare": _compare,
    "table": _table,
    "report": report,
    "import-checkpoint": _import,
}
"""Name on the command line to what runs it: (words after the name, where to print) to an exit status."""
