"""What each command does; heavy imports wait until a command is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from fewseg.cli.label import export, label
from fewseg.cli.options import (
    CompareCommand,
    DataCommand,
    EpisodesCommand,
    EvaluateCommand,
    ImportCommand,
    TableCommand,
    TrainCommand,
)
from fewseg.cli.report import report
from fewseg.cli.serve import serve


def _demo(arguments: Sequence[str], console: Console) -> None:
    from fewseg.demo.config import DemoConfig
    from fewseg.demo.run import run
    from fewseg.demo.summary import rich_table

    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)  # one trunk, many loads
    found = run(tyro.cli(DemoConfig, prog="fewseg demo", args=arguments))
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
    """Takes every ``--part NAME=CLASS`` out of the words: they decide which options there are.

    Raises:
        ValueError: the last ``--part`` has no value.
    """
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
    from fewseg.reporting.render import rich_table
    from fewseg.reporting.spread import protocol_line, spread_line
    from fewseg.reporting.table import fold_tables

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
    from fewseg.data.episodes import EpisodeSampler
    from fewseg.data.recorded import record
    from fewseg.recipes.registry import recipe

    command = tyro.cli(EpisodesCommand, prog="fewseg episodes", args=arguments)
    chosen = recipe(command.recipe)
    data = chosen.data(command.fold, command.root)
    sampler = EpisodeSampler(data.test, data.split, chosen.protocol, command.shots, ways=command.ways)
    for path in record(sampler, command.out):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


def _data(arguments: Sequence[str], console: Console) -> None:
    from fewseg.data.check import check, check_pascal
    from fewseg.data.check_sets import check_coco, check_fss1000
    from fewseg.data.folder import FolderSource
    from fewseg.data.folds import VOC_CLASSES, pascal_5i
    from fewseg.data.list_file import ListFileSource
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
    from fewseg.reporting.compare import compare, comparison_lines, comparison_table

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
    from fewseg.reporting.gains import gains, rich_gains
    from fewseg.reporting.render import rich_table
    from fewseg.reporting.results_page import load_folder, update_page
    from fewseg.reporting.sizes import rich_sizes
    from fewseg.reporting.spread import protocol_line
    from fewseg.reporting.table import fold_tables

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
