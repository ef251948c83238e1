"""Values printed in the papers, in percent as they print them.

``published.csv`` has one value a line: paper, table, row, backbone, dataset, shots, column (fold0 .. fold3,
mean, fb_iou, dice_fold0 .. dice_fold3, dice), value, and std, the figure after a printed "+-". All tables of
the three papers are complete. In SCL's Table 4 the row "average" is the baseline with averaged scores and
"CGM" the baseline with CGM; "(473)" is SD-AANet's dagger. Values stay as printed, also where the folds do not
give the mean, or where two papers quote one method differently.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from fewseg.engine.results import RunResult, as_json, nested
from fewseg.recipes.registry import RECIPES, variant
from fewseg.recipes.variants import MINI, PrintedRow


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
    """The row that a paper prints for such a result, and its mean mIoU."""
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
    """What the method has in place of parts that its recipe has now: printed rows are of the recipe."""
    method = nested(result.config, "method")
    own = as_json(RECIPES[result.recipe]().method) if result.recipe in RECIPES else {}
    pairs = [(nested(method, name).get("type"), nested(own, name).get("type")) for name in own]
    return [f"{was} in place of {now}" for was, now in pairs if was not in (None, now)]
