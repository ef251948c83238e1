"""The command line: ``fewseg demo``, ``train``, ``evaluate`` and the rest of ``COMMANDS``.

Options are the fields of the config dataclasses; tyro makes them. Nothing else is configured here.
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from fewseg import __version__
from fewseg.cli.commands import COMMANDS

_USAGE = """fewseg {version}: few-shot segmentation

  fewseg demo                        see it work: train and test on rendered pictures, with a report
  fewseg label                       a folder of images, by a few annotated ones
  fewseg serve                       the same in the browser: draw, look, correct, download
  fewseg data check SET ROOT         what of a data set is there, what is missing, where to get it
  fewseg train RECIPE                train a recipe on a fold
  fewseg evaluate CHECKPOINT         test a checkpoint (or a recipe that needs no training)
  fewseg episodes RECIPE             write the test episodes to files that can be replayed
  fewseg compare A B                 two result files, episode by episode
  fewseg table FOLDER                the tables of a folder of results
  fewseg report KIND                 the papers' tables and figures, a site over results
  fewseg export                      a model as ONNX graphs, checked in ONNX Runtime
  fewseg import-checkpoint SRC DST   released PFENet or SCL weights into fewseg's form

`fewseg COMMAND --help` tells a command's options."""

_AFTER_INTERRUPT = {
    "train": "the same command goes on from the last checkpoint",
    "label": "the same command does what is missing",
    "evaluate": "finished lines are kept, and the same command runs the line in progress again",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after ``fewseg``; ``sys.argv`` by default.

    Returns:
        Exit status: 0 done, 1 a known error (told in one paragraph), 2 wrong usage, 3 done but for some
        images (``label``), 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    console, errors = Console(), Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[log_handler(errors)])
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for exporter in ("onnxscript", "onnx_ir"):  # they tell of every node that they fold
        logging.getLogger(exporter).setLevel(logging.ERROR)
    if not words or words[0] in ("-h", "--help"):
        console.print(_USAGE.format(version=__version__), highlight=False, soft_wrap=True)
        return 0 if words else 2
    if words[0] == "--version":
        console.print(__version__, highlight=False)
        return 0
    return _run(words, console, errors)


def log_handler(errors: Console) -> logging.Handler:
    """Where messages go: in a terminal around the progress bar, else in whole lines, to be searched."""
    if errors.is_terminal:
        return RichHandler(console=errors, show_path=False, show_time=False)
    return logging.StreamHandler(errors.file)


def _run(words: Sequence[str], console: Console, errors: Console) -> int:
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS) or list(COMMANDS)
        asked = f"unknown command {words[0]!r}: did you mean {' or '.join(near)}?"
        errors.print(f"[bold red]fewseg:[/] {escape(asked)}", highlight=False, soft_wrap=True)
        return 2
    try:
        return COMMANDS[words[0]](words[1:], console) or 0
    except (ValueError, OSError, RuntimeError) as error:
        errors.print("[bold red]fewseg:[/] ", end="")
        errors.print(_words(error), markup=False, highlight=False, soft_wrap=True)
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return 1
    except KeyboardInterrupt:
        goes_on = _AFTER_INTERRUPT.get(words[0])
        errors.print("fewseg: interrupted" + (f"; {goes_on}" if goes_on else ""), soft_wrap=True)
        return 130


def _words(error: Exception) -> str:
    """What an error says, without the system's number of it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
