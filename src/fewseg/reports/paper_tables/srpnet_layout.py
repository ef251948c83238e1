"""Tables 1-4 of SRPNet (Ding et al. 2022), as printed there."""

from __future__ import annotations

from fewseg.reports.paper_tables.layout import (
    Column,
    RowLayout,
    SectionLayout,
    TableLayout,
    by_shots,
    not_ours,
    row_of_ours,
)
from fewseg.reports.paper_tables.scl_layout import CANET, PANET, PFENET, PFENET_COCO

_SPLITS = ("split-1", "split-2", "split-3", "split-4", "mean")
_SRPNET = ("srpnet", "2", "SRPNet")
_NO_COCO = "fewseg has no recipe of this row on COCO"
_OTHER_CLASSES = (
    "the paper does not say which classes it tests: results of coco_srpnet_resnet50, on parts of our own, "
    "do not stand beside its numbers"
)


TABLE_1 = TableLayout(
    paper="srpnet",
    number="1",
    dataset="pascal-5i",
    caption="Ablation on PASCAL-5i, 1-way 1-shot, mIoU (%); (sup): on the support set itself",
    sections=by_shots(
        _SPLITS,
        row_of_ours("Cos", ("srpnet", "1", "Cos")),
        row_of_ours("F", ("srpnet", "1", "F"), "Cos"),
        row_of_ours("F + SRP", ("srpnet", "1", "F + SRP"), "F"),
        row_of_ours("F + IQI", ("srpnet", "1", "F + IQI"), "F"),
        row_of_ours("F + SRP + IQI", _SRPNET, "F + SRP"),
        row_of_ours("F (sup)", ("srpnet", "1", "F (sup)")),
        row_of_ours("F + SRP (sup)", ("srpnet", "1", "F + SRP (sup)"), "F (sup)"),
        shots=(1,),
    ),
)

_PANET = RowLayout(name="PANet", label="PANet", ours=PANET)
_CANET = RowLayout(name="CANet", label="CANet", ours=CANET)
_PFENET = RowLayout(name="PFENet", label="PFENet", ours=PFENET)
_OURS = RowLayout(name="SRPNet", label="SRPNet (ours)", ours=_SRPNET, over="PFENet")

TABLE_2 = TableLayout(
    paper="srpnet",
    number="2",
    dataset="pascal-5i",
    caption="Comparison with other methods on PASCAL-5i, mIoU (%)",
    sections=by_shots(
        _SPLITS,
        not_ours("SG-one"),
        _PANET,
        not_ours("FWP"),
        not_ours("REF"),
        _CANET,
        not_ours("PGNet"),
        not_ours("CRNet"),
        not_ours("PPNet"),
        not_ours("PMMs"),
        _PFENET,
        _OURS,
    ),
    notes=("The printed ± is over 5 runs with other episodes; so is ours.",),
)

TABLE_3 = TableLayout(
    paper="srpnet",
    number="3",
    dataset="pascal-5i",
    caption="Comparison with other methods on PASCAL-5i, Dice (%)",
    sections=by_shots(
        _SPLITS,
        not_ours("SG-one"),
        _PANET,
        _CANET,
        not_ours("PPNet"),
        not_ours("PMMs"),
        _PFENET,
        _OURS,
        dice=True,
    ),
    notes=("The printed ± is over 5 runs with other episodes; so is ours.",),
)

TABLE_4 = TableLayout(
    paper="srpnet",
    number="4",
    dataset="coco-20i",
    caption="Comparison with other methods on COCO, mIoU (%)",
    sections=(
        SectionLayout(
            heading="",
            columns=tuple(Column(key="mean", heading=f"{k}-shot", shots=k) for k in (1, 5)),
            rows=(
                RowLayout(name="PANet", label="PANet (VGG 16)", without=_NO_COCO),
                not_ours("FWP", "FWP (ResNet-101)"),
                not_ours("REF", "REF (VGG 16)"),
                not_ours("PMMs", "PMMs (ResNet-50)"),
                RowLayout(name="PFENet", label="PFENet (ResNet-101 v2)", ours=PFENET_COCO),
                RowLayout(
                    name="SRPNet", label="SRPNet (Ours, ResNet-50)", over="PFENet", without=_OTHER_CLASSES
                ),
            ),
        ),
    ),
    notes=("The paper's own row is of classes in 40 to train, 20 to validate and 20 to test.",),
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4)
