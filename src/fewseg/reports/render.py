"""Fold tables as text: Markdown for documents, rich for terminals.

A mean stands only over all folds, and a published value of another data set in a column that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from fewseg.engine.results import RunResult
from fewseg.reports.numbers import Estimate, mean_of, percent, with_interval
from fewseg.reports.table import FoldRow, FoldTable


def fold_cell(row: FoldRow, fold: int) -> str:
    """The mIoU of one fold with its interval, or "-" where it was not run."""
    if fold not in row.results:
        return "-"
    return with_interval(_estimate(row.results[fold]))


def mean_cell(row: FoldRow, folds: int) -> str:
    """Mean over all folds with its interval, or which folds are missing: never a mean over fewer."""
    return row.missing(folds) or with_interval(mean_of([_estimate(row.results[f]) for f in range(folds)]))


def _mean_score(row: FoldRow, folds: int, score: Callable[[RunResult], float]) -> str:
    """Mean over all folds; of a single fold its own value, which says so; of several but not all "-"."""
    if row.missing(folds):
        (fold, *others) = row.results
        return "-" if others else f"{percent(score(row.results[fold]))} (fold {fold})"
    return percent(sum(score(row.results[f]) for f in range(folds)) / folds)


def _estimate(result: RunResult) -> Estimate:
    low, high = result.miou_ci95
    return Estimate(value=result.miou_mean, low=low, high=high)


def cells(table: FoldTable) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text, for any output format.

    Published values stand in columns of their own, one for each data set and backbone; the heading says when
    the data set is not the table's.
    """
    kinds = sorted({(r.published.dataset, r.published.backbone) for r in table.rows if r.published})
    headings = ["method", "fusion", *(f"fold {f}" for f in range(table.folds)), "mean", "FB-IoU", "Dice"]
    for dataset, backbone in kinds:
        where = "" if dataset == table.dataset else f", on {dataset}: NOT this data set"
        headings.append(f"published mean ({backbone}{where})")
    rows = []
    for row in table.rows:
        texts = [row.label, row.fusion, *(fold_cell(row, f) for f in range(table.folds))]
        texts.append(mean_cell(row, table.folds))
        texts.append(_mean_score(row, table.folds, lambda r: r.fb_iou_mean))
        texts.append(_mean_score(row, table.folds, lambda r: r.dice_mean))
        value = row.published
        for kind in kinds:
            texts.append(f"{value.percent:.1f}" if value and (value.dataset, value.backbone) == kind else "-")
        rows.append(texts)
    return headings, rows


def dice_cells(table: FoldTable) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text: Dice of every row by fold, and its mean over all folds."""
    headings = ["method", "fusion", *(f"fold {f}" for f in range(table.folds)), "mean"]
    rows = []
    for row in table.rows:
        folds = [percent(row.results[f].dice_mean) if f in row.results else "-" for f in range(table.folds)]
        mean = "-" if row.missing(table.folds) else _mean_score(row, table.folds, lambda r: r.dice_mean)
        rows.append([row.label, row.fusion, *folds, mean])
    return headings, rows


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    lines = [list(headings), ["---", *["---:"] * (len(headings) - 1)], *rows]
    return (
        "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        + "\n"
    )


def markdown_table(table: FoldTable) -> str:
    """A fold table as Markdown: title, table, caption."""
    return f"**{table.title}**\n\n{markdown(*cells(table))}\n{table.caption}.\n"


def rich_table(table: FoldTable) -> Table:
    """A fold table for a terminal."""
    headings, rows = cells(table)
    shown = Table(title=escape(table.title), caption=escape(table.caption))
    for i, heading in enumerate(headings):
        words = i < 2
        shown.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for row in rows:
        shown.add_row(*(escape(text.replace(" [", "\n[")) for text in row))
    return shown
