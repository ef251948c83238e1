"""The papers' tables again: printed values, and ours from a frame of results beside them.

Ours are found by the paper, table and row that the frame gives for each result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import stdev
from string import ascii_lowercase

import pandas as pd

from fewseg.data.protocols import stored_protocol
from fewseg.metrics import dice_of_miou
from fewseg.recipes.variants import MINI
from fewseg.reports.frame import FoldRow, Results, fold_tables, without_conflicts
from fewseg.reports.numbers import Estimate, dice_of, percent, points
from fewseg.reports.published import (
    DATASET_NAMES,
    PrintedColumn,
    PrintedScore,
    PublishedValue,
    RowLayout,
    SectionLayout,
    TableLayout,
    layouts,
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

    row: FoldRow | None = None  # what was measured; None for nothing
    estimate: Estimate | None = None
    std: float | None = None  # over the seeds of the episodes
    status: str = ""  # why there is no estimate: "not run", "missing fold 2"
    gain: Estimate | None = None  # over the row that it is set beside, on the same episodes
    gain_status: str = ""  # why there is no gain


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row with its printed values, one a column, and our lines."""

    layout: RowLayout
    over: str  # label of the row that it is set beside, or ""
    printed: tuple[PublishedValue | None, ...]
    printed_gains: tuple[float | None, ...]  # printed value less that of the other row, in points
    lines: Mapping[str, list[tuple[str, list[Cell]]]]  # by data set: (what differs from the others, cells)

    @property
    def backbone(self) -> str:
        """As printed."""
        return next((value.backbone for value in self.printed if value), "")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A paper's table with our numbers."""

    layout: TableLayout
    datasets: tuple[str, ...]  # whose numbers of ours stand in it, the paper's own first
    sections: tuple[tuple[SectionLayout, tuple[PaperRow, ...]], ...]
    problems: tuple[str, ...]  # what was left out of all tables and why

    @property
    def shows_std(self) -> bool:
        """Whether the paper prints standard deviations in it; ours are shown then too."""
        return any(value is not None and value.std is not None for row in self.rows for value in row.printed)

    @property
    def rows(self) -> list[PaperRow]:
        """Of all sections."""
        return [row for _, rows in self.sections for row in rows]

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers should know."""
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
    kept, problems = without_conflicts(results.only(results.frame[results.frame.paper != ""]))
    ours: dict[tuple[str, str], list[FoldRow]] = defaultdict(list)
    for table in fold_tables(kept) if len(kept) else []:
        for row in table.rows:
            place = f"{row.first.paper} / {row.first.table} / {row.first.row}"
            ours[table.dataset, place].append(row)
    return [_table(layout, ours, tuple(problems)) for layout in (layouts() if only is None else only)]


def _table(layout: TableLayout, ours: Ours, problems: tuple[str, ...]) -> PaperTable:
    mini = layout.dataset == "pascal-5i" and any(dataset == MINI for dataset, _ in ours)
    datasets = (layout.dataset, MINI) if mini else (layout.dataset,)
    values = layout.values
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
                own = [one for place in row.ours for one in ours.get((dataset, place), ())]
                bases = (
                    [one for place in over.ours for one in ours.get((dataset, place), ())] if over else None
                )
                lines[dataset] = _lines(own, bases, section.columns)
            label = over.label if over else ""
            rows.append(
                PaperRow(layout=row, over=label, printed=printed, printed_gains=tuple(gains), lines=lines)
            )
        sections.append((section, tuple(rows)))
    return PaperTable(layout=layout, datasets=datasets, sections=tuple(sections), problems=problems)


def _lines(
    own: Sequence[FoldRow], bases: Sequence[FoldRow] | None, columns: Sequence[PrintedColumn]
) -> list[tuple[str, list[Cell]]]:
    """A row on one data set: a line for each protocol, input size and training seed, most complete first.

    ``bases`` are of the row that it is set beside, None without one.
    """
    shots = {column.shots for column in columns}
    found: dict[tuple[str, str, str], list[dict[int, FoldRow]]] = {}  # by K; of two with one K two lines
    for row in own:
        if row.first.shots in shots:
            same = found.setdefault((row.first.protocol, row.first.sizes, str(row.first.train_seed)), [])
            line = next((line for line in same if row.first.shots not in line), None)
            if line is None:
                same.append(line := {})
            line[row.first.shots] = row
    every = [(key, number, line) for key in sorted(found) for number, line in enumerate(found[key])]
    every.sort(key=lambda each: -sum(len(row.frame) for row in each[2].values()))
    differs = [len(set(names)) > 1 for names in zip(*found, strict=True)]
    texts = ("protocol {}", "at {} px", "training seed {}")
    nothing = Cell(status=NOT_RUN, gain_status="" if bases is None else NOT_RUN)
    lines = []
    for key, number, line in every:
        named = zip(texts, key, differs, strict=True)
        parts = [text.format(name) for text, name, several in named if several]
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
    """Our row less the row that it is set beside, or why there is no such number."""
    base = _base_of([base for base in bases if base.first.shots == column.shots], row)
    if isinstance(base, str):
        return base
    try:
        gain = row.gain_over(base, column.bootstrapped)
    except ValueError:
        return "other episodes"
    if column.fold is None:
        missing = row.missing or (base.missing and f"baseline {base.missing}")
        found, folds = gain.mean, list(gain.by_fold)
    else:
        missing, found, folds = NOT_RUN, gain.by_fold.get(column.fold), [column.fold]
    if found is None:
        return missing
    if column.score != "dice_of_miou":
        return found
    return dice_of(found, float(base.frame.miou[folds].mean()))


def _base_of(bases: Sequence[FoldRow], row: FoldRow) -> FoldRow | str:
    """The row to measure ours against: of its own protocol, training and input size; or why there is none."""
    if not bases:
        return "baseline not run"
    own = (row.first.protocol, row.first.train_seed)
    alike = [base for base in bases if (base.first.protocol, base.first.train_seed) == own]
    if not alike:
        return "baseline of another protocol or training seed"
    # of several inputs, the first with a baseline
    sizes = [row.first.sizes, *row.first.sizes.split(",")[0].split(" + ")]
    base = next((base for size in sizes for base in alike if base.first.sizes == size), None)
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


def _training(row: FoldRow) -> str:
    """How the first of a row's models was trained."""
    config = row.runs[0].training.get("config")
    steps, epochs = (config.get(k) if isinstance(config, Mapping) else None for k in ("steps", "epochs"))
    length = f"{steps} steps" if steps else f"{epochs} epochs" if epochs else ""
    return f"trained {length}, seed {row.first.train_seed}" if length else "no training recorded"


def _protocol_line(row: FoldRow) -> str:
    protocol = stored_protocol(row.runs[0].protocol)
    return protocol.line() if protocol else ""


def measured_how(row: FoldRow) -> str:
    """How a row of ours was measured; what its folds share is taken from the first."""
    first = row.first
    where = DATASET_NAMES.get(first.dataset, first.dataset)
    foreign = " (NOT the papers' data)" if first.dataset == MINI else ""
    on = ", on the supports" if first.on == "support" else ""
    parts = [
        f"fewseg {first.method}, {first.shots}-shot {first.fusion}{on}, on {where}{foreign}",
        f"recipe {first.recipe or 'none'}",
        f"{first.backbone or 'backbone unknown'} at {first.sizes} px",
        _training(row),
        f"{first.episodes} episodes a fold; protocol {first.protocol}",
    ]
    return "; ".join(parts)


CSV_HEADINGS = (
    "paper table row shots column score printed printed_std printed_dataset printed_backbone printed_gain "
    "dataset papers_data status ours low high std_over_seeds gain_over gain gain_low gain_high gain_status "
    "variant method recipe backbone size fusion episodes protocol protocol_digest training"
)
"""Scores and differences are in percent and points."""


def csv_tables(tables: Sequence[PaperTable]) -> str:
    """A line for each cell, everything about it in columns; a row that is not ours has its printed values."""
    lines = [
        line
        for table in tables
        for section, rows in table.sections
        for row in rows
        for line in _csv_lines(table, section, row)
    ]
    frame = pd.DataFrame(lines, columns=CSV_HEADINGS.split())
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _csv_lines(table: PaperTable, section: SectionLayout, row: PaperRow) -> Iterator[dict[str, str]]:
    for i, column in enumerate(section.columns):
        value, gain = row.printed[i], row.printed_gains[i]
        printed = {
            "paper": table.layout.paper,
            "table": table.layout.number,
            "row": row.layout.name,
            "shots": str(column.shots),
            "column": column.key,
            "score": column.score,
            "printed_gain": "" if gain is None else f"{gain:.1f}",
        }
        if value is not None:
            printed |= {
                "printed": f"{value.percent:.1f}",
                "printed_std": "" if value.std is None else f"{value.std:.2f}",
                "printed_dataset": value.dataset,
                "printed_backbone": value.backbone,
            }
        if not row.lines:
            yield printed | {"status": row.layout.without}
        for dataset, lines in row.lines.items():
            for variant, cells in lines:
                cell = cells[i]
                yield printed | {
                    "dataset": dataset,
                    "papers_data": "no" if dataset == MINI else "yes",
                    "variant": variant,
                    "status": cell.status or "measured",
                    "std_over_seeds": "" if cell.std is None else f"{100 * cell.std:.3f}",
                    "gain_over": row.over,
                    "gain_status": cell.gain_status,
                    **_ends(cell.estimate, "ours", "low", "high"),
                    **_ends(cell.gain, "gain", "gain_low", "gain_high"),
                    **_columns_of(cell.row),
                }


def _columns_of(row: FoldRow | None) -> dict[str, str]:
    """How a row of ours was measured."""
    if row is None:
        return {}
    names = ["method", "recipe", "backbone", "fusion", "episodes", "protocol_digest"]
    return {name: row.first[name] for name in names} | {
        "size": row.first.sizes,
        "protocol": _protocol_line(row) or row.first.protocol,
        "training": _training(row),
    }


def _ends(estimate: Estimate | None, *names: str) -> dict[str, str]:
    if estimate is None:
        return {}
    numbers = vars(estimate).values()
    return {name: f"{100 * number:.3f}" for name, number in zip(names, numbers, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Text:
    """What one cell of a table shows: a number or a name, its interval, footnote and tooltip."""

    text: str
    interval: str = ""
    note: str = ""
    title: str = ""
    status: bool = False  # says why there is no number
    further: bool = False  # names a further line of the row above


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table as text."""

    block: str  # whose numbers these are; columns of one block stand under it; "" for names
    heading: str
    short: str = ""  # the block in short lines, for a terminal
    words: bool = False  # has names and not numbers
    detail: bool = False  # a narrow screen can do without it
    foreign: bool = False  # the numbers are not of the paper's data set
    empty: bool = False  # stands for a whole block without numbers


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section as text: what Markdown, HTML, LaTeX and the terminal all show."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]

    @property
    def blocks(self) -> list[list[Column]]:
        """The columns by their blocks."""
        return [list(columns) for _, columns in groupby(self.columns, key=lambda c: c.block)]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A table as text, for the templates."""

    layout: TableLayout
    sections: list[Section]
    notes: list[str]
    sources: list[tuple[str, str]]  # (letter, how it was measured)


def page_of(table: PaperTable, remarks: Sequence[str] = ()) -> Page:
    """A table as text."""
    sources: Sources = {}
    sections = [_section(table, layout, rows, sources) for layout, rows in table.sections]
    lines = dict.fromkeys(map(_protocol_line, sources.values()))
    return Page(
        layout=table.layout,
        sections=sections,
        notes=[*table.notes, *(f"Protocol {line}." for line in lines if line), *remarks],
        sources=[(_letter(n), sentence) for n, sentence in enumerate(sources)],
    )


Sources = dict[str, FoldRow]
"""How our numbers were measured, each once, in the order of the footnotes, and a row of each."""


def _letter(n: int) -> str:
    """A .. z, aa, ab, ..."""
    return (ascii_lowercase[n // 26 - 1] if n >= 26 else "") + ascii_lowercase[n % 26]


def _section(table: PaperTable, layout: SectionLayout, rows: Sequence[PaperRow], sources: Sources) -> Section:
    gained = any(row.over for row in rows)
    summary = [i for i, column in enumerate(layout.columns) if gained and column.fold is None]

    headings = [(c.heading, c.fold is not None) for c in layout.columns]
    for i in summary:
        headings.append((f"gain {layout.columns[i].heading}" if len(summary) > 1 else "gain", False))

    def numbers(block: str, short: str, foreign: bool = False) -> list[Column]:
        return [
            Column(block=block, short=short, foreign=foreign, heading=heading, detail=detail)
            for heading, detail in headings
        ]

    own = DATASET_NAMES[table.layout.dataset]
    columns = [Column(block="", heading="Method", words=True)]
    columns += [Column(block="", heading=mark, words=True, detail=True) for mark in layout.marks]
    columns += [
        Column(block="", heading="Backbone", words=True, detail=True),
        *numbers(f"printed, {own}", "printed"),
    ]
    measured = {
        dataset: any(c.row for row in rows for _, cells in row.lines.get(dataset, ()) for c in cells)
        for dataset in table.datasets
    }
    for dataset in table.datasets:
        foreign, name = dataset != table.layout.dataset, DATASET_NAMES[dataset]
        block = f"fewseg on {name}" + (", NOT the paper's data" if foreign else "")
        short = f"fewseg,\n{name}" + (",\nNOT\npaper's" if foreign else "")
        if measured[dataset]:
            columns += numbers(block, short, foreign)
        else:
            columns.append(Column(block=block, short=short, foreign=foreign, heading="all", empty=True))
    shown = []
    for row in rows:
        for number in range(max([1, *map(len, row.lines.values())])):
            of_sets = {d: lines[number] for d, lines in row.lines.items() if number < len(lines)}
            texts = _printed_texts(row, number, [variant for variant, _ in of_sets.values()], summary)
            for dataset in table.datasets:
                cells = of_sets[dataset][1] if dataset in of_sets else None
                if measured[dataset] and cells:
                    for each in zip(cells, layout.columns, row.printed, strict=True):
                        texts.append(_measured(*each, row.over, table.shows_std, sources))
                    texts += [_gain(cells[i], row.over) for i in summary]
                    continue
                count = len(headings) if measured[dataset] else 1
                text = NOT_RUN if cells else "" if number else "-"
                texts += [Text(text=text, title="" if cells else row.layout.without, status=True)] * count
            shown.append(tuple(texts))
    return Section(heading=layout.heading, columns=tuple(columns), rows=tuple(shown))


def _printed_texts(row: PaperRow, number: int, variants: Sequence[str], summary: Sequence[int]) -> list[Text]:
    """A row's names, the values printed and their gains; of its further lines only what differs in them."""
    cells = [
        Text(text=row.layout.label, title=row.layout.without),
        *(Text(text=mark) for mark in row.layout.marks),
    ]
    cells += [Text(text=row.backbone or "-"), *map(_printed, row.printed)]
    for i in summary:
        gain = row.printed_gains[i]
        if gain is None:
            cells.append(Text(text="-" if row.over else "", status=True))
        else:
            cells.append(Text(text=f"{gain:+.1f}", title=f"printed value less that of {row.over}"))
    if number:
        label = " / ".join(dict.fromkeys(filter(None, variants)))
        return [Text(text=label, further=True), *[Text(text="")] * (len(cells) - 1)]
    return cells


def _percent(value: PublishedValue) -> str:
    return f"{value.percent:.1f}" + ("" if value.std is None else f"±{value.std:.2f}")


def _printed(value: PublishedValue | None) -> Text:
    if value is None:
        return Text(text="-", title="none printed", status=True)
    place = f"{value.row}, {value.shots}-shot, on {DATASET_NAMES[value.dataset]} with {value.backbone}"
    return Text(text=_percent(value), title=f"as printed: {place}")


def _measured(
    cell: Cell,
    column: PrintedColumn,
    value: PublishedValue | None,
    over: str,
    shows_std: bool,
    sources: Sources,
) -> Text:
    if cell.row is None:
        return Text(text=cell.status, status=True)
    sentence, note = measured_how(cell.row), ""
    if column.fold is None:
        sources.setdefault(sentence, cell.row)
        note = _letter(list(sources).index(sentence))
    printed = "none printed"
    if value is not None:
        printed = f"printed {_percent(value)} ({DATASET_NAMES[value.dataset]}, {value.backbone})"
    gain = _gain(cell, over)
    gained = [f"{gain.text} {gain.interval} over {over}"] if cell.gain else []
    std = f"±{100 * cell.std:.2f}" if shows_std and cell.std is not None and cell.estimate else ""
    ends = cell.estimate
    return Text(
        text=percent(ends.value) + std if ends else cell.status,
        interval=f"[{percent(ends.low)}, {percent(ends.high)}]" if ends else "",
        note=note,
        title="; ".join([printed, *gained, sentence]),
        status=ends is None,
    )


def _gain(cell: Cell, over: str) -> Text:
    if cell.gain is None:
        return Text(text=cell.gain_status, title=f"over {over}" if over else "", status=True)
    return Text(
        text=points(cell.gain.value),
        interval=f"[{points(cell.gain.low)}, {points(cell.gain.high)}]",
        title=f"over {over}, paired on the same episodes, interval over query images",
    )
