"""What the papers print: the values of their tables, in percent, and how the tables are laid out.

``published.csv`` has one value a line: paper, table, row, backbone, dataset, shots, column (fold0 .. fold3,
mean, fb_iou, dice_fold0 .. dice_fold3, dice), value, and std, the figure after a printed "+-". All tables of
the three papers are complete; ``papers.toml`` has their sections, columns and rows. In SCL's Table 4 the row
"average" is the baseline with averaged scores and "CGM" the baseline with CGM; "(473)" is SD-AANet's dagger.
Values stay as printed, also where the folds do not give the mean, or where two papers quote one method
differently.
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
    text = resources.files("fewseg.reports").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedValue(
            **{name: line[name] for name in ("paper", "table", "row", "backbone", "dataset", "column")},
            shots=int(line["shots"]),
            percent=float(line["value"]),
            std=float(line["std"]) if line["std"] else None,
        )
        for line in csv.DictReader(text.splitlines())
    )


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
    marks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """A table of a paper, as printed; sections for different K printed side by side are separate."""

    paper: str
    number: str
    dataset: str
    caption: str
    sections: tuple[SectionLayout, ...]
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

    @property
    def values(self) -> dict[tuple[str, int, str], PublishedValue]:
        """The printed values by row, shots and column."""
        place = (self.paper, self.number)
        return {(v.row, v.shots, v.column): v for v in published_values() if (v.paper, v.table) == place}


@lru_cache(maxsize=1)
def layouts() -> tuple[TableLayout, ...]:
    """Every table of the three papers."""
    text = resources.files("fewseg.reports").joinpath("papers.toml").read_text(encoding="utf-8")
    names = {
        f"{row.paper} / {table} / {row.row}"
        for variant in variants().values()
        for row in variant.printed
        for table in (row.table, row.coco_table)
    }
    return tuple(_layout(table, names) for table in tomllib.loads(text)["table"])


def _layout(table: Mapping[str, Any], names: set[str]) -> TableLayout:
    def row(line: Mapping[str, Any]) -> RowLayout:
        place = f"{table['paper']} / {table['number']} / {line['name']}"
        ours = line.get("ours") or ([place] if place in names and "without" not in line else [])
        without = "" if ours else line.get("without", "no recipe has this row")
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
