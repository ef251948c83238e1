"""The papers' tables with printed values, and beside them ours from a frame of results.

The frame names the paper, table and row of each result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from fewseg.data.protocols import stored_protocol
from fewseg.metrics import dice_of_miou
from fewseg.recipes.variants import MINI
from fewseg.reports.frame import FoldRow, Results, fold_tables, without_conflicts
from fewseg.reports.numbers import Estimate, dice_of
from fewseg.reports.published import (
    DATASET_NAMES,
    PrintedColumn,
    PrintedScore,
    PublishedValue,
    RowLayout,
    SectionLayout,
    TableLayout,
    layouts,
    printed_in,
)

SCORE_NAMES: dict[PrintedScore, str] = {
    "miou": "mIoU",
    "fb_iou": "FB-IoU",
    "dice": "per-class Dice (mean over the classes)",
    "dice_of_miou": "Dice as 2m/(1+m) of the mIoU m",
}
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of ours in a printed column; scores are fractions."""

    row: FoldRow | None = None  # the measured row, or None
    estimate: Estimate | None = None
    std: float | None = None  # over the seeds of the episodes
    status: str = ""  # why there is no estimate: "not run", "missing fold 2"
    gain: Estimate | None = None  # over the baseline row, on the same episodes
    gain_status: str = ""  # why there is no gain


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row with its printed values, one per column, and our lines."""

    layout: RowLayout
    over: str  # label of its baseline row, or ""
    printed: tuple[PublishedValue | None, ...]
    printed_gains: tuple[float | None, ...]  # printed value less that of the baseline, in points
    lines: Mapping[str, list[tuple[str, list[Cell]]]]  # by data set: (what distinguishes the line, cells)

    @property
    def backbone(self) -> str:
        """The printed backbone."""
        return next((value.backbone for value in self.printed if value), "")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A paper's table with our numbers."""

    layout: TableLayout
    datasets: tuple[str, ...]  # data sets of our numbers, the paper's own first
    sections: tuple[tuple[SectionLayout, tuple[PaperRow, ...]], ...]
    problems: tuple[str, ...]  # results left out of all tables, with the reasons

    @property
    def shows_std(self) -> bool:
        """Whether the paper prints standard deviations; ours are then shown too."""
        return any(value is not None and value.std is not None for row in self.rows for value in row.printed)

    @property
    def rows(self) -> list[PaperRow]:
        """The rows of all sections."""
        return [row for _, rows in self.sections for row in rows]

    @property
    def notes(self) -> list[str]:
        """Notes that a reader of the numbers needs."""
        scores = {SCORE_NAMES[c.score] for s in self.layout.sections for c in s.columns}
        notes = [
            *self.layout.notes,
            f"{' and '.join(sorted(scores))} in percent. Printed: the paper's figure on "
            f"{DATASET_NAMES[self.layout.dataset]}. Ours: mean over the seeds of the episodes with a 95 % "
            "bootstrap interval; a mean stands only over all four folds.",
        ]
        if MINI in self.datasets:
            notes.append(
                f"{MINI} is a small subset with a smaller network and short training: its numbers are no "
                "reproduction of the paper's, and stand beside them only to show whether the rows come in "
                "the same order."
            )
        pairs = dict.fromkeys(f"{row.layout.label} over {row.over}" for row in self.rows if row.over)
        if pairs:
            notes.append(
                "Gains in points, ours paired on the same episodes with 95 % intervals over query images: "
                f"{'; '.join(pairs)}."
            )
        reasons: dict[str, dict[str, None]] = {}
        for row in self.rows:
            if row.layout.without:
                reasons.setdefault(row.layout.without, {})[row.layout.label] = None
        return notes + [
            f"Printed value only, {reason}: {', '.join(labels)}." for reason, labels in reasons.items()
        ]


Ours = Mapping[tuple[str, str], Sequence[FoldRow]]
"""(data set, place as in ``RowLayout.ours``) to our rows there."""


def paper_tables(results: Results, *, only: Sequence[TableLayout] | None = None) -> list[PaperTable]:
    """Makes the papers' tables with our numbers beside the printed ones."""
    results, problems = without_conflicts(results.only(results.frame[results.frame.paper != ""]))
    ours: dict[tuple[str, str], list[FoldRow]] = defaultdict(list)
    for table in fold_tables(results) if len(results) else []:
        for row in table.rows:
            place = f"{row.first.paper} / {row.first.table} / {row.first.row}"
            ours[table.dataset, place].append(row)
    return [_table(layout, ours, tuple(problems)) for layout in (layouts() if only is None else only)]


def _table(layout: TableLayout, ours: Ours, problems: tuple[str, ...]) -> PaperTable:
    mini = layout.dataset == "pascal-5i" and any(dataset == MINI for dataset, _ in ours)
    datasets = (layout.dataset, MINI) if mini else (layout.dataset,)
    values = printed_in(layout.paper, layout.number)
    sections = []
    for section in layout.sections:
        named = {row.name: row for row in section.rows}
        rows = []
        for row in section.rows:
            over = named.get(row.over)
            printed = tuple(values.get((row.name, c.shots, c.key)) for c in section.columns)
            below = [values.get((row.over, c.shots, c.key)) for c in section.columns]
            gains = (a.percent - b.percent if a and b else None for a, b in zip(printed, below, strict=True))
            lines = {}
            for dataset in datasets if row.ours else ():
                fold_rows = [fold_row for place in row.ours for fold_row in ours.get((dataset, place), ())]
                bases = (
                    [base for place in over.ours for base in ours.get((dataset, place), ())] if over else None
                )
                lines[dataset] = _lines(fold_rows, bases, section.columns)
            label = over.label if over else ""
            rows.append(
                PaperRow(layout=row, over=label, printed=printed, printed_gains=tuple(gains), lines=lines)
            )
        sections.append((section, tuple(rows)))
    return PaperTable(layout=layout, datasets=datasets, sections=tuple(sections), problems=problems)


def _lines(
    rows: Sequence[FoldRow], bases: Sequence[FoldRow] | None, columns: Sequence[PrintedColumn]
) -> list[tuple[str, list[Cell]]]:
    """A row on one data set: a line for each protocol, input size and training seed, most complete first.

    ``bases`` are our rows of the baseline, None without one.
    """
    shots = {column.shots for column in columns}
    by_key: dict[tuple[str, str, str], list[dict[int, FoldRow]]] = {}  # lines, each with one row per K
    for row in rows:
        if row.first.shots in shots:
            alike = by_key.setdefault((row.first.protocol, row.first.sizes, str(row.first.train_seed)), [])
            line = next((line for line in alike if row.first.shots not in line), None)
            if line is None:
                alike.append(line := {})
            line[row.first.shots] = row
    numbered = [(key, number, line) for key in sorted(by_key) for number, line in enumerate(by_key[key])]
    numbered.sort(key=lambda entry: -sum(len(row.frame) for row in entry[2].values()))
    differs = [len(set(names)) > 1 for names in zip(*by_key, strict=True)]
    texts = ("protocol {}", "at {} px", "training seed {}")
    nothing = Cell(status=NOT_RUN, gain_status="" if bases is None else NOT_RUN)
    lines = []
    for key, number, line in numbered:
        named = zip(texts, key, differs, strict=True)
        parts = [text.format(name) for text, name, differ in named if differ]
        parts += [f"no. {number + 1}"] * (number > 0)
        cells = [_cell(line[c.shots], bases, c) if c.shots in line else nothing for c in columns]
        lines.append((", ".join(parts), cells))
    return lines or [("", [nothing] * len(columns))]


def _cell(row: FoldRow, bases: Sequence[FoldRow] | None, column: PrintedColumn) -> Cell:
    if column.fold is None:
        estimate, missing = row.mean(column.bootstrapped), row.missing
    else:
        estimate, missing = row.estimates(column.bootstrapped).get(column.fold), NOT_RUN
    if estimate and column.score == "dice_of_miou":
        estimate = dice_of(estimate)
    gain = "" if bases is None else _gain_over(bases, row, column)
    return Cell(
        row=row,
        estimate=estimate,
        std=_spread(row, column),
        status="" if estimate else missing,
        gain=None if isinstance(gain, str) else gain,
        gain_status=gain if isinstance(gain, str) else "",
    )


def _gain_over(bases: Sequence[FoldRow], row: FoldRow, column: PrintedColumn) -> Estimate | str:
    """Our row less its baseline, or why there is no such number."""
    base = _base_of([base for base in bases if base.first.shots == column.shots], row)
    if isinstance(base, str):
        return base
    try:
        gain = row.gain_over(base, column.bootstrapped)
    except ValueError:
        return "other episodes"
    if column.fold is None:
        missing = row.missing or (base.missing and f"baseline {base.missing}")
        estimate, folds = gain.mean, list(gain.by_fold)
    else:
        missing, estimate, folds = NOT_RUN, gain.by_fold.get(column.fold), [column.fold]
    if estimate is None:
        return missing
    if column.score != "dice_of_miou":
        return estimate
    return dice_of(estimate, float(base.frame.miou[folds].mean()))


def _base_of(bases: Sequence[FoldRow], row: FoldRow) -> FoldRow | str:
    """The baseline of the same protocol, training and input size as ours; or why there is none."""
    if not bases:
        return "baseline not run"
    training = (row.first.protocol, row.first.train_seed)
    candidates = [base for base in bases if (base.first.protocol, base.first.train_seed) == training]
    if not candidates:
        return "baseline of another protocol or training seed"
    # of several inputs, the first with a baseline
    sizes = [row.first.sizes, *map(str, row.runs[0].sizes)]
    base = next((base for size in sizes for base in candidates if base.first.sizes == size), None)
    if base is None:
        return "baseline at another input size"
    return base if base.trained_like(row) else "trained for another length"


def _spread(row: FoldRow, column: PrintedColumn) -> float | None:
    """Standard deviation over the seeds of the episodes; of a mean, that of each seed's mean over folds."""
    wanted = range(row.folds) if column.fold is None else [column.fold]
    runs = [run for run in row.runs if run.fold in wanted]
    seeds = {tuple(s.seed for s in run.seeds) for run in runs}
    if len(runs) < len(wanted) or len(seeds) != 1:
        return None
    by_run = [[float(getattr(seed, column.bootstrapped)) for seed in run.seeds] for run in runs]
    means = [sum(values) / len(values) for values in zip(*by_run, strict=True)]
    if column.score == "dice_of_miou":
        means = [dice_of_miou(mean) for mean in means]
    return stdev(means) if len(means) > 1 else None


def training_of(row: FoldRow) -> str:
    """How the first of a row's models was trained."""
    config = row.runs[0].training.get("config")
    steps, epochs = (config.get(k) if isinstance(config, Mapping) else None for k in ("steps", "epochs"))
    length = f"{steps} steps" if steps else f"{epochs} epochs" if epochs else ""
    return f"trained {length}, seed {row.first.train_seed}" if length else "no training recorded"


def protocol_line(row: FoldRow) -> str:
    """The protocol in one line, or "" where it is not one of ours."""
    protocol = stored_protocol(row.runs[0].protocol)
    return protocol.line() if protocol else ""


def measured_how(row: FoldRow) -> str:
    """How a row of ours was measured, by its first fold."""
    first = row.first
    where = DATASET_NAMES.get(first.dataset, first.dataset)
    foreign = " (NOT the papers' data)" if first.dataset == MINI else ""
    on = ", on the supports" if first.on == "support" else ""
    parts = [
        f"fewseg {first.method}, {first.shots}-shot {first.fusion}{on}, on {where}{foreign}",
        f"recipe {first.recipe or 'none'}",
        f"{first.backbone or 'backbone unknown'} at {first.sizes} px",
        training_of(row),
        f"{first.episodes} episodes a fold; protocol {first.protocol}",
    ]
    return "; ".join(parts)
