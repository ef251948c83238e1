"""Our numbers for a cell: score, interval and spread of a fold or of the mean over all folds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from fewseg.engine.results import RunResult
from fewseg.metrics import Score, bootstrap_score
from fewseg.reports.gains import CountsOf, Gain, paired_gain, trained_alike
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.paper_tables.layout import Column
from fewseg.reports.paper_tables.model import NOT_RUN, GainOver
from fewseg.reports.table import FoldRow, FoldTable


class Scores:
    """Scores of results and differences of rows, each computed once though several tables show it.

    Args:
        counts_of: gives the episode counts of a result.
        known: gains in mIoU that need not be computed again.
    """

    def __init__(self, counts_of: CountsOf, known: Sequence[Gain] = ()) -> None:
        self._counts_of = counts_of
        self._known = {
            (id(gain.a.results[fold]), id(gain.b.results[fold])): estimate
            for gain in known
            for fold, estimate in gain.by_fold.items()
        }
        self._estimates: dict[tuple[int, Score], Estimate] = {}
        self._gains: dict[tuple[int, int, Score], Gain | str] = {}

    def estimate(self, row: FoldRow, column: Column, folds: int) -> Estimate | None:
        """The score of the column's fold or the mean over all folds; None where one was not run."""
        if column.fold is not None:
            result = row.results.get(column.fold)
            return self._of_result(result, column.score) if result else None
        if row.missing(folds):
            return None
        return mean_of([self._of_result(row.results[f], column.score) for f in range(folds)])

    def _of_result(self, result: RunResult, score: Score) -> Estimate:
        key = (id(result), score)
        if key not in self._estimates:
            value: float = getattr(result, f"{score}_mean")
            low, high = result.miou_ci95
            if score != "miou":
                interval = bootstrap_score(self._counts_of(result), result.classes, score)
                low, high = interval.low, interval.high
            self._estimates[key] = Estimate(value=value, low=low, high=high)
        return self._estimates[key]

    def gain(self, table: FoldTable, row: FoldRow, base: FoldRow, column: Column, over: str) -> GainOver:
        """``row`` less ``base`` in a column, or why there is no such number."""
        found = self._gain(table, base, row, column.score)
        if isinstance(found, str):
            return GainOver(over=over, status=found)
        if column.fold is not None:
            estimate = found.by_fold.get(column.fold)
            return GainOver(over=over, estimate=estimate, status="" if estimate else NOT_RUN)
        missing = row.missing(table.folds)
        if missing or found.missing:
            return GainOver(over=over, status=missing or f"baseline {base.missing(table.folds)}")
        every = [found.by_fold[fold] for fold in range(table.folds)]
        return GainOver(over=over, estimate=mean_of(every))

    def _gain(self, table: FoldTable, base: FoldRow, row: FoldRow, score: Score) -> Gain | str:
        key = (id(base), id(row), score)
        if key not in self._gains:
            self._gains[key] = self._paired(table, base, row, score)
        return self._gains[key]

    def _paired(self, table: FoldTable, base: FoldRow, row: FoldRow, score: Score) -> Gain | str:
        if not trained_alike(base, row):
            return "trained for another length"
        if score == "miou":
            folds = set(base.results) & set(row.results)
            pairs = {fold: (id(base.results[fold]), id(row.results[fold])) for fold in sorted(folds)}
            if set(pairs.values()) <= set(self._known):
                by_fold = {fold: self._known[pair] for fold, pair in pairs.items()}
                missing = base.missing(table.folds) or row.missing(table.folds)
                return Gain(a=base, b=row, by_fold=by_fold, missing=missing)
        try:
            return paired_gain(base, row, table.folds, self._counts_of, score)
        except ValueError:
            return "other episodes"


def spread(row: FoldRow, column: Column, folds: int) -> float | None:
    """Standard deviation over the seeds of the episodes; of a mean, that of each seed's mean over folds.

    None for a single seed, and where folds are missing or have other seeds.
    """
    wanted = range(folds) if column.fold is None else [column.fold]
    runs = [row.results[fold] for fold in wanted if fold in row.results]
    seeds = {tuple(s.seed for s in run.seeds) for run in runs}
    if len(runs) < len(wanted) or len(seeds) != 1:
        return None
    means = _means_of_seeds(runs, column.score)
    return stdev(means) if len(means) > 1 else None


def _means_of_seeds(runs: Sequence[RunResult], score: Score) -> list[float]:
    by_run = [[float(getattr(seed, score)) for seed in run.seeds] for run in runs]
    return [sum(values) / len(values) for values in zip(*by_run, strict=True)]
