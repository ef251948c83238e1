"""What a set of tables lacks, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fewseg.reports.table import FoldTable


def mixed_protocols(tables: Sequence[FoldTable]) -> list[str]:
    """One sentence for each data set, ways and shots that were measured by several protocols."""
    by_heading: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        by_heading[table.heading].append(table.protocol)
    return [
        f"{heading}: results of {len(protocols)} protocols ({'; '.join(protocols)}) stand in tables of their "
        "own, since their numbers answer different questions"
        for heading, protocols in by_heading.items()
        if len(protocols) > 1
    ]


def missing_folds(tables: Sequence[FoldTable]) -> list[str]:
    """One sentence for each row that lacks a fold."""
    return [
        f"{table.heading}: {row.label} {row.fusion}: {row.missing(table.folds)}, so it has no mean"
        for table in tables
        for row in table.rows
        if row.missing(table.folds)
    ]
