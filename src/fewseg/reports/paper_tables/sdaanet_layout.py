"""Tables I-V of SD-AANet (Zhao et al. 2022), as printed there."""

from __future__ import annotations

from fewseg.reports.paper_tables.layout import (
    RowLayout,
    SectionLayout,
    TableLayout,
    by_shots,
    fold_columns,
    not_ours,
    row_of_ours,
)
from fewseg.reports.paper_tables.scl_layout import (
    CANET,
    PANET,
    PFENET,
    PFENET_COCO,
    SCL_PFENET,
    SCL_PFENET_COCO,
)

_FOLDS = ("Fold-0", "Fold-1", "Fold-2", "Fold-3", "Mean")
_BASELINE = ("sd-aanet", "1", "Baseline")
_FULL = ("sd-aanet", "3", "SD-AANet")
_SEPARATE = ("sd-aanet", "5", "Separate Strategy")
_SEVERAL = ("sd-aanet", "4", "Multi-scale Inference")
_NO_RECIPE = "fewseg has no recipe of this row"


def _table_1(shots: int) -> SectionLayout:
    """The 5-shot figure of SD-AANet is the Separate Strategy of Table V."""
    rows = (
        not_ours("OSLSM"),
        not_ours("co-FCN"),
        not_ours("SG-One"),
        not_ours("AMP"),
        RowLayout(name="PANet", label="PANet", ours=PANET),
        not_ours("PGNet"),
        not_ours("FWB"),
        RowLayout(name="CANet", label="CANet", ours=CANET),
        not_ours("CRNet"),
        not_ours("RPMMs"),
        not_ours("SimPropNet"),
        not_ours("PPNet"),
        not_ours("DAN"),
        RowLayout(name="PFENet", label="PFENet", ours=PFENET),
        not_ours("ASGNet"),
        RowLayout(name="SCL", label="SCL", ours=SCL_PFENET, over="PFENet"),
        RowLayout(name="Baseline", label="Baseline (ours)", ours=_BASELINE),
        RowLayout(
            name="SD-AANet",
            label="SD-AANet (ours)",
            ours=_FULL if shots == 1 else _SEPARATE,
            over="Baseline",
        ),
    )
    return SectionLayout(heading=f"{shots}-shot", columns=fold_columns(shots, *_FOLDS), rows=rows)


TABLE_1 = TableLayout(
    paper="sd-aanet",
    number="1",
    dataset="pascal-5i",
    caption="Comparison with other methods on PASCAL-5i, mIoU (%); the baseline follows PFENet",
    sections=(_table_1(1), _table_1(5)),
)

_DAGGER = " (473)"

TABLE_2 = TableLayout(
    paper="sd-aanet",
    number="2",
    dataset="coco-20i",
    caption="Comparison with other methods on COCO-20i, mIoU (%); the baseline follows PFENet",
    sections=by_shots(
        _FOLDS,
        not_ours("FWB"),
        RowLayout(name="PANet", label="PANet", without=_NO_RECIPE),
        not_ours("DAN"),
        not_ours("RPMMs"),
        not_ours("PPNet"),
        RowLayout(name="PFENet", label="PFENet", ours=PFENET_COCO),
        RowLayout(name="PFENet" + _DAGGER, label="PFENet†", ours=("sd-aanet", "2", "PFENet" + _DAGGER)),
        not_ours("ASGNet"),
        RowLayout(name="SCL", label="SCL", ours=SCL_PFENET_COCO, over="PFENet"),
        RowLayout(name="Baseline", label="Baseline (ours)", ours=("sd-aanet", "2", "Baseline")),
        RowLayout(
            name="Baseline" + _DAGGER, label="Baseline (ours)†", ours=("sd-aanet", "2", "Baseline" + _DAGGER)
        ),
        RowLayout(
            name="SD-AANet",
            label="SD-AANet (ours)",
            ours=("sd-aanet", "2", "SD-AANet"),
            over="Baseline",
        ),
        RowLayout(
            name="SD-AANet" + _DAGGER,
            label="SD-AANet (ours)†",
            ours=("sd-aanet", "2", "SD-AANet" + _DAGGER),
            over="Baseline" + _DAGGER,
        ),
    ),
    notes=("† scored on labels resized to 473 x 473; the others on labels at their own size.",),
)


TABLE_3 = TableLayout(
    paper="sd-aanet",
    number="3",
    dataset="pascal-5i",
    caption="Ablation of SDPM and SAAM on PASCAL-5i, 1-shot, mIoU (%)",
    sections=by_shots(
        _FOLDS,
        row_of_ours("Baseline", _BASELINE),
        row_of_ours("Baseline + SAAM", ("sd-aanet", "3", "Baseline + SAAM"), "Baseline"),
        row_of_ours("Baseline + SDPM", ("sd-aanet", "3", "Baseline + SDPM"), "Baseline"),
        row_of_ours("SD-AANet", _FULL, "Baseline"),
        shots=(1,),
    ),
)

TABLE_4 = TableLayout(
    paper="sd-aanet",
    number="4",
    dataset="pascal-5i",
    caption="Ablation of multi-scale inference on PASCAL-5i, 1-shot, mIoU (%)",
    sections=by_shots(
        _FOLDS,
        row_of_ours("Single-scale Inference", _FULL),
        row_of_ours(
            "Multi-scale Inference", ("sd-aanet", "4", "Multi-scale Inference"), "Single-scale Inference"
        ),
        shots=(1,),
    ),
)

TABLE_5 = TableLayout(
    paper="sd-aanet",
    number="5",
    dataset="pascal-5i",
    caption="Ablation of the 5-shot strategy of SDPM on PASCAL-5i, mIoU (%)",
    sections=by_shots(
        _FOLDS,
        row_of_ours("Integral Strategy", ("sd-aanet", "5", "Integral Strategy")),
        row_of_ours("Separate Strategy", _SEPARATE, "Integral Strategy"),
        shots=(5,),
    ),
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5)
