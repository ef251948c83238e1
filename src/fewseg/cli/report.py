"""``fewseg report``: the papers' tables and figures, and a site over a folder of results."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from rich.console import Console

_USAGE = """fewseg report KIND [options]: what the results say; kinds:

  tables     every table of the papers, published values beside ours
  figures    every figure of the papers, from checkpoints and results
  site       one HTML file over a folder of results

`fewseg report KIND --help` tells the options."""


def _tables(arguments: Sequence[str], console: Console) -> int | None:
    from fewseg.cli.report_tables import tables

    return tables(arguments, console)


def _figures(arguments: Sequence[str], console: Console) -> int | None:
    from fewseg.cli.report_figures import figures

    return figures(arguments, console)


def _site(arguments: Sequence[str], console: Console) -> int | None:
    from fewseg.cli.report_site import site

    return site(arguments, console)


SOME_MISSING = 3
"""The exit status where something that was given could not be used; the rest is made."""

KINDS: dict[str, Callable[[Sequence[str], Console], int | None]] = {
    "tables": _tables,
    "figures": _figures,
    "site": _site,
}


def report(arguments: Sequence[str], console: Console) -> int | None:
    """Makes a kind of report.

    Raises:
        ValueError: no kind is given, or one that is not known.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
        if not arguments:
            raise ValueError("no kind of report given: name one of those above")
        return None
    kind = arguments[0]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS) or list(KINDS)
        raise ValueError(f"unknown kind of report {kind!r}: did you mean {' or '.join(near)}?")
    return KINDS[kind](arguments[1:], console)
