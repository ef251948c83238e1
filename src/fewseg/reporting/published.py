"""Values printed in the papers, in percent as they print them.

``published.csv`` has one value a line: paper, table, row, backbone, dataset, shots, column (fold0 .. fold3,
mean, fb_iou, dice), value. SCL's Tables 1-6, SD-AANet's Tables I-V and SRPNet's Table 1 are complete; of
the others there are the lines of the papers' own methods and baselines. In SCL's Table 4 the row "average" is
the baseline with averaged scores and "CGM" the baseline with CGM; "(473)" is the dagger of SD-AANet's
Table II. Values stay as printed, also where the folds do not give the mean: 1-shot RPMMs and PFENet
(Tables 1 and I), FWB (Tables 2 and II).
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from fewseg.reporting.paper_rows import rows_of


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


def paper_mean(
    dataset: str,
    method: str,
    fusion: str,
    shots: int,
    recipe: str = "",
    on: str = "query",
    backbone: str = "",
    sizes: Sequence[int] = (),
) -> PublishedValue | None:
    """The mean mIoU that a paper prints for such a row of one way, or None.

    Results on voc5i-mini get the PASCAL-5i value, which says of itself where and on which backbone it was
    measured; on the papers' own sets another backbone has no value. ``backbone`` is a name of timm, or "";
    ``sizes`` are the sides of a multi-scale row's inputs, one or none those of any other.
    """
    for row in rows_of(method, recipe):
        if not row.fits(dataset, fusion, shots, on, sizes):
            continue
        place = (row.paper, row.table_for(dataset), row.row, shots, "mean")
        found = [v for v in published_values() if (v.paper, v.table, v.row, v.shots, v.column) == place]
        same = dataset == "voc5i-mini" or not backbone
        found = [v for v in found if same or v.backbone == backbone.removesuffix("s")]
        return found[0] if found else None
    return None


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
