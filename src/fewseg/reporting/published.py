"""Values printed in the papers, in percent as they print them.

``published.csv`` has one value a line: paper, table, row, backbone, dataset, shots, column (fold0 .. fold3,
mean, fb_iou, dice), value. SCL's Tables 1-6 are complete; of SRPNet and SD-AANet there are the mean lines. In
SCL's Table 4 the row "average" is the baseline with averaged scores and "CGM" the baseline with CGM. Values
stay as printed, also where the folds do not give the mean: 1-shot RPMMs and PFENet (Table 1), FWB (Table 2).
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

_PAPER_TABLES = {"pascal-5i": "1", "voc5i-mini": "1", "coco-20i": "2"}
PAPER_ROWS = {
    "pfenet": ("PFENet", "mean"),
    "scl-pfenet": ("SCL (PFENet)", "cross-guided"),
}  # method: row, K-shot fusion


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """One number of a paper.

    Attributes:
        paper: "scl", "srpnet" or "sd-aanet": where it is printed, which need not be whose method it is.
        table: number of the table, in Arabic digits.
        row: the method or the parts switched on.
        backbone: "vgg16", "resnet50" or "resnet101".
        dataset: "pascal-5i" or "coco-20i", always the full set.
        shots: K.
        column: "fold0" .. "fold3", "mean" (both mIoU, or Dice in SRPNet's Table 3: "dice"), or "fb_iou".
        percent: the value in percent.
    """

    paper: str
    table: str
    row: str
    backbone: str
    dataset: str
    shots: int
    column: str
    percent: float


@lru_cache(maxsize=1)
def published_values() -> tuple[PublishedValue, ...]:
    """All values, in the order of the papers' tables."""
    text = resources.files("fewseg.reporting").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedValue(
            paper=line["paper"],
            table=line["table"],
            row=line["row"],
            backbone=line["backbone"],
            dataset=line["dataset"],
            shots=int(line["shots"]),
            column=line["column"],
            percent=float(line["value"]),
        )
        for line in csv.DictReader(text.splitlines())
    )


def paper_mean(dataset: str, method: str, fusion: str, shots: int) -> PublishedValue | None:
    """The mean mIoU that SCL's Table 1 (on COCO-20i: Table 2) prints for such a row, or None.

    Results on voc5i-mini get the PASCAL-5i value, which says of itself where it was measured.
    """
    row, table = PAPER_ROWS.get(method), _PAPER_TABLES.get(dataset)
    if row is None or (shots > 1 and fusion != row[1]):
        return None
    found = [
        v
        for v in published_values()
        if (v.paper, v.table, v.row, v.shots, v.column) == ("scl", table, row[0], shots, "mean")
    ]
    return found[0] if found else None


def published_value(*, paper: str, table: str, row: str, shots: int, column: str = "mean") -> PublishedValue:
    """Finds one value.

    Raises:
        ValueError: there is none; the message has the rows and columns of that table.
    """
    in_table = [v for v in published_values() if (v.paper, v.table) == (paper, table)]
    if not in_table:
        known = sorted({f"{v.paper} {v.table}" for v in published_values()})
        raise ValueError(f"published.csv has no table {paper} {table}; it has {', '.join(known)}")
    for value in in_table:
        if (value.row, value.shots, value.column) == (row, shots, column):
            return value
    rows = sorted({v.row for v in in_table})
    near = difflib.get_close_matches(row, rows, n=3) or rows
    found = sorted({f"{v.shots}-shot {v.column}" for v in in_table if v.row == row})
    if found:
        raise ValueError(
            f"{paper} table {table}, row {row!r}, has no {shots}-shot {column}; it has {', '.join(found)}"
        )
    raise ValueError(f"{paper} table {table} has no row {row!r}; nearest: {', '.join(near)}")
