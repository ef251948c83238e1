"""What a paper's table looks like: its rows and columns, and which row of ours each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewseg.metrics import Score
from fewseg.reports.published import PublishedValue, published_values

Place = tuple[str, str, str]
"""Paper, table and row: the place where ``paper_rows`` says that a row of ours is printed."""

ROMAN = ("", "I", "II", "III", "IV", "V")
SCORE_NAMES: dict[Score, str] = {"miou": "mIoU", "fb_iou": "FB-IoU", "dice": "Dice"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of numbers.

    Attributes:
        key: as ``column`` of ``published.csv``, e.g. "fold0", "mean", "fb_iou".
        heading: as the paper prints it.
        shots: K.
    """

    key: str
    heading: str
    shots: int

    @property
    def fold(self) -> int | None:
        """The fold, or None for a mean over all folds."""
        return int(self.key[-1]) if "fold" in self.key else None

    @property
    def score(self) -> Score:
        """What is measured."""
        if self.key.startswith("dice"):
            return "dice"
        return "fb_iou" if self.key == "fb_iou" else "miou"


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """A row of a paper's table.

    Attributes:
        name: as ``row`` of ``published.csv``.
        label: as the paper prints it.
        ours: where a row of ours is printed that this one is; None where fewseg has none.
        over: name of the row of this section that it is measured against, or "".
        marks: which parts are switched on, one text a heading of ``Section.marks``.
        without: why fewseg has none.
    """

    name: str
    label: str
    ours: Place | None = None
    over: str = ""
    marks: tuple[str, ...] = ()
    without: str = ""


@dataclass(frozen=True, kw_only=True)
class SectionLayout:
    """Rows under one heading.

    Attributes:
        heading: e.g. "1-shot", or "".
        columns: in the order of the paper.
        rows: in the order of the paper.
        marks: headings of the parts that are switched on and off; may be none.
    """

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[RowLayout, ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """A table of a paper.

    Attributes:
        paper: "scl", "srpnet" or "sd-aanet".
        number: of the table, in Arabic digits.
        dataset: "pascal-5i" or "coco-20i".
        caption: what it shows.
        sections: one or more; SCL's and SD-AANet's shots, which they print side by side, are sections too, so
            that there is room for our figures beside the printed ones.
        notes: what a reader of its numbers should know.
    """

    paper: Literal["scl", "srpnet", "sd-aanet"]
    number: str
    dataset: str
    caption: str
    sections: tuple[SectionLayout, ...]
    notes: tuple[str, ...] = ()


FOLD_KEYS = ("fold0", "fold1", "fold2", "fold3", "mean")


def fold_columns(shots: int, *headings: str, dice: bool = False) -> tuple[Column, ...]:
    """The four folds and their mean under the paper's headings."""
    keys = [f"dice_{key}" if key != "mean" else "dice" for key in FOLD_KEYS] if dice else FOLD_KEYS
    return tuple(Column(key=k, heading=h, shots=shots) for k, h in zip(keys, headings, strict=True))


def by_shots(
    headings: tuple[str, ...], *rows: RowLayout, dice: bool = False, shots: tuple[int, ...] = (1, 5)
) -> tuple[SectionLayout, ...]:
    """A section for each number of shots, of the same rows and fold columns."""
    return tuple(
        SectionLayout(heading=f"{k}-shot", columns=fold_columns(k, *headings, dice=dice), rows=rows)
        for k in shots
    )


def printed(layout: TableLayout) -> dict[tuple[str, int, str], PublishedValue]:
    """The values of a table by (row, shots, column)."""
    place = (layout.paper, layout.number)
    return {(v.row, v.shots, v.column): v for v in published_values() if (v.paper, v.table) == place}


def not_ours(name: str, label: str = "") -> RowLayout:
    """A row of a method that fewseg does not have."""
    return RowLayout(name=name, label=label or name, without="fewseg does not have this method")


def row_of_ours(name: str, ours: Place, over: str = "") -> RowLayout:
    """A row of a method or a part that fewseg has, under the name that it has in ``published.csv``."""
    return RowLayout(name=name, label=name, ours=ours, over=over)
