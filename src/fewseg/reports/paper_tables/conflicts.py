"""Which results cannot share the tables: it says which, so that the rest can be shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from fewseg.engine.results import RunResult
from fewseg.reports.table import result_name, row_key, table_key

NameOf = Callable[[RunResult], str]


def separable(
    results: Sequence[RunResult], folds: int, name_of: NameOf = result_name
) -> tuple[list[RunResult], list[str]]:
    """Leaves out what ``fold_tables`` would refuse.

    Of one fold the class split that most results of a table have is kept, none where two are equally
    frequent. Of two results of one row and fold neither is kept, unless they have the same scores.

    Args:
        results: any results.
        folds: how many folds the data sets have.
        name_of: names a result in a sentence, such as by its file.

    Returns:
        The results that are left, in their order, and a sentence for each reason.
    """
    inside = [r for r in results if 0 <= r.fold < folds]
    problems = [
        f"{name_of(r)} is of fold {r.fold}, outside 0 .. {folds - 1}: left out"
        for r in results
        if not 0 <= r.fold < folds
    ]
    alike, more = _of_one_split(inside, name_of)
    single, most = _without_duplicates(alike, name_of)
    return single, problems + more + most


def _of_one_split(results: Sequence[RunResult], name_of: NameOf) -> tuple[list[RunResult], list[str]]:
    dropped: set[int] = set()
    problems = []
    for same in _groups(results, lambda r: (*table_key(r), r.fold)):
        splits = Counter(frozenset(r.classes) for r in same)
        if len(splits) == 1:
            continue
        (first, most), (_, second) = splits.most_common(2)
        out = [r for r in same if most == second or frozenset(r.classes) != first]
        dropped |= {id(r) for r in out}
        problems.append(
            f"different class splits of {same[0].dataset} fold {same[0].fold} cannot share a table; left out "
            + ", ".join(f"{name_of(r)} (classes {_numbers(r.classes)})" for r in out)
        )
    return [r for r in results if id(r) not in dropped], problems


def _without_duplicates(results: Sequence[RunResult], name_of: NameOf) -> tuple[list[RunResult], list[str]]:
    dropped: set[int] = set()
    problems = []
    for same in _groups(results, lambda r: (*table_key(r), *row_key(r), r.fold)):
        if len(same) == 1:
            continue
        names = " and ".join(map(name_of, same))
        equal = all(r.seeds == same[0].seeds for r in same)
        out = same[1:] if equal else same
        dropped |= {id(r) for r in out}
        what = f"{len(same)} results of one row, {result_name(same[0])}: {names}"
        fate = f"they are equal, {name_of(same[0])} is shown" if equal else "left out, keep one of the files"
        problems.append(f"{what}: {fate}")
    return [r for r in results if id(r) not in dropped], problems


def _groups(results: Sequence[RunResult], key: Callable[[RunResult], Hashable]) -> Iterable[list[RunResult]]:
    groups: dict[Hashable, list[RunResult]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return groups.values()


def _numbers(classes: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(classes)))
