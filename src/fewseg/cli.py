"""The command line: ``fewseg demo | data | train | evaluate | compare | table | import-checkpoint``.

Options are the fields of the config dataclasses; tyro makes them. Nothing else is configured here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler

from fewseg import __version__

_USAGE = """fewseg {version}: few-shot segmentation

  fewseg demo                        see it work: train and test on rendered pictures, with a report
  fewseg data SET ROOT               check a data set: what is there, what is missing
  fewseg train RECIPE                train a recipe on a fold
  fewseg evaluate CHECKPOINT         test a checkpoint (or a recipe that needs no training)
  fewseg compare A B                 two result files, episode by episode
  fewseg table FOLDER                the tables of a folder of results
  fewseg import-checkpoint SRC DST   released PFENet or SCL weights into fewseg's form

`fewseg COMMAND --help` tells a command's options."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Trains a recipe on one fold; run again, it goes on where it stopped.

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
        shots: only these K.
        episodes: episodes a seed; the protocol's by default (another number is another protocol).
        seeds: the protocol's by default.
        backbone_weights: path of the frozen trunk's weights, where it moved.
        quiet: no progress bar.
    """

    what: Annotated[str, tyro.conf.Positional]
    recipe: str | None = None
    fold: int | None = None
    root: Path | None = None
    out: Path = Path("results")
    shots: tuple[int, ...] = ()
    episodes: int | None = None
    seeds: tuple[int, ...] = ()
    backbone_weights: str | None = None
    quiet: bool = False


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
    """

    source: Annotated[Path, tyro.conf.Positional]
    target: Annotated[Path, tyro.conf.Positional]


def _demo(arguments: Sequence[str], console: Console) -> None:
    from fewseg.demo.config import DemoConfig
    from fewseg.demo.run import run

    run(tyro.cli(DemoConfig, prog="fewseg demo", args=arguments))


def _train(arguments: Sequence[str], console: Console) -> None:
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
    kinds = {"method": type(chosen.method), "train": type(chosen.train)}
    command_type = _with_types(TrainCommand, kinds)
    default = command_type(method=chosen.method, train=chosen.train)
    command = tyro.cli(
        command_type,
        config=(tyro.conf.AvoidSubcommands,),
        prog=f"fewseg train {chosen.name}",
        args=arguments[1:],
        default=default,
    )
    chosen = replace(chosen, method=command.method, train=command.train)
    data = chosen.data(command.fold, command.root)
    folder = command.out or Path("runs") / f"{chosen.name}-fold{command.fold}-seed{command.train.seed}"
    path = train_recipe(chosen, data, folder, progress=not command.quiet, devices=command.devices)
    console.print(f"checkpoint: {path}\ntest it: fewseg evaluate {path}")


def _with_types(command: type, kinds: dict[str, type]) -> type:
    """The command with its ``Any`` fields typed, so that tyro makes options of them."""
    from dataclasses import make_dataclass

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
    from fewseg.reporting.table import fold_tables

    command = tyro.cli(EvaluateCommand, prog="fewseg evaluate", args=arguments)
    results = evaluate(
        command.what,
        recipe_name=command.recipe,
        fold=command.fold,
        root=command.root,
        out=command.out,
        shots=command.shots,
        episodes=command.episodes,
        seeds=command.seeds,
        backbone_weights=command.backbone_weights,
        progress=not command.quiet,
    )
    for table in fold_tables(results):
        console.print(rich_table(table))
    console.print(f"result files: {command.out}")


def _data(arguments: Sequence[str], console: Console) -> None:
    from fewseg.data.check import check, check_pascal
    from fewseg.data.folder import FolderSource
    from fewseg.data.folds import VOC_CLASSES, pascal_5i
    from fewseg.data.list_file import ListFileSource
    from fewseg.recipes.datasets import voc5i_mini

    command = tyro.cli(DataCommand, prog="fewseg data", args=arguments)
    splits = [pascal_5i(fold) for fold in range(4)]
    if command.dataset == "pascal":
        lines = check_pascal(command.root, command.root)
    elif command.dataset == "folder":
        lines = check(FolderSource(command.root), command.min_area)
    elif command.dataset == "voc5i-mini":
        lines = check(voc5i_mini(0, command.root).source, command.min_area, splits)
    elif command.list_file is None:
        raise ValueError("`fewseg data list` needs --list-file: the file of `image mask` lines")
    else:
        source = ListFileSource(command.root, command.list_file, VOC_CLASSES)
        lines = check(source, command.min_area, splits)
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _compare(arguments: Sequence[str], console: Console) -> None:
    from fewseg.reporting.compare import compare, comparison_table

    command = tyro.cli(CompareCommand, prog="fewseg compare", args=arguments)
    found = compare(command.a, command.b, allow_different_protocols=command.allow_different_protocols)
    console.print(comparison_table(found))


def _table(arguments: Sequence[str], console: Console) -> None:
    from fewseg.reporting.render import rich_table
    from fewseg.reporting.results_page import load_folder, update_page
    from fewseg.reporting.table import fold_tables

    command = tyro.cli(TableCommand, prog="fewseg table", args=arguments)
    found, left_out = load_folder(command.folder)
    for table in fold_tables([result for result, _ in found]):
        console.print(rich_table(table))
    for reason in left_out:
        console.print(f"left out: {reason}")
    if command.page is not None:
        update_page(command.page, command.folder)
        console.print(f"written: {command.page}")


def _import(arguments: Sequence[str], console: Console) -> None:
    from fewseg.engine.released import import_checkpoint

    command = tyro.cli(ImportCommand, prog="fewseg import-checkpoint", args=arguments)
    imported = import_checkpoint(command.source, command.target)
    console.print(f"{imported.method}: {imported.report.summary()}\nwritten: {command.target}")


_COMMANDS: dict[str, Callable[[Sequence[str], Console], None]] = {
    "demo": _demo,
    "data": _data,
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "table": _table,
    "import-checkpoint": _import,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after ``fewseg``; ``sys.argv`` by default.

    Returns:
        Exit status: 0 done, 1 a known error (told in one paragraph), 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    console, errors = Console(), Console(stderr=True)
    handler = RichHandler(console=errors, show_path=False, show_time=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not words or words[0] in ("-h", "--help"):
        console.print(_USAGE.format(version=__version__), highlight=False)
        return 0 if words else 2
    if words[0] == "--version":
        console.print(__version__, highlight=False)
        return 0
    return _run(words, console, errors)


def _run(words: Sequence[str], console: Console, errors: Console) -> int:
    import difflib

    if words[0] not in _COMMANDS:
        near = difflib.get_close_matches(words[0], _COMMANDS) or list(_COMMANDS)
        errors.print(f"[bold red]fewseg:[/] unknown command {words[0]!r}: did you mean {' or '.join(near)}?")
        return 2
    try:
        _COMMANDS[words[0]](words[1:], console)
    except (ValueError, OSError, RuntimeError) as error:
        errors.print("[bold red]fewseg:[/] ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return 1
    except KeyboardInterrupt:
        errors.print("fewseg: interrupted; the same command goes on from the last checkpoint")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
