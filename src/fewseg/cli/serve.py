"""``fewseg serve``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import tyro
from rich.console import Console

from fewseg.serve import ServeOptions
from fewseg.serve import serve as run_server


def serve(arguments: Sequence[str], console: Console) -> None:
    """Serves the page."""
    options = tyro.cli(ServeOptions, prog="fewseg serve", args=arguments)
    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)
    run_server(options, partial(console.print, highlight=False, markup=False, soft_wrap=True))
