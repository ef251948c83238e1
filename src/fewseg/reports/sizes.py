"""mIoU by the size of the target, a row a method and a column a bin (SD-AANet, Fig. 10)."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fewseg.metrics.scores import SizeBin, miou_by_size
from fewseg.reports.gains import CountsOf
from fewseg.reports.numbers import percent
from fewseg.reports.table import FoldRow, FoldTable


def size_cells(table: FoldTable, counts_of: CountsOf) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text.

    A cell is the mean over all folds, in percent, and the number of episodes; "-" where a fold has no episode
    of that size. A row that lacks folds has no mean: its folds stand by themselves, with what is lacking.

    Args:
        table: the rows.
        counts_of: gives the episode counts of a result of the table.

    Raises:
        ValueError: a result's counts do not fit its classes.
    """
    rows, labels = [], []
    for row in table.rows:
        by_fold = [
            miou_by_size(counts_of(result), result.classes) for _, result in sorted(row.results.items())
        ]
        labels = [bin.label for bin in by_fold[0]]
        if row.missing(table.folds):
            names = [_name_of_fold(row, fold, table.folds) for fold in sorted(row.results)]
            rows += [[name, *map(_cell, zip(bins))] for name, bins in zip(names, by_fold, strict=True)]
        else:
            rows.append([f"{row.label} {row.fusion}", *map(_cell, zip(*by_fold, strict=True))])
    return ["pixels of the target", *labels], rows


def _name_of_fold(row: FoldRow, fold: int, folds: int) -> str:
    return f"{row.label} {row.fusion}, fold {fold} ({row.missing(folds)}: no mean)"


def _cell(bins: Sequence[SizeBin]) -> str:
    scores = [bin.miou for bin in bins if bin.miou is not None]
    if len(scores) < len(bins):
        return "-"
    return f"{percent(sum(scores) / len(scores))} ({sum(bin.episodes for bin in bins)})"


def rich_sizes(table: FoldTable, counts_of: CountsOf) -> Table:
    """The table for a terminal."""
    headings, rows = size_cells(table, counts_of)
    shown = Table(
        title=f"{table.heading}, mIoU in percent by the size of the target (episodes)", caption=table.caption
    )
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if i else "left")
    for row in rows:
        shown.add_row(*(escape(text.replace(" (", "\n(")) for text in row))
    return shown
