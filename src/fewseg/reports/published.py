"""What the papers print: the values of their tables, in percent, and how the tables are laid out.

A line of ``published.csv`` is a row that a paper prints for one K, with what it prints after "±". All tables
of the three papers are complete; ``papers.toml`` has their captions, columns and labels. In SCL's Table 4 the
row "average" is the baseline with averaged scores and "CGM" the baseline with CGM; "(473)" is SD-AANet's
dagger. Values stay as printed, also where the folds do not give the mean, or where two papers quote one
method differently.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from fewseg.engine.results import RunResult, as_json, nested
from fewseg.metrics import Score
from fewseg.recipes.registry import RECIPES, variant, variants
from fewseg.recipes.variants import MINI, PrintedRow

DATASET_NAMES = {"pascal-5i": "PASCAL-5i", "coco-20i": "COCO-20i", MINI: MINI}
PAPER_NAMES = {"scl": "SCL", "srpnet": "SRPNet", "sd-aanet": "SD-AANet"}
ROMAN = ("", "I", "II", "III", "IV", "V")
PrintedScore = Score | Literal["dice_of_miou"]


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """One number of a paper."""

    paper: str  # "scl", "srpnet" or "sd-aanet": where it is printed, which need not be whose method it is
    table: str  # number of the table, in Arabic digits
    row: str  # the method or the parts switched on
    backbone: str  # "vgg16", "resnet50" or "resnet101"
    dataset: str  # "pascal-5i" or "coco-20i", always the full set
    shots: int  # K
    # "fold0" .. "fold3" and "mean" are mIoU, "fb_iou" is FB-IoU; "dice_fold0" .. "dice_fold3" and "dice" are
    # SRPNet's Dice, 2 m / (1 + m) of the mIoU m
    column: str
    percent: float  # the value in percent
    std: float | None = None  # printed standard deviation over runs, in percent, or None


@lru_cache(maxsize=1)
def published_values() -> tuple[PublishedValue, ...]:
    """All values, in the order of the papers' tables."""
    lines = csv.DictReader(_text("published.csv").splitlines())
    columns = (lines.fieldnames or ())[6:]
    return tuple(_value(line, column) for line in lines for column in columns if line[column])


def _value(line: Mapping[str, str], column: str) -> PublishedValue:
    percent, _, std = line[column].partition("±")
    return PublishedValue(
        **{name: line[name] for name in ("paper", "table", "row", "backbone", "dataset")},
        shots=int(line["shots"]),
        column=column,
        percent=float(percent),
        std=float(std) if std else None,
    )


def printed_in(paper: str, table: str) -> dict[tuple[str, int, str], PublishedValue]:
    """The values of a table by row, K and column."""
    values = [v for v in published_values() if (v.paper, v.table) == (paper, table)]
    return {(v.row, v.shots, v.column): v for v in values}


def _text(name: str) -> str:
    return resources.files("fewseg.reports").joinpath(name).read_text(encoding="utf-8")


def printed_as(result: RunResult) -> tuple[PrintedRow | None, PublishedValue | None]:
    """The row that a paper prints for a result like this, and its mean mIoU."""
    row = next((row for row in variant(result.variant).printed if row.fits(result)), None)
    if row is None or other_parts(result):
        return None, None
    place = (row.paper, row.table_for(result.dataset), row.row)
    values = [v for v in published_values() if (v.paper, v.table, v.row) == place]
    backbone = result.backbone.removesuffix("s")
    if values and backbone and result.dataset != MINI and backbone != values[0].backbone:
        return None, None
    return row, next((v for v in values if (v.shots, v.column) == (result.shots, "mean")), None)


def other_parts(result: RunResult) -> list[str]:
    """Parts in which the method differs from its recipe now; printed rows belong to the recipe."""
    method = nested(result.config, "method")
    config = as_json(RECIPES[result.recipe]().method) if result.recipe in RECIPES else {}
    pairs = [(nested(method, name).get("type"), nested(config, name).get("type")) for name in config]
    return [f"{was} in place of {now}" for was, now in pairs if was not in (None, now)]


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
        """The printed score; SRPNet's Dice is that of the mIoU."""
        if self.key.startswith("dice"):
            return "dice_of_miou"
        if self.key == "per_class_dice":
            return "dice"
        return "fb_iou" if self.key == "fb_iou" else "miou"

    @property
    def bootstrapped(self) -> Score:
        """The score whose interval is bootstrapped."""
        return "miou" if self.score == "dice_of_miou" else self.score


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """A row of a section: its name in ``published.csv``, its label, and the places of its results."""

    name: str
    label: str
    ours: tuple[str, ...] = ()  # places, such as "scl / 1 / SCL"
    over: str = ""  # name of its baseline row
    marks: str = ""  # for each part of the method: "x" on, "-" off
    without: str = ""  # why there are no results


@dataclass(frozen=True, kw_only=True)
class SectionLayout:
    """Rows under one heading."""

    heading: str
    columns: tuple[PrintedColumn, ...]
    rows: tuple[RowLayout, ...]


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """A table of a paper, as printed; sections for different K printed side by side are separate."""

    paper: str
    number: str
    dataset: str
    caption: str
    sections: tuple[SectionLayout, ...]
    marks: tuple[str, ...]  # the parts that rows have on or off
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name for files and links, e.g. "scl-table-1"."""
        return f"{self.paper}-table-{self.number}"

    @property
    def name(self) -> str:
        """The name in text, e.g. "SD-AANet, Table IV"."""
        numeral = ROMAN[int(self.number)] if self.paper == "sd-aanet" else self.number
        return f"{PAPER_NAMES[self.paper]}, Table {numeral}"


@lru_cache(maxsize=1)
def layouts() -> tuple[TableLayout, ...]:
    """Every table of the three papers."""
    places = {
        f"{row.paper} / {table} / {row.row}"
        for variant in variants().values()
        for row in variant.printed
        for table in (row.table, row.coco_table)
    }
    return tuple(_layout(table, places) for table in tomllib.loads(_text("papers.toml"))["table"])


def _layout(table: Mapping[str, Any], places: set[str]) -> TableLayout:
    """A table by its part of ``papers.toml``, and the places that have results."""
    values = printed_in(table["paper"], table["number"])
    rows = table.get("rows", {})

    def row(name: str) -> RowLayout:
        about = {"name": name, "label": name} | rows.get(name, {})
        place = f"{table['paper']} / {table['number']} / {name}"
        ours = about.get("ours") or ([place] if place in places and "without" not in about else [])
        without = "" if ours else about.get("without", "no recipe has this row")
        return RowLayout(**about | {"ours": tuple(ours), "without": without})

    def section(shots: int | None) -> SectionLayout:
        columns = [PrintedColumn(key=k, heading=h, shots=shots or s[0]) for k, h, *s in table["columns"]]
        shown = {(column.shots, column.key) for column in columns}
        names = dict.fromkeys(name for name, *place in values if tuple(place) in shown)
        return SectionLayout(
            heading=f"{shots}-shot" if shots else "",
            columns=tuple(columns),
            rows=tuple(map(row, names)),
        )

    return TableLayout(
        **{name: table[name] for name in ("paper", "number", "dataset", "caption")},
        sections=tuple(map(section, table.get("shots", [None]))),
        marks=tuple(table.get("marks", ())),
        notes=tuple(table.get("notes", ())),
    )
