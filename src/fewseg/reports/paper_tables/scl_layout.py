"""Tables 1-6 of SCL (Zhang et al. 2021), as printed there."""

from __future__ import annotations

from fewseg.reports.paper_tables.layout import (
    Column,
    RowLayout,
    SectionLayout,
    TableLayout,
    by_shots,
    not_ours,
)

_PASCAL = ("P.-5⁰", "P.-5¹", "P.-5²", "P.-5³", "Mean")
_COCO = ("C.⁰", "C.¹", "C.²", "C.³", "Mean")
_ON, _OFF = "x", "-"

CANET = ("scl", "1", "CANet")
PFENET = ("scl", "1", "PFENet")
PANET = ("scl", "1", "PANet")
SCL_CANET = ("scl", "1", "SCL (CANet)")
SCL_PFENET = ("scl", "1", "SCL (PFENet)")
PFENET_COCO = ("scl", "2", "PFENet")
SCL_PFENET_COCO = ("scl", "2", "SCL (PFENet)")

_CANET = RowLayout(name="CANet", label="CANet (CVPR'19)", ours=CANET)
_SCL_CANET = RowLayout(name="SCL (CANet)", label="ours-SCL (CANet)", ours=SCL_CANET, over="CANet")
_SCL_PFENET = RowLayout(name="SCL (PFENet)", label="ours-SCL (PFENet)", ours=SCL_PFENET, over="PFENet")

TABLE_1 = TableLayout(
    paper="scl",
    number="1",
    dataset="pascal-5i",
    caption="Comparison with other methods on PASCAL-5i, mIoU (%)",
    sections=by_shots(
        _PASCAL,
        not_ours("OSLSM", "OSLSM (BMVC'17)"),
        not_ours("SG-One"),
        RowLayout(name="PANet", label="PANet (ICCV'19)", ours=PANET),
        not_ours("PGNet", "PGNet (ICCV'19)"),
        not_ours("CRNet", "CRNet (CVPR'20)"),
        not_ours("RPMMs", "RPMMs (ECCV'20)"),
        not_ours("FWB", "FWB (ICCV'19)"),
        not_ours("PPNet", "PPNet* (ECCV'20)"),
        not_ours("DAN", "DAN (ECCV'20)"),
        _CANET,
        RowLayout(name="PFENet", label="PFENet (TPAMI'20)", ours=PFENET),
        _SCL_CANET,
        _SCL_PFENET,
    ),
    notes=("* printed without extra unlabelled support data.",),
)

TABLE_2 = TableLayout(
    paper="scl",
    number="2",
    dataset="coco-20i",
    caption="Comparison with other methods on COCO-20i, mIoU (%)",
    sections=by_shots(
        _COCO,
        not_ours("FWB", "FWB (ICCV'19)"),
        not_ours("PPNet", "PPNet (ECCV'20)"),
        not_ours("DAN", "DAN (ECCV'20)"),
        RowLayout(name="PFENet", label="PFENet (TPAMI'20)", ours=PFENET_COCO),
        RowLayout(name="SCL (PFENet)", label="ours-SCL (PFENet)", ours=SCL_PFENET_COCO, over="PFENet"),
    ),
)

TABLE_3 = TableLayout(
    paper="scl",
    number="3",
    dataset="pascal-5i",
    caption="Comparison with other methods on PASCAL-5i, FB-IoU (%)",
    sections=(
        SectionLayout(
            heading="",
            columns=tuple(Column(key="fb_iou", heading=f"{k}-shot", shots=k) for k in (1, 5)),
            rows=(
                _CANET,
                RowLayout(name="PFENet", label="PFENet (TPAMI'20) *", ours=PFENET),
                _SCL_CANET,
                _SCL_PFENET,
            ),
        ),
    ),
    notes=("* printed of models that its author gave.",),
)


def _parts(shots: int) -> tuple[Column, ...]:
    return (
        Column(key="mean", heading="mIoU", shots=shots),
        Column(key="fb_iou", heading="FB-IoU", shots=shots),
    )


def _row(name: str, ours: tuple[str, str, str] | None, marks: str, over: str = "") -> RowLayout:
    switched = tuple(_ON if mark == "x" else _OFF for mark in marks)
    return RowLayout(name=name, label=name, ours=ours, marks=switched, over=over)


_TABLE_4_PARTS = ("base.", "SGM", "Avg.", "CGM")

TABLE_4 = TableLayout(
    paper="scl",
    number="4",
    dataset="pascal-5i",
    caption="Ablation of SGM and CGM on CANet, PASCAL-5i",
    sections=(
        SectionLayout(
            heading="1-shot",
            columns=_parts(1),
            marks=_TABLE_4_PARTS,
            rows=(_row("baseline", CANET, "x---"), _row("SGM", SCL_CANET, "xx--", "baseline")),
        ),
        SectionLayout(
            heading="5-shot",
            columns=_parts(5),
            marks=_TABLE_4_PARTS,
            rows=(
                _row("average", ("scl", "4", "average"), "x-x-"),
                _row("CGM", ("scl", "4", "CGM"), "x--x", "average"),
                _row("SGM + average", ("scl", "4", "SGM + average"), "xxx-", "average"),
                _row("SGM + CGM", SCL_CANET, "xx-x", "SGM + average"),
            ),
        ),
    ),
    notes=('"Avg." is the mean score of the shots; "base." has the initial vector alone, without L_ce^s1.',),
)

_BOTH = "v_pri + v_aux"

TABLE_5 = TableLayout(
    paper="scl",
    number="5",
    dataset="pascal-5i",
    caption="Ablation of the support vectors in SGM on CANet, PASCAL-5i, 1-shot",
    sections=(
        SectionLayout(
            heading="1-shot",
            columns=_parts(1),
            marks=("v_s", "v_pri", "v_aux"),
            rows=(
                _row("v_s", ("scl", "5", "v_s"), "x--"),
                _row("v_pri", ("scl", "5", "v_pri"), "-x-", "v_s"),
                _row("v_aux", ("scl", "5", "v_aux"), "--x", "v_s"),
                _row("v_s + v_pri + v_aux", ("scl", "5", "v_s + v_pri + v_aux"), "xxx", "v_s"),
                _row(_BOTH, SCL_CANET, "-xx", "v_s"),
            ),
        ),
    ),
    notes=("L_ce^s1 is used for v_s.",),
)

TABLE_6 = TableLayout(
    paper="scl",
    number="6",
    dataset="pascal-5i",
    caption="Ablation of the losses in SGM on CANet, PASCAL-5i, 1-shot",
    sections=(
        SectionLayout(
            heading="1-shot",
            columns=_parts(1),
            marks=("L_ce^s1", "L_ce^s2"),
            rows=(
                _row("L_ce^s1", ("scl", "6", "L_ce^s1"), "x-"),
                _row("L_ce^s2", ("scl", "6", "L_ce^s2"), "-x", "L_ce^s1"),
                _row("L_ce^s1 + L_ce^s2", SCL_CANET, "xx", "L_ce^s1"),
            ),
        ),
    ),
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6)
