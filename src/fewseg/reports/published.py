"""Values printed in the papers, in percent as they print them.

``published.csv`` has one value a line: paper, table, row, backbone, dataset, shots, column (fold0 .. fold3,
mean, fb_iou, dice_fold0 .. dice_fold3, dice), value, and std, the figure after a printed "+-". All tables of
the three papers are complete. In SCL's Table 4 the row "average" is the baseline with averaged scores and
"CGM" the baseline with CGM; "(473)" is SD-AANet's dagger. Values stay as printed, also where the folds do not
give the mean, or where two papers quote one method differently.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from fewseg.recipes.variants import PrintedRow, Variant


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


def printed_as(
    variant: Variant,
    dataset: str,
    fusion: str,
    shots: int,
    on: str = "query",
    sizes: Sequence[int] = (),
    output_sizes: Sequence[int] = (),
    *,
    backbone: str = "",
) -> tuple[PrintedRow | None, PublishedValue | None]:
    """The row that a paper prints for such a result of one way, and its mean mIoU."""
    row = variant.row(dataset, fusion, shots, on, sizes, output_sizes)
    if row is None:
        return None, None
    place = (row.paper, row.table_for(dataset), row.row)
    values = [v for v in published_values() if (v.paper, v.table, v.row) == place]
    if values and not is_of_backbone(values[0].backbone, dataset, backbone):
        return None, None
    return row, next((v for v in values if (v.shots, v.column) == (shots, "mean")), None)


def is_of_backbone(printed: str, dataset: str, backbone: str) -> bool:
    """Whether a result on this backbone may stand beside a row printed for another's name."""
    return dataset == "voc5i-mini" or not backbone or printed == backbone.removesuffix("s")
