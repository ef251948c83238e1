"""The command line: ``COMMANDS`` names for each command an options dataclass and the function that takes it.

tyro makes the options of a command from the fields of its dataclass. Nothing else is configured here, and
nothing heavy is imported before the options are parsed and checked.
"""

from __future__ import annotations

import difflib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from fewseg import __version__
from fewseg.errors import first_line


@dataclass(frozen=True)
class Command:
    """A command."""

    # ``module:name``, in fewseg, of its options dataclass, or of a function that makes it from (words,
    # console), where the options depend on the words. Options with a method ``check`` are checked before the
    # module of ``run`` is imported; their own module is best free of torch.
    options: str
    run: str  # the same of the function that takes (options, console) and returns an exit status or None
    help: str  # one line
    words: str = ""  # what is written after the name in the help
    _: KW_ONLY
    # options of nested dataclasses are written ``--group.option`` and not ``--option``
    prefixes: bool = False
    interrupted: str = ""  # the message after Ctrl-C


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "demo.options:DemoOptions",
        "cli.inference:demo",
        "see it work: train and test on rendered pictures, with a report",
        prefixes=True,
    ),
    "label": Command(
        "inference.options:LabelOptions",
        "cli.inference:label",
        "label a folder of images from a few annotated ones",
        interrupted="the same command does what is missing",
    ),
    "serve": Command(
        "serve:ServeOptions",
        "cli.inference:serve",
        "label in the browser: draw, review, correct, download",
    ),
    "doctor": Command(
        "inference.doctor:DoctorOptions",
        "inference.doctor:run",
        "what this machine has, what is missing, and the command for it",
    ),
    "data check": Command(
        "cli.data:CheckOptions",
        "cli.data:check",
        "which files of a data set exist, what is missing, where to get it",
        "SET ROOT",
    ),
    "train": Command(
        "cli.training:train_options",
        "cli.training:train",
        "train a recipe on a fold",
        "RECIPE",
        interrupted="the same command goes on from the last checkpoint",
    ),
    "evaluate": Command(
        "recipes.options:EvaluateOptions",
        "cli.training:evaluate",
        "test a checkpoint (or a recipe that needs no training)",
        "CHECKPOINT",
        interrupted="what is finished is kept and the same command goes on, if no code is uncommitted",
    ),
    "episodes": Command(
        "recipes.options:EpisodesOptions",
        "cli.training:episodes",
        "write the test episodes to files that can be replayed",
        "RECIPE",
    ),
    "zoo": Command(
        "reports.options:ZooOptions",
        "reports.zoo:run",
        "all methods: what each adds, parameters, operations, published and measured values",
    ),
    "compare": Command(
        "reports.options:CompareOptions",
        "reports.comparison:run",
        "two result files, episode by episode",
        "A B",
    ),
    "table": Command(
        "reports.options:TableOptions", "reports.tables:run", "the tables of a folder of results", "FOLDER"
    ),
    "report tables": Command(
        "reports.options:PaperTablesOptions",
        "reports.paper_report:run",
        "every table of the papers, published values beside ours",
    ),
    "report figures": Command(
        "reports.options:FiguresOptions",
        "cli.figures:figures",
        "every figure of the papers, from checkpoints and results",
    ),
    "report site": Command(
        "reports.options:SiteOptions", "cli.figures:site", "one HTML file over a folder of results"
    ),
    "export": Command(
        "inference.options:ExportOptions",
        "cli.inference:export",
        "a model as ONNX graphs, checked in ONNX Runtime",
    ),
    "import-checkpoint": Command(
        "recipes.options:ImportOptions",
        "cli.inference:import_checkpoint",
        "released PFENet, SCL or SD-AANet weights as a checkpoint of fewseg",
        "SRC DST",
    ),
    "completion": Command(
        "cli.completion:CompletionOptions", "cli.completion:run", "completion for bash, zsh or fish", "SHELL"
    ),
}


_QUIET_ABOUT_WEIGHTS = ("demo", "label", "export", "serve")
"""Commands that do not log which backbone weights were read; for training and evaluation it is provenance."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    threading.excepthook = _in_thread
    console, errors = Console(), Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[log_handler(errors)])
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for exporter in ("onnxscript", "onnx_ir"):  # they log every node that they fold
        logging.getLogger(exporter).setLevel(logging.ERROR)
    if not words or words[0] in ("-h", "--help"):
        console.out(_usage(COMMANDS), highlight=False)
        return 0 if words else 2
    if words[0] in ("--version", "--complete"):
        console.out(__version__ if words[0] == "--version" else _following(words[1:]), highlight=False)
        return 0
    first = {name.split()[0]: None for name in COMMANDS}
    if words[0] not in first:
        message = f"unknown command {words[0]!r}: did you mean {_near(words[0], first)}?"
        errors.print(f"[bold red]fewseg:[/] {escape(message)}", highlight=False, soft_wrap=True)
        return 2
    name = words[0] if words[0] in COMMANDS else " ".join(words[:2])
    try:
        return _run(name, words, console)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        errors.print("[bold red]fewseg:[/] ", end="")
        errors.out(_message(error), highlight=False)
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return 1
    except KeyboardInterrupt:
        hint = COMMANDS[name].interrupted
        errors.print("fewseg: interrupted" + (f"; {hint}" if hint else ""), soft_wrap=True)
        return 130


def _in_thread(failed: threading.ExceptHookArgs) -> None:
    """Leaves out the traceback of a disk's error, which a thread of TensorBoard's gives to the main one."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def _following(words: Sequence[str]) -> str:
    """What may follow, a line each, for the script that ``fewseg completion`` prints."""
    from fewseg.cli.completion import completions

    return "\n".join(completions(words, {name: command.options for name, command in COMMANDS.items()}))


def log_handler(errors: Console) -> logging.Handler:
    """Where messages go: in a terminal around the progress bar, else in whole lines, to be searched."""
    if errors.is_terminal:
        return RichHandler(console=errors, show_path=False, show_time=False)
    return logging.StreamHandler(errors.file)


def _run(name: str, words: Sequence[str], console: Console) -> int:
    import tyro

    if name not in COMMANDS:
        return _kinds(words, console)
    command, words = COMMANDS[name], words[len(name.split()) :]
    options = _imported(command.options)
    if isinstance(options, type):
        config = () if command.prefixes else (tyro.conf.OmitArgPrefixes,)
        options = tyro.cli(options, prog=f"fewseg {name}", args=words, config=config)
    else:
        options = options(words, console)
    if hasattr(options, "check"):
        options.check()
    if name in _QUIET_ABOUT_WEIGHTS:
        logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)
    run: Callable[[Any, Console], int | None] = _imported(command.run)
    return run(options, console) or 0


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"fewseg.{module}"), name)


def _kinds(words: Sequence[str], console: Console) -> int:
    """Handles the first word of commands of two words without a known second one."""
    kinds = {full: command for full, command in COMMANDS.items() if full.startswith(f"{words[0]} ")}
    if len(words) == 1 or words[1] in ("-h", "--help"):
        console.out(_usage(kinds), highlight=False)
    if words[1:2] in (["-h"], ["--help"]):
        return 0
    name = " ".join(words[:2])
    raise ValueError(f"unknown command {name!r}: did you mean {_near(name, kinds)}?")


def _near(word: str, names: Iterable[str]) -> str:
    names = list(names)
    return " or ".join(difflib.get_close_matches(word, names) or names)


def _usage(commands: dict[str, Command]) -> str:
    head = f"fewseg {__version__}: few-shot segmentation\n\n"
    starts = {name: f"fewseg {name} {command.words}".rstrip() for name, command in commands.items()}
    wide = max(map(len, starts.values())) + 2
    lines = [f"  {starts[name]:<{wide}}{command.help}\n" for name, command in commands.items()]
    return f"{head}{''.join(lines)}\n`fewseg COMMAND --help` lists a command's options."


def _message(error: Exception) -> str:
    """The text of an error, without the system's number of it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        what = "there is not enough memory" + (f" ({first_line(error)})" if str(error) else "")
        return f"{what}: make the images or the batch smaller, or free some memory"
    return str(error)
