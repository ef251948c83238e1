"""Results as one tidy data frame: one row per result, with its counts in a mapping by the same key.

Tables, gains, comparisons, figures and the site are queries on it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fewseg.data.protocols import stored_protocol
from fewseg.engine.results import RunResult, counts_path, load_with_counts
from fewseg.metrics import EpisodeCounts, Score, bootstrap_score, paired_difference
from fewseg.recipes.registry import variant
from fewseg.reports.numbers import Estimate, estimate_of, mean_of
from fewseg.reports.published import printed_as

FOLDS = 4
"""Number of folds of the papers' data sets."""

FOLDS_OF: Mapping[str, int] = {"fss-1000": 1, "fss-1000-drawn": 1}
"""Data sets with a different number of folds: FSS-1000 has one split."""

TABLE = ["dataset", "ways", "shots", "on", "protocol_digest"]
"""Columns of the frame; results that agree in them share a table."""

ROW = ["method", "fusion", "recipe", "sizes", "train_seed"]
"""Columns of the frame; results of a table that agree in them share a row, with one cell per fold."""


COLUMNS = (  # noqa: SIM905 (a list literal is one name a line)
    "key path method variant label recipe dataset fold folds train_seed checkpoint ways shots fusion on "
    "sizes multi_scale backbone precision protocol protocol_digest protocol_line episodes miou miou_std "
    "miou_low miou_high fb_iou dice dice_of_miou paper table row published published_dataset "
    "published_backbone"
).split()
"""Columns of the frame, whose index is ``key``; scores are fractions."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results by their keys."""

    frame: pd.DataFrame  # one row per result, with the columns COLUMNS; its key is the index
    runs: Mapping[str, RunResult]
    counts: Mapping[str, EpisodeCounts]  # empty where they were not read
    left_out: tuple[str, ...] = ()  # one sentence for each result that could not be used
    _cache: dict[tuple[str, ...], Estimate] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.frame)

    def only(self, frame: pd.DataFrame) -> Results:
        """Returns the results of some rows of the frame."""
        return replace(self, frame=frame)

    def estimate(self, key: str, score: Score = "miou") -> Estimate:
        """A score with its interval over episodes; computed once."""
        row = self.frame.loc[key]
        if score == "miou":
            return Estimate(value=float(row.miou), low=float(row.miou_low), high=float(row.miou_high))
        if (key, score) not in self._cache:
            interval = bootstrap_score(self.counts[key], self.runs[key].classes, score)
            self._cache[key, score] = Estimate(value=float(row[score]), low=interval.low, high=interval.high)
        return self._cache[key, score]

    def difference(self, a: str, b: str, score: Score = "miou") -> Estimate:
        """Score of ``b`` less score of ``a``, paired over query images; computed once."""
        if (a, b, score) not in self._cache:
            paired = paired_difference(
                self.counts[a], self.counts[b], self.runs[a].classes, score=score, over="queries"
            )
            self._cache[a, b, score] = estimate_of(paired)
        return self._cache[a, b, score]

    def classes(self) -> pd.DataFrame:
        """One row per result and tested class: ``key``, ``class_id``, ``name``, ``iou`` and ``dice``."""
        rows = [
            {"key": key, "class_id": c, "name": run.class_names.get(c, str(c)), "iou": iou, "dice": dice[c]}
            for key, run, dice in ((k, self.runs[k], self.runs[k].per_class_dice) for k in self.frame.index)
            for c, iou in run.per_class_mean.items()
        ]
        return pd.DataFrame(rows, columns=["key", "class_id", "name", "iou", "dice"])


def load_results(folder: str | Path, *, folds: int = FOLDS) -> Results:
    """Reads every result under a folder, which may have none; the key is its path without ``.json``."""
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that `fewseg evaluate` writes to")
    runs, counts, left_out = {}, {}, []
    for path in sorted(root.rglob("*.json")):
        if not counts_path(path).exists() and not _is_result(path):
            continue
        key = path.relative_to(root).with_suffix("").as_posix()
        try:
            runs[key], counts[key] = load_with_counts(path)
        except (FileNotFoundError, ValueError) as error:
            left_out.append(str(error).replace(f"{root}/", ""))
    return results_of(runs, counts, left_out=left_out, folds=folds)


def _is_result(path: Path) -> bool:
    """Whether a JSON file is a result; its counts are missing."""
    try:
        RunResult.load(path)
    except ValueError:
        return False
    return True


def results_of(
    runs: Mapping[str, RunResult],
    counts: Mapping[str, EpisodeCounts] | None = None,
    *,
    left_out: Sequence[str] = (),
    folds: int = FOLDS,
) -> Results:
    """The frame of results by their keys."""
    rows = [_row(key, run, folds) for key, run in runs.items()]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["train_seed"] = pd.Series([run.train_seed for run in runs.values()], dtype=object)
    return Results(frame=frame.set_index("key"), runs=runs, counts=counts or {}, left_out=tuple(left_out))


def _row(key: str, run: RunResult, folds: int) -> dict[str, Any]:
    row, value = printed_as(run)
    protocol = stored_protocol(run.protocol)
    title = str(run.protocol.get("name", ""))
    made = {
        "key": key,  # the file's path below its folder, without .json
        "path": f"{key}.json",
        "label": variant(run.variant).label or run.recipe or run.method,  # for figures
        "folds": FOLDS_OF.get(run.dataset, folds),  # how many the data set has
        "sizes": run.sizes_text or "unknown",
        "multi_scale": len(run.sizes) > 1 or bool(run.output_sizes),
        "protocol": f"{title} [{run.protocol_digest}]".strip(),
        "protocol_line": f"protocol {protocol.line()}"
        if protocol
        else f"protocol {title or 'without a name'} [{run.protocol_digest}]",
        # seeds times episodes, as "5 x 1000"
        "episodes": f"{len(run.seeds)} x {run.seeds[0].episodes}" if run.seeds else "",
        "miou": run.miou_mean,
        "miou_low": run.miou_ci95[0],
        "miou_high": run.miou_ci95[1],
        "fb_iou": run.fb_iou_mean,
        "dice": run.dice_mean,
        "dice_of_miou": run.dice_of_miou_mean,
        "paper": row.paper if row else "",  # that prints such a result
        "table": row.table_for(run.dataset) if row else "",
        "row": row.row if row else "",
        "published": value.percent if value else None,  # its mean over folds
        "published_dataset": value.dataset if value else "",
        "published_backbone": value.backbone if value else "",
    }
    return made | {name: getattr(run, name) for name in COLUMNS if name not in made}


def by_test_alone(results: Results) -> Results:
    """The results by what the test is, so that different rules of training can stand in one table.

    The rules are what training makes of novel classes: leave their images out, ignore their pixels, neither.
    """
    protocols = [stored_protocol(results.runs[key].protocol) for key in results.frame.index]
    digests = [
        protocol.of_test().digest() if protocol else own
        for protocol, own in zip(protocols, results.frame.protocol_digest, strict=True)
    ]
    return results.only(results.frame.assign(protocol_digest=digests))


def made_as(run: RunResult) -> dict[str, Any]:
    """How a result was made, but for the seed of its training, the fold, and where files lie."""
    method = {name: value for name, value in run.config.get("method", {}).items() if name != "fusion"}
    if "backbone" in method:
        method["backbone"] = {**method["backbone"], "weights": None}
    train, no_matter = run.training.get("config", {}), ("seed", "save_every", "workers")
    train = {name: value for name, value in train.items() if name not in no_matter}
    parts = {"fusion": run.config.get("fusion", run.fusion), "method": method, "train": train}
    return flatten({"size": run.sizes_text, **parts})


def flatten(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings, with keys joined by dots; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def entries_that_differ(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """One phrase for each entry that two mappings do not share."""
    return [
        f"{what} {key}: {a.get(key, 'nothing')!s:.80} and {b.get(key, 'nothing')!s:.80}"
        for key in sorted(set(a) | set(b))
        if a.get(key, "nothing") != b.get(key, "nothing")
    ]


def without_conflicts(results: Results) -> tuple[Results, list[str]]:
    """Leaves out results that cannot share a table.

    Of one fold the class split that most results of a table have is kept, none where two are equally
    frequent; of a row with all its trainings the same of what they were made with, so that no mean is over
    different steps. Of two results of one row and fold neither is kept, unless they have the same scores.
    """
    frame, problems = results.frame, []
    outside = (frame.fold < 0) | (frame.fold >= frame.folds)
    for row in frame[outside].itertuples():
        problems.append(f"{row.path} is of fold {row.fold}, outside 0 .. {row.folds - 1}: left out")
    frame = frame[~outside]
    for _, group in frame.groupby([*TABLE, "fold"], sort=False):
        classes = {key: frozenset(results.runs[key].classes) for key in group.index}
        splits = Counter(classes.values()).most_common(2)
        if len(splits) == 1:
            continue
        tied = splits[0][1] == splits[1][1]
        dropped = [key for key in group.index if tied or classes[key] != splits[0][0]]
        frame = frame.drop(dropped)
        first = group.iloc[0]
        named = (f"{group.path[k]} (classes {', '.join(map(str, sorted(classes[k])))})" for k in dropped)
        problems.append(
            f"different class splits of {first.dataset} fold {first.fold} cannot share a table; left out "
            + ", ".join(named)
        )
    trainings = [*TABLE, *(name for name in ROW if name != "train_seed")]
    for _, group in frame.groupby(trainings, sort=False, dropna=False):
        made = {key: made_as(results.runs[key]) for key in group.index}
        kinds = Counter(json.dumps(each, sort_keys=True) for each in made.values()).most_common(2)
        if len(kinds) == 1:
            continue
        tied = kinds[0][1] == kinds[1][1]
        first, other = (json.loads(kind) for kind, _ in kinds)
        dropped = [key for key in group.index if tied or json.dumps(made[key], sort_keys=True) != kinds[0][0]]
        frame = frame.drop(dropped)
        problems.append(
            f"results of one name, {name_of(group.iloc[0])}, that were made differently cannot share a row "
            f"({'; '.join(entries_that_differ('its', first, other))}); left out "
            + ", ".join(group.path[key] for key in dropped)
        )
    for _, group in frame.groupby([*TABLE, *ROW, "fold"], sort=False, dropna=False):
        if len(group) == 1:
            continue
        equal = all(results.runs[key].seeds == results.runs[group.index[0]].seeds for key in group.index)
        frame = frame.drop(group.index[1:] if equal else group.index)
        paths = list(group.path)
        what = f"{len(group)} results of one row, {name_of(group.iloc[0])}: {' and '.join(paths)}"
        fate = f"they are equal, {paths[0]} is shown" if equal else "left out, keep one of the files"
        problems.append(f"{what}: {fate}")
    return results.only(frame), problems


def name_of(row: Any) -> str:
    """A result in messages, e.g. "pfenet mean 1-shot on voc5i-mini fold 0"."""
    return f"{row.method} {row.fusion} {row.shots}-shot on {row.dataset} fold {row.fold}"


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldRow:
    """A row of a table: results of one method with one fusion that differ only in the fold."""

    name: str  # its name in the table, with what distinguishes it from similar rows
    results: Results
    frame: pd.DataFrame  # its results by fold, ascending, with the further columns ``key`` and ``series``
    folds: int  # number of folds that a mean needs

    @cached_property
    def first(self) -> Any:
        """Its first result, for values that all share."""
        return self.frame.iloc[0]

    @property
    def runs(self) -> list[RunResult]:
        """Its results."""
        return [self.results.runs[key] for key in self.frame.key]

    @property
    def missing(self) -> str:
        """Which folds were not run, e.g. "missing fold 2"; "" where all were."""
        missing = [str(f) for f in range(self.folds) if f not in self.frame.index]
        return f"missing fold{'s' if len(missing) > 1 else ''} {', '.join(missing)}" if missing else ""

    def estimates(self, score: Score = "miou") -> dict[int, Estimate]:
        """A score in each fold, with its interval."""
        return {fold: self.results.estimate(key, score) for fold, key in self.frame.key.items()}

    def mean(self, score: Score = "miou") -> Estimate | None:
        """Mean over all folds with its interval; None where one is missing."""
        return None if self.missing else mean_of(list(self.estimates(score).values()))

    def gain_over(self, over: FoldRow, score: Score = "miou") -> Gain:
        """Its gain over another row; raises ``ValueError`` if the episodes are not the same."""
        a, b = over.frame.key, self.frame.key
        pairs = {fold: (a[fold], b[fold]) for fold in a.index.intersection(b.index)}
        by_fold = {fold: self.results.difference(*pair, score) for fold, pair in pairs.items()}
        return Gain(row=self, over=over, by_fold=by_fold)

    def trained_like(self, other: FoldRow) -> bool:
        """Whether both were trained equally long, or the training of one is missing or unknown."""

        def lengths(row: FoldRow) -> dict[int, tuple[object, object] | None]:
            configs = {run.fold: run.training.get("config") for run in row.runs}
            return {
                fold: (config.get("steps"), config.get("batch")) if isinstance(config, Mapping) else None
                for fold, config in configs.items()
            }

        these, others = lengths(self), lengths(other)
        pairs = [(these[fold], others[fold]) for fold in these.keys() & others.keys()]
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """The difference of two rows on each fold that both have, paired by query image, as fractions."""

    row: FoldRow
    over: FoldRow  # the baseline
    by_fold: Mapping[int, Estimate]

    @property
    def name(self) -> str:
        """The names of both rows."""
        return f"{self.row.name} over {self.over.name}"

    @property
    def missing(self) -> str:
        """Which folds the mean lacks, or ""."""
        return "; ".join(f"{row.name}: {row.missing}" for row in (self.over, self.row) if row.missing)

    @property
    def mean(self) -> Estimate | None:
        """Mean over all folds with its interval; None where one is missing."""
        return None if self.missing else mean_of(list(self.by_fold.values()))


@dataclass(frozen=True, kw_only=True)
class FoldTable:
    """Results that may stand in one table: of one data set, task and protocol."""

    results: Results  # the frame has the further columns ``series``, the name of the row, and ``suffix``
    rows: tuple[FoldRow, ...]
    dataset: str
    ways: int
    shots: int
    on: str
    protocol: str
    episodes: str
    folds: int  # number of folds that a mean needs

    @property
    def series(self) -> list[str]:
        """The names of the rows."""
        return [row.name for row in self.rows]

    @property
    def heading(self) -> str:
        """Data set, ways and shots, e.g. "voc5i-mini, 2-way 5-shot"."""
        ways = f"{self.ways}-way " if self.ways > 1 else ""
        on = ", on the support set itself" if self.on == "support" else ""
        return f"{self.dataset}, {ways}{self.shots}-shot{on}"

    @property
    def title(self) -> str:
        """What the numbers are, in one line."""
        return f"{self.heading}, mIoU in percent with 95 % intervals"

    @property
    def caption(self) -> str:
        """How they were measured, in one line."""
        return f"protocol {self.protocol}, {self.episodes} episodes a fold"


def fold_tables(results: Results) -> list[FoldTable]:
    """One table for each data set, task (ways, shots, what is segmented) and protocol, in this order."""
    if not len(results):
        raise ValueError("there are no results to make a table of: evaluate something first")
    _, problems = without_conflicts(results)
    if problems:
        raise ValueError("; ".join(problems))
    return [_fold_table(results, frame) for _, frame in results.frame.groupby(TABLE)]


def _fold_table(results: Results, frame: pd.DataFrame) -> FoldTable:
    named = frame.assign(suffix="")
    for _, group in frame.groupby(["method", "fusion"]):
        parts = pd.DataFrame(index=group.index)
        if group.recipe.nunique() > 1:
            parts["recipe"] = group.recipe
        if group.sizes.nunique() > 1:
            parts["sizes"] = "at " + group.sizes + " px"
        if group.train_seed.nunique(dropna=False) > 1:
            parts["seed"] = [f"training seed {'unknown' if s is None else s}" for s in group.train_seed]
        named.loc[group.index, "suffix"] = [", ".join(map(str, row)) for row in parts.itertuples(index=False)]
    named = named.sort_values(["method", "fusion", "suffix"], kind="stable")
    brackets = [f" ({suffix})" if suffix else "" for suffix in named.suffix]
    named["series"] = named.method + brackets + " " + named.fusion
    first, results = frame.iloc[0], results.only(named)
    by_fold = named.reset_index().set_index("fold", drop=False).groupby("series", sort=False)
    return FoldTable(
        results=results,
        rows=tuple(
            FoldRow(name=str(name), results=results, frame=row.sort_index(), folds=first.folds)
            for name, row in by_fold
        ),
        **{name: first[name] for name in ("dataset", "ways", "shots", "on", "protocol", "episodes", "folds")},
    )


def gains(table: FoldTable) -> list[Gain]:
    """Every row over its baselines; raises ``ValueError`` if the episodes are not the same."""
    return [row.gain_over(over) for over, row in baseline_pairs(table)]


def baseline_pairs(table: FoldTable) -> list[tuple[FoldRow, FoldRow]]:
    """(baseline, row) for every row and every baseline of its variant.

    Other methods are paired where they are fused alike, or have a fusion of their own alone; with one shot
    there is nothing to fuse but iterated prototypes. A method is also paired with its plain fusion, with its
    variants that lack one part, and at several sizes with itself at one. Rows that were trained for different
    lengths are not paired.
    """
    pairs = [(a, b) for b in table.rows for a in table.rows]
    return [(a, b) for a, b in pairs if _is_baseline(a.first, b.first, table.shots) and a.trained_like(b)]


FUSION_BASELINE = {"cross-guided": "average", "iterative": "mean"}

OWN_FUSIONS = ("fit", "vote", "all")
"""Of methods that have no other, with which the plain fusions of their baselines are compared."""

PAPER_FUSIONS = (("mean", "cross-guided"), ("attention", "cross-guided"))
"""The papers' 5-shot rows: PFENet with mean vectors, or CANet with its attention, and SCL with CGM."""


def _is_baseline(a: Any, b: Any, shots: int) -> bool:
    """Whether results like ``a`` are a baseline of those like ``b``."""
    same = (a.variant, a.recipe, a.train_seed) == (b.variant, b.recipe, b.train_seed)
    if a.multi_scale or b.multi_scale:
        return bool(same and a.fusion == b.fusion and b.multi_scale and not a.multi_scale)
    declared = variant(b.variant)
    if a.variant in declared.one_part_less:
        trained = (a.train_seed, a.backbone) == (b.train_seed, b.backbone)
        return bool(trained and (a.fusion == b.fusion or (a.fusion, b.fusion) == ("mean", "iterative")))
    if a.variant in declared.baselines:
        if "iterative" in (a.fusion, b.fusion):
            return (a.fusion, b.fusion) == ("mean", "iterative")
        if shots == 1:
            return bool(a.fusion != "attention")  # which was trained for several shots
        own = b.fusion in OWN_FUSIONS and a.fusion in FUSION_BASELINE.values()
        return bool(own or a.fusion == b.fusion or (a.fusion, b.fusion) in PAPER_FUSIONS)
    plain = a.fusion == FUSION_BASELINE.get(b.fusion)
    return bool(same and plain) and (shots > 1 or b.fusion == "iterative")
