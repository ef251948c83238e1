"""Which results may stand together in tables; the others are named, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from fewseg.engine.results import RunResult
from fewseg.reporting.folder import FoundResult
from fewseg.reporting.table import FoldTable, family_of, sizes_of


def admitted(found: Sequence[FoundResult], folds: int) -> tuple[list[FoundResult], list[str]]:
    """Leaves out what :func:`fewseg.reporting.table.fold_tables` would refuse a whole table for.

    Of one fold of one table, the class split of most results counts (of the first, where two have as many);
    of two results of one row and fold, the first.

    Args:
        found: results of any data set and protocol.
        folds: how many folds the data sets have.

    Returns:
        Those that can share tables, and one sentence for each of the others.
    """
    kept, left_out = [], []
    splits: dict[Hashable, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for each in found:
        splits[_place(each.result)][_tested(each.result)] += 1
    seen: dict[Hashable, str] = {}
    for each in found:
        result = each.result
        usual = splits[_place(result)].most_common(1)[0][0]
        row = (
            _place(result),
            result.method,
            result.fusion,
            family_of(result),
            sizes_of(result),
            _seed(result),
        )
        if not 0 <= result.fold < folds:
            left_out.append(
                f"{each.name} is of fold {result.fold}, outside 0 .. {folds - 1}: give the right --folds"
            )
        elif _tested(result) != usual:
            left_out.append(
                f"{each.name} tests classes {list(_tested(result))} in fold {result.fold}, and the other "
                f"results of that fold {list(usual)}: different class splits cannot share a table; keep them "
                "in folders of their own"
            )
        elif row in seen:
            left_out.append(
                f"{each.name} is of the same row and fold as {seen[row]}: keep one of the two files"
            )
        else:
            seen[row] = each.name
            kept.append(each)
    return kept, left_out


def _place(result: RunResult) -> tuple[Hashable, ...]:
    """Its table and fold."""
    return (
        result.dataset,
        result.ways,
        result.shots,
        result.on,
        result.protocol_digest,
        result.fold,
    )


def _tested(result: RunResult) -> tuple[int, ...]:
    return tuple(sorted(result.classes))


def _seed(result: RunResult) -> str:
    return str(result.training.get("seed"))


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
