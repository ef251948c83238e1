"""The papers' tables again: printed values, and ours from a frame of results beside them.

``papers.toml`` has the layout of the tables and ``published.csv`` their values; ours are found by the paper,
table and row that the frame gives for each result.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import groupby
from statistics import stdev
from string import ascii_lowercase
from typing import Any, Literal

import pandas as pd

from fewseg.data.protocols import stored_protocol
from fewseg.metrics import Score, dice_of_miou
from fewseg.recipes.registry import variants
from fewseg.recipes.variants import MINI
from fewseg.reports.frame import (
    FoldTable,
    Results,
    fold_tables,
    gains_by_fold,
    trained_alike,
    without_conflicts,
)
from fewseg.reports.numbers import Estimate, dice_of, mean_of, percent, points
from fewseg.reports.published import PublishedValue, published_values

DATASET_NAMES = {"pascal-5i": "PASCAL-5i", "coco-20i": "COCO-20i", MINI: MINI}
PAPER_NAMES = {"scl": "SCL", "srpnet": "SRPNet", "sd-aanet": "SD-AANet"}
ROMAN = ("", "I", "II", "III", "IV", "V")
PrintedScore = Score | Literal["dice_of_miou"]

SCORE_NAMES: dict[PrintedScore, str] = {
    "miou": "mIoU",
    "fb_iou": "FB-IoU",
    "dice": "per-class Dice (mean over the classes)",
    "dice_of_miou": "Dice as 2m/(1+m) of the mIoU m",
}
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class PrintedColumn:
    """A column of numbers: its key as in ``published.csv``, the paper's heading, and K."""

    key: str
    heading: str
    shots: int

    @property
    def fold(self) -> int | None:
        """The fold, or None for a mean over all folds."""
        return int(self.key[-1]) if "fold" in self.key else None

    @property
    def score(self) -> PrintedScore:
        """What is measured; SRPNet's printed Dice is that of the mIoU."""
        if self.key.startswith("dice"):
            return "dice_of_miou"
        if self.key == "per_class_dice":
            return "dice"
        return "fb_iou" if self.key == "fb_iou" else "miou"

    @property
    def bootstrapped(self) -> Score:
        """The score whose interval is resampled."""
        return "miou" if self.score == "dice_of_miou" else self.score


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """A row of a section: its name in ``published.csv``, its label, and where its results are found."""

    name: str
    label: str
    ours: tuple[str, ...] = ()  # places, such as "scl / 1 / SCL"
    over: str = ""  # name of the row that it is set beside
    marks: str = ""  # of each part of the method: "x" on, "-" off
    without: str = ""  # why no results are found


@dataclass(frozen=True, kw_only=True)
class SectionLayout:
    """Rows under one heading."""

    heading: str
    columns: tuple[PrintedColumn, ...]
    rows: tuple[RowLayout, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """A table of a paper, as printed; sections for different K that a paper prints side by side are apart."""

    paper: str
    number: str
    dataset: str
    caption: str
    sections: tuple[SectionLayout, ...]
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """For file names and links, e.g. "scl-table-1"."""
        return f"{self.paper}-table-{self.number}"

    @property
    def name(self) -> str:
        """E.g. "SD-AANet, Table IV"."""
        numeral = ROMAN[int(self.number)] if self.paper == "sd-aanet" else self.number
        return f"{PAPER_NAMES[self.paper]}, Table {numeral}"

    @property
    def values(self) -> dict[tuple[str, int, str], PublishedValue]:
        """Its printed values by row, shots and column."""
        place = (self.paper, self.number)
        return {(v.row, v.shots, v.column): v for v in published_values() if (v.paper, v.table) == place}


@lru_cache(maxsize=1)
def layouts() -> tuple[TableLayout, ...]:
    """Every table of the three papers."""
    text = resources.files("fewseg.reports").joinpath("papers.toml").read_text(encoding="utf-8")
    own = {
        f"{row.paper} / {table} / {row.row}"
        for variant in variants().values()
        for row in variant.printed
        for table in (row.table, row.coco_table)
    }
    return tuple(_layout(table, own) for table in tomllib.loads(text)["table"])


def _layout(table: Mapping[str, Any], own: set[str]) -> TableLayout:
    def row(line: Mapping[str, Any]) -> RowLayout:
        place = f"{table['paper']} / {table['number']} / {line['name']}"
        ours = line.get("ours") or ([place] if place in own and "without" not in line else [])
        without = "" if ours else line.get("without", "fewseg does not have this method")
        return RowLayout(**{"label": line["name"], **line, "ours": tuple(ours), "without": without})

    def section(part: Mapping[str, Any], shots: int | None) -> SectionLayout:
        columns = (PrintedColumn(key=k, heading=h, shots=shots or s[0]) for k, h, *s in part["columns"])
        return SectionLayout(
            heading=f"{shots}-shot" if shots else "",
            columns=tuple(columns),
            rows=tuple(map(row, part["rows"])),
            marks=tuple(part.get("marks", ())),
        )

    sections = [section(part, k) for part in table["section"] for k in part.get("shots", [None])]
    rest = {name: value for name, value in table.items() if name != "section"}
    return TableLayout(**rest | {"sections": tuple(sections), "notes": tuple(table.get("notes", ()))})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of ours in a printed column; scores are fractions."""

    estimate: Estimate | None = None
    std: float | None = None  # over the seeds of the episodes
    status: str = ""  # why there is no estimate: "not run", "missing fold 2"
    source: Mapping[str, str] = field(default_factory=dict)  # how it was measured, by column of the CSV
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


LINE = ["protocol", "sizes", "train_seed", "number"]
"""Columns of :func:`_rows_of_ours` that make the lines of a printed row."""


def paper_tables(results: Results, *, only: Sequence[TableLayout] | None = None) -> list[PaperTable]:
    """Makes the papers' tables with our numbers beside the printed ones."""
    kept, problems = without_conflicts(results.only(results.frame[results.frame.paper != ""]))
    ours = _rows_of_ours(fold_tables(kept) if len(kept) else [])
    return [_table(layout, ours, tuple(problems)) for layout in (layouts() if only is None else only)]


def _rows_of_ours(tables: Sequence[FoldTable]) -> pd.DataFrame:
    """A row for each row of the fold tables, with its place in the papers and what lines can differ in."""
    columns = ["paper", "table", "row", "dataset", "shots", *LINE[:3]]
    lines = [
        {**row.iloc[0][columns], "fold_table": table, "series": series, "runs": len(row)}
        for table in tables
        for series in table.series
        for row in [table.row(series)]
    ]
    rows = pd.DataFrame(lines, columns=[*columns, "fold_table", "series", "runs"])
    rows["place"] = rows.paper + " / " + rows.table + " / " + rows.row
    rows["train_seed"] = rows.train_seed.map(str)
    return rows


def _table(layout: TableLayout, ours: pd.DataFrame, problems: tuple[str, ...]) -> PaperTable:
    mini = layout.dataset == "pascal-5i" and MINI in set(ours.dataset)
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
            on = datasets if row.ours else ()
            lines = {each: _lines(ours[ours.dataset == each], row, over, section.columns) for each in on}
            label = over.label if over else ""
            rows.append(
                PaperRow(layout=row, over=label, printed=printed, printed_gains=tuple(gains), lines=lines)
            )
        sections.append((section, tuple(rows)))
    return PaperTable(layout=layout, datasets=datasets, sections=tuple(sections), problems=problems)


def _lines(
    ours: pd.DataFrame, row: RowLayout, over: RowLayout | None, columns: Sequence[PrintedColumn]
) -> list[tuple[str, list[Cell]]]:
    """A row on one data set: a line for each protocol, input size and training seed, most complete first."""

    def at(places: Sequence[str]) -> pd.DataFrame:
        return pd.concat([ours[ours.place == place] for place in places])

    own, bases = at(row.ours), at(over.ours) if over and over.ours else ours[:0]
    own = own[own.shots.isin([c.shots for c in columns])]
    own["number"] = own.groupby(["shots", *LINE[:3]]).cumcount()
    nothing = Cell(status=NOT_RUN, gain_status=NOT_RUN if over else "")
    differs = [name for name in LINE[:3] if own[name].nunique() > 1]
    texts = {"protocol": "protocol {}", "sizes": "at {} px", "train_seed": "training seed {}"}
    lines = []
    for (*key, number), line in sorted(own.groupby(LINE), key=lambda each: -each[1].runs.sum()):
        by_shots = {found.shots: found for found in line.itertuples()}
        named = dict(zip(LINE, key, strict=False))
        parts = [texts[name].format(named[name]) for name in differs] + [f"no. {number + 1}"] * (number > 0)
        cells = [
            _cell(by_shots[c.shots], bases[bases.shots == c.shots] if over else None, c)
            if c.shots in by_shots
            else nothing
            for c in columns
        ]
        lines.append((", ".join(parts), cells))
    return lines or [("", [nothing] * len(columns))]


def _cell(own: Any, bases: pd.DataFrame | None, column: PrintedColumn) -> Cell:
    table, series = own.fold_table, own.series
    row = table.row(series)
    estimate, missing = None, NOT_RUN
    if column.fold is None:
        estimate, missing = table.mean(series, column.bootstrapped), table.missing(series)
    elif column.fold in row.index:
        estimate = table.results.estimate(row.key[column.fold], column.bootstrapped)
    if estimate and column.score == "dice_of_miou":
        estimate = dice_of(estimate)
    gain = "" if bases is None else _gain_over(bases, own, column)
    return Cell(
        estimate=estimate,
        std=_spread(table, series, column),
        status="" if estimate else missing,
        source=source_of(table, series),
        gain=None if isinstance(gain, str) else gain,
        gain_status=gain if isinstance(gain, str) else "",
    )


def _gain_over(bases: pd.DataFrame, own: Any, column: PrintedColumn) -> Estimate | str:
    """Our row less the row that it is set beside, or why there is no such number."""
    table, series = own.fold_table, own.series
    alike = bases[(bases.protocol == own.protocol) & (bases.train_seed == own.train_seed)]
    sizes = [own.sizes, *own.sizes.split(",")[0].split(" + ")]  # of several inputs, the first with a baseline
    base = next((base for size in sizes for base in alike.series[alike.sizes == size]), "")
    if bases.empty or alike.empty:
        return f"baseline {'not run' if bases.empty else 'of another protocol or training seed'}"
    if not base or not trained_alike(table, base, series):
        return "trained for another length" if base else "baseline at another input size"
    try:
        by_fold = gains_by_fold(table, base, series, column.bootstrapped)
    except ValueError:
        return "other episodes"
    if column.fold is not None:
        wanted, missing = [column.fold], "" if column.fold in by_fold else NOT_RUN
    else:
        wanted = list(by_fold)
        missing = table.missing(series) or (table.missing(base) and f"baseline {table.missing(base)}")
    if missing:
        return missing
    gain = by_fold[wanted[0]] if column.fold is not None else mean_of(list(by_fold.values()))
    if column.score != "dice_of_miou":
        return gain
    return dice_of(gain, float(table.row(base).miou[wanted].mean()))


def _spread(table: FoldTable, series: str, column: PrintedColumn) -> float | None:
    """Standard deviation over the seeds of the episodes; of a mean, that of each seed's mean over folds."""
    row = table.row(series)
    wanted = range(table.folds) if column.fold is None else [column.fold]
    runs = [table.results.runs[row.key[fold]] for fold in wanted if fold in row.index]
    seeds = {tuple(s.seed for s in run.seeds) for run in runs}
    if len(runs) < len(wanted) or len(seeds) != 1:
        return None
    by_run = [[float(getattr(seed, column.bootstrapped)) for seed in run.seeds] for run in runs]
    means = [sum(values) / len(values) for values in zip(*by_run, strict=True)]
    if column.score == "dice_of_miou":
        means = [dice_of_miou(mean) for mean in means]
    return stdev(means) if len(means) > 1 else None


def source_of(table: FoldTable, series: str) -> dict[str, str]:
    """How a row of ours was measured, by column of the CSV; what its folds share is taken from the first."""
    first = table.row(series).iloc[0]
    run = table.results.runs[first.key]
    config = run.training.get("config")
    steps, epochs = (config.get(k) if isinstance(config, Mapping) else None for k in ("steps", "epochs"))
    length = f"{steps} steps, " if steps else f"{epochs} epochs, " if epochs else ""
    trained = f"trained {length}seed {first.train_seed}" if length else "no training recorded"
    protocol = stored_protocol(run.protocol)
    line = protocol.line() if protocol else ""
    columns = ["method", "recipe", "backbone", "fusion", "episodes", "protocol_digest"]
    return {name: first[name] for name in columns} | {
        "size": first.sizes,
        "protocol": line or first.protocol,
        "protocol_line": line,
        "training": trained,
        "sentence": _sentence(first, trained),
    }


def _sentence(first: Any, trained: str) -> str:
    where = DATASET_NAMES.get(first.dataset, first.dataset)
    foreign = " (NOT the papers' data)" if first.dataset == MINI else ""
    on = ", on the supports" if first.on == "support" else ""
    parts = [
        f"fewseg {first.method}, {first.shots}-shot {first.fusion}{on}, on {where}{foreign}",
        f"recipe {first.recipe or 'none'}",
        f"{first.backbone or 'backbone unknown'} at {first.sizes} px",
        trained,
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
                    **cell.source,
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
    lines = dict.fromkeys(source["protocol_line"] for source in sources.values())
    return Page(
        layout=table.layout,
        sections=sections,
        notes=[*table.notes, *(f"Protocol {line}." for line in lines if line), *remarks],
        sources=[(_letter(n), sentence) for n, sentence in enumerate(sources)],
    )


Sources = dict[str, Mapping[str, str]]
"""How our numbers were measured, each once, in the order in which the footnotes are met."""


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
        dataset: any(c.source for row in rows for _, cells in row.lines.get(dataset, ()) for c in cells)
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
    if not cell.source:
        return Text(text=cell.status, status=True)
    sentence, note = cell.source["sentence"], ""
    if column.fold is None:
        sources.setdefault(sentence, cell.source)
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
