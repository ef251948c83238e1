"""Methods that were trained several times: scores and gains with the noise of training in the interval."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import pandas as pd

from fewseg.metrics import (
    EpisodeCounts,
    TrainingsDifference,
    mean_score,
    trainings_difference,
    trainings_interval,
)
from fewseg.reports.frame import ROW, FoldRow, FoldTable, baseline_pairs
from fewseg.reports.numbers import (
    Estimate,
    estimate_of,
    fold_cells,
    gain_with_interval,
    mean_of,
    with_interval,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainings:
    """Rows of a table that differ only in the seed of their training."""

    rows: tuple[FoldRow, ...]  # one per training

    @property
    def name(self) -> str:
        """The method, with its recipe and fusion."""
        first = self.rows[0].first
        recipe = f" ({first.recipe})" if first.recipe else ""
        return f"{first.method}{recipe} {first.fusion}"

    @property
    def trained(self) -> bool:
        """Whether the method is trained, so that training adds noise."""
        return bool(self.rows[0].first.checkpoint)

    def counts(self, fold: int) -> list[EpisodeCounts]:
        """The episodes of every training that was tested on a fold."""
        keys = [row.frame.key[fold] for row in self.rows if fold in row.frame.index]
        return [self.rows[0].results.counts[key] for key in keys]

    @property
    def checkpoints(self) -> list[dict[int, str]]:
        """The checkpoint of each training and fold; the same weights may be used in several ways."""
        return [row.frame.checkpoint.to_dict() for row in self.rows]

    def classes(self, fold: int) -> list[int]:
        """The classes that are tested on a fold."""
        row = next(row for row in self.rows if fold in row.frame.index)
        return list(row.results.runs[row.frame.key[fold]].classes)

    @property
    def folds(self) -> list[int]:
        """The folds that any training was tested on."""
        return sorted({fold for row in self.rows for fold in row.frame.index})

    @property
    def missing(self) -> str:
        """Which trainings lack which folds, e.g. "training seed 1: missing folds 1, 2"; "" for none."""
        return "; ".join(
            f"training seed {row.first.train_seed}: {row.missing}" for row in self.rows if row.missing
        )

    @cached_property
    def estimates(self) -> dict[int, Estimate]:
        """The mean mIoU of the trainings in each fold, over trainings and query images."""
        estimates = {}
        for fold in self.folds:
            tables, classes = self.counts(fold), self.classes(fold)
            ends = trainings_interval(tables, classes)
            value = sum(mean_score(table, classes, "miou") for table in tables) / len(tables)
            estimates[fold] = Estimate(value=value, low=ends.low, high=ends.high)
        return estimates


def several_trainings(table: FoldTable) -> list[Trainings]:
    """The methods of a table with more than one training, and those that need none."""
    sets: dict[tuple[object, ...], list[FoldRow]] = {}
    for row in table.rows:
        sets.setdefault(tuple(row.first[name] for name in ROW if name != "train_seed"), []).append(row)
    groups = [Trainings(rows=tuple(rows)) for rows in sets.values()]
    return [group for group in groups if len(group.rows) > 1 or not group.trained]


def training_cells(table: FoldTable) -> pd.DataFrame:
    """The mean mIoU over trainings by fold and over all folds, with the number of trainings."""
    lines = []
    for group in several_trainings(table):
        if not group.trained:
            continue
        by_fold = group.estimates
        texts = {f: f"{with_interval(score)} ({len(group.counts(f))})" for f, score in by_fold.items()}
        mean = group.missing or with_interval(mean_of(list(by_fold.values())))
        lines.append({"method": group.name} | fold_cells(table.folds, texts) | {"mean": mean})
    return pd.DataFrame(lines)


def training_gain_cells(table: FoldTable) -> pd.DataFrame:
    """Gains between such methods: by fold, over all folds, and how many trainings would show the mean."""
    sets = {row.name: group for group in several_trainings(table) for row in group.rows}
    pairs = {
        (sets[a.name].name, sets[b.name].name): (sets[a.name], sets[b.name])
        for a, b in baseline_pairs(table)
        if a.name in sets and b.name in sets and sets[b.name].trained
    }
    lines = []
    for a, b in pairs.values():
        shared = [fold for fold in a.folds if fold in b.folds]
        same = a.checkpoints == b.checkpoints
        by_fold = {f: trainings_difference(a.counts(f), b.counts(f), a.classes(f), same=same) for f in shared}
        line = {"gain in mIoU points": f"{b.name} over {a.name}"}
        line |= fold_cells(table.folds, {fold: _gain(difference) for fold, difference in by_fold.items()})
        missing = "; ".join(dict.fromkeys(group.missing for group in (a, b) if group.missing))
        line["mean"] = missing or gain_with_interval(mean_of([*map(estimate_of, by_fold.values())]))
        line["trainings of each"] = f"{len(b.rows)} and {len(a.rows)}"
        line["two trainings differ by (sd)"] = f"{100 * _training_error(by_fold):.1f}"
        line["trainings needed"] = "-" if missing else _needed(by_fold)
        lines.append(line)
    return pd.DataFrame(lines)


def _gain(difference: TrainingsDifference) -> str:
    few = min(difference.trainings)
    return f"{gain_with_interval(estimate_of(difference))}{' (one training)' if few == 1 else ''}"


def _training_error(by_fold: dict[int, TrainingsDifference]) -> float:
    """Root of the folds' mean variance between trainings; one fold alone estimates it badly."""
    return sqrt(sum(difference.training_error**2 for difference in by_fold.values()) / len(by_fold))


def _needed(by_fold: dict[int, TrainingsDifference]) -> str:
    """How many trainings per fold of each method would show the mean gain."""
    folds, differences = len(by_fold), list(by_fold.values())
    mean = TrainingsDifference(
        difference=sum(difference.difference for difference in differences) / folds,
        interval=differences[0].interval,
        trainings=differences[0].trainings,
        training_error=_training_error(by_fold) / sqrt(folds),
        image_error=sqrt(sum(difference.image_error**2 for difference in differences)) / folds,
    )
    needed = mean.trainings_needed()
    return str(needed) if needed else "more images"
