"""Which row of which paper's table is a row of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ITERATED = "iterative"


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of ours that a paper prints too.

    Attributes:
        method: registered name.
        stem: its recipe without data set and backbone; "" for all that no other row of the method names.
        fusion: which fusion; with one shot, any of a method that scores pairs.
        on: what is segmented.
        shots: only these K, where a model trained for others is another row; none for all.
        sizes: multi-scale: sides of the inputs, ascending; none for a single scale.
        paper: where it is printed.
        table: number of the table for PASCAL-5i, or "".
        coco: number of the table for COCO-20i, or "".
        row: the row's name there.
    """

    method: str
    stem: str = ""
    fusion: str
    on: str = "query"
    shots: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    paper: str
    table: str = ""
    coco: str = ""
    row: str

    def table_for(self, dataset: str) -> str:
        """Number of the table for a data set, "" for none; voc5i-mini has PASCAL-5i's."""
        return {"pascal-5i": self.table, "voc5i-mini": self.table, "coco-20i": self.coco}.get(dataset, "")

    def fits(self, dataset: str, fusion: str, shots: int, on: str, sizes: Sequence[int]) -> bool:
        """Whether a row of ours, of this method and recipe, is measured as this row is.

        The sides of a multi-scale row are the paper's on the paper's own set; voc5i-mini has its own sides.
        """
        fused = fusion == self.fusion or (shots == 1 and _ITERATED not in (fusion, self.fusion))
        scales = len(sizes) > 1
        scaled = scales == bool(self.sizes) and (
            not scales or dataset == "voc5i-mini" or tuple(sorted(sizes)) == self.sizes
        )
        counted = not self.shots or shots in self.shots
        return bool(self.table_for(dataset)) and fused and scaled and counted and on == self.on


def _srpnet(stem: str, fusion: str, row: str, on: str = "query", table: str = "1") -> PaperRow:
    return PaperRow(method="srpnet", stem=stem, fusion=fusion, on=on, paper="srpnet", table=table, row=row)


def _scl(
    stem: str, row: str, table: str, *shots: int, fusion: str = "average", method: str = "scl-canet"
) -> PaperRow:
    return PaperRow(method=method, stem=stem, fusion=fusion, shots=shots, paper="scl", table=table, row=row)


def _sdaanet(
    stem: str,
    row: str,
    *shots: int,
    method: str = "sdaanet",
    table: str = "",
    coco: str = "",
    sizes: tuple[int, ...] = (),
) -> PaperRow:
    return PaperRow(
        method=method,
        stem=stem,
        fusion="mean",
        shots=shots,
        sizes=sizes,
        paper="sd-aanet",
        table=table,
        coco=coco,
        row=row,
    )


PAPER_ROWS = (
    PaperRow(method="pfenet", fusion="mean", paper="scl", table="1", coco="2", row="PFENet"),
    PaperRow(
        method="scl-pfenet", fusion="cross-guided", paper="scl", table="1", coco="2", row="SCL (PFENet)"
    ),
    _scl("canet", "CANet", "1", 1, method="canet"),
    _scl("canet", "average", "4", 5, method="canet"),
    _scl("canet", "CGM", "4", 5, method="canet", fusion="cross-guided"),
    _scl("canet_attention", "CANet", "1", 5, method="canet", fusion="attention"),
    _scl("scl_canet", "SCL (CANet)", "1", fusion="cross-guided"),
    _scl("scl_canet", "SGM + average", "4", 5),
    _scl("scl_canet_initial", "v_s", "5", 1),
    _scl("scl_canet_primary", "v_pri", "5", 1),
    _scl("scl_canet_auxiliary", "v_aux", "5", 1),
    _scl("scl_canet_all_vectors", "v_s + v_pri + v_aux", "5", 1),
    _scl("scl_canet_first_loss", "L_ce^s1", "6", 1),
    _scl("scl_canet_second_loss", "L_ce^s2", "6", 1),
    _sdaanet("sdaanet_baseline", "Baseline", method="pfenet", table="1", coco="2"),
    _sdaanet("sdaanet_baseline_473", "Baseline (473)", method="pfenet", coco="2"),
    _sdaanet("pfenet_473", "PFENet (473)", method="pfenet", coco="2"),
    _sdaanet("sdaanet_saam", "Baseline + SAAM", 1, table="3"),
    _sdaanet("sdaanet_sdpm", "Baseline + SDPM", 1, table="3"),
    _sdaanet("sdaanet", "SD-AANet", 1, table="3", coco="2"),
    _sdaanet("sdaanet", "Multi-scale Inference", 1, table="4", sizes=(321, 473)),
    _sdaanet("sdaanet_473", "SD-AANet (473)", 1, coco="2"),
    _sdaanet("sdaanet_integral", "Integral Strategy", 5, table="5"),
    _sdaanet("sdaanet_separate", "Separate Strategy", 5, table="5"),
    _sdaanet("sdaanet_separate", "SD-AANet", 5, coco="2"),
    _sdaanet("sdaanet_separate_473", "SD-AANet (473)", 5, coco="2"),
    PaperRow(method="panet", stem="panet", fusion="mean", paper="scl", table="1", row="PANet"),
    _srpnet("srpnet_cos", "mean", "Cos"),
    _srpnet("srpnet_f", "mean", "F"),
    _srpnet("srpnet_f", _ITERATED, "F + IQI"),
    _srpnet("srpnet_f", "mean", "F (sup)", on="support"),
    _srpnet("srpnet", "mean", "F + SRP"),
    _srpnet("srpnet", _ITERATED, "SRPNet", table="2"),
    _srpnet("srpnet", "mean", "F + SRP (sup)", on="support"),
)


def recipe_stem(recipe: str) -> str:
    """A recipe's name without data set, backbone and fold, e.g. "srpnet_f" of "pascal_srpnet_f_resnet50"."""
    stem = re.sub(r"_fold\d$", "", recipe)
    stem = re.sub(r"^(pascal|voc5i_mini|coco|demo)_", "", stem)
    return re.sub(r"_(resnet|vgg)\d+(?=_|$)", "", stem)


def rows_of(method: str, recipe: str) -> tuple[PaperRow, ...]:
    """The rows of a method's recipe: those that name it, else those that name none."""
    own = [row for row in PAPER_ROWS if row.method == method]
    stem = recipe_stem(recipe)
    return tuple([row for row in own if row.stem == stem] or [row for row in own if not row.stem])


def row_of(
    method: str, recipe: str, dataset: str, fusion: str, shots: int, on: str, sizes: Sequence[int]
) -> PaperRow | None:
    """The paper's row that a result of one way is measured as, or None."""
    rows = rows_of(method, recipe)
    return next((row for row in rows if row.fits(dataset, fusion, shots, on, sizes)), None)
