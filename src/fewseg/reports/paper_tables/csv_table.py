"""The papers' tables as CSV: a line for each cell, everything about it in columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from fewseg.reports.numbers import Estimate
from fewseg.reports.paper_tables.grid import is_foreign
from fewseg.reports.paper_tables.layout import Column
from fewseg.reports.paper_tables.model import Measured, PaperTable, Row, Section

HEADINGS = (
    "paper",
    "table",
    "row",
    "shots",
    "column",
    "score",
    "printed",
    "printed_std",
    "printed_dataset",
    "printed_backbone",
    "printed_gain",
    "dataset",
    "papers_data",
    "status",
    "ours",
    "low",
    "high",
    "std_over_seeds",
    "gain_over",
    "gain",
    "gain_low",
    "gain_high",
    "gain_status",
    "variant",
    "method",
    "recipe",
    "backbone",
    "size",
    "fusion",
    "episodes",
    "protocol",
    "protocol_digest",
    "training",
    "reservations",
)
"""Scores and differences are in percent and points."""

Values = dict[str, str]


def csv_tables(tables: Sequence[PaperTable]) -> str:
    """All cells of the tables; a cell that fewseg has no row for has its printed value alone."""
    file = io.StringIO()
    writer = csv.DictWriter(file, HEADINGS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for section in table.sections:
            writer.writerows(_cells(table, section))
    return file.getvalue()


def _cells(table: PaperTable, section: Section) -> Iterator[Values]:
    for row in section.rows:
        for i, column in enumerate(section.columns):
            printed = _printed(table, row, i, column)
            if not row.lines:
                yield printed | {"status": row.without}
            for dataset in table.datasets:
                for line in row.lines.get(dataset, ()):
                    where = {"dataset": dataset, "papers_data": "no" if is_foreign(dataset) else "yes"}
                    yield printed | where | {"variant": line.variant} | _measured(line.cells[i])


def _printed(table: PaperTable, row: Row, place: int, column: Column) -> Values:
    value, gain = row.published[place], row.published_gains[place]
    printed = {
        "paper": table.layout.paper,
        "table": table.layout.number,
        "row": row.name,
        "shots": str(column.shots),
        "column": column.key,
        "score": column.score,
        "printed_gain": "" if gain is None else f"{gain:.1f}",
    }
    if value is None:
        return printed
    return printed | {
        "printed": f"{value.percent:.1f}",
        "printed_std": "" if value.std is None else f"{value.std:.2f}",
        "printed_dataset": value.dataset,
        "printed_backbone": value.backbone,
    }


def _measured(cell: Measured) -> Values:
    values = {
        "status": cell.status or "measured",
        "std_over_seeds": "" if cell.std is None else f"{100 * cell.std:.3f}",
    } | _ends(cell.estimate, "ours", "low", "high")
    if cell.gain is not None:
        values |= {"gain_over": cell.gain.over, "gain_status": cell.gain.status}
        values |= _ends(cell.gain.estimate, "gain", "gain_low", "gain_high")
    source = cell.source
    if source is None:
        return values
    return values | {
        "method": source.method,
        "recipe": source.recipe,
        "backbone": source.backbone,
        "size": source.size,
        "fusion": source.fusion,
        "episodes": source.episodes,
        "protocol": source.protocol_line or source.protocol,
        "protocol_digest": source.digest,
        "training": source.training,
        "reservations": source.reservations,
    }


def _ends(estimate: Estimate | None, *names: str) -> Values:
    if estimate is None:
        return {}
    numbers = (estimate.value, estimate.low, estimate.high)
    return {name: f"{100 * number:.3f}" for name, number in zip(names, numbers, strict=True)}
