"""What the recipes are variants of: a method with its parts, the same on every data set and backbone.

An ablation is declared here once: its label, what it is measured against, and where papers print it. Recipes
and results name it, and every table and figure reads it from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MINI = "voc5i-mini"
"""The small real set; rows on it stand beside those that papers print for PASCAL-5i."""


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """A row of a paper's tables; ``published.csv`` has its numbers.

    Attributes:
        paper: "scl", "srpnet" or "sd-aanet".
        row: the row's name there.
        table: number of the table for PASCAL-5i, or "".
        coco_table: number of the table for COCO-20i, or "".
        fusion: how K shots were joined; with one shot every fusion but "iterative" is the same.
        on: what is segmented, "query" or "support".
        shots: only these K; all where empty.
        sizes: multi-scale: sides of the inputs, ascending; the small set has sides of its own.
    """

    paper: str
    row: str
    table: str = ""
    coco_table: str = ""
    fusion: str = "mean"
    on: str = "query"
    shots: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    def table_for(self, dataset: str) -> str:
        """Number of the table for a data set, "" for none."""
        return {"pascal-5i": self.table, MINI: self.table, "coco-20i": self.coco_table}.get(dataset, "")

    def fits(self, dataset: str, fusion: str, shots: int, on: str, sizes: Sequence[int]) -> bool:
        """Whether a result of this variant is measured as the row was."""
        fused = fusion == self.fusion or (shots == 1 and "iterative" not in (fusion, self.fusion))
        several = len(sizes) > 1
        scaled = several == bool(self.sizes) and (
            not several or dataset == MINI or tuple(sorted(sizes)) == self.sizes
        )
        counted = not self.shots or shots in self.shots
        return bool(self.table_for(dataset)) and fused and scaled and counted and on == self.on


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with its parts.

    Attributes:
        name: as results carry it, e.g. "sdaanet_saam"; "" for a recipe that declares none.
        label: as figures show it.
        baselines: variants of other methods that it is measured against, fused alike.
        one_part_less: variants that lack one of its parts, and the baseline of its paper; trained alike.
        printed: where papers print it.
    """

    name: str = ""
    label: str = ""
    baselines: tuple[str, ...] = ()
    one_part_less: tuple[str, ...] = ()
    printed: tuple[PrintedRow, ...] = ()

    def row(
        self, dataset: str, fusion: str, shots: int, on: str = "query", sizes: Sequence[int] = ()
    ) -> PrintedRow | None:
        """The printed row of a result of one way, or None."""
        return next((row for row in self.printed if row.fits(dataset, fusion, shots, on, sizes)), None)


def _scl(row: str, table: str, *shots: int, fusion: str = "average", coco: str = "") -> PrintedRow:
    return PrintedRow(paper="scl", row=row, table=table, coco_table=coco, shots=shots, fusion=fusion)


def _sgm(name: str, label: str, row: str, table: str, *, less: tuple[str, ...] = ()) -> Variant:
    """An ablation of SCL's self-guided module on CANet."""
    return Variant(
        name=f"scl_canet_{name}",
        label=f"SCL (CANet), {label}",
        baselines=_CANETS,
        one_part_less=less,
        printed=(_scl(row, table, 1),),
    )


def _srpnet(row: str, fusion: str = "mean", on: str = "query", table: str = "1") -> PrintedRow:
    return PrintedRow(paper="srpnet", row=row, table=table, fusion=fusion, on=on)


def _sdaanet(
    row: str, *shots: int, table: str = "", coco: str = "", sizes: tuple[int, ...] = ()
) -> PrintedRow:
    return PrintedRow(paper="sd-aanet", row=row, table=table, coco_table=coco, shots=shots, sizes=sizes)


def _teacher(name: str, label: str, *printed: PrintedRow, less: tuple[str, ...] = ()) -> Variant:
    """SD-AANet or a part of it."""
    return Variant(name=name, label=label, baselines=_FLOOR, one_part_less=less, printed=printed)


_FLOOR = ("matcher",)
_PFENETS = ("pfenet", "pfenet_473", "matcher")
_CANETS = ("canet", "canet_attention", "matcher")
_BASELINE = "sdaanet_baseline"

MATCHER = Variant(name="matcher", label="matcher")
MATCHER_FIDELITY = Variant(name="matcher_fidelity", label="matcher, fidelity", one_part_less=("matcher",))
PFENET = Variant(
    name="pfenet", label="PFENet", baselines=_FLOOR, printed=(_scl("PFENet", "1", fusion="mean", coco="2"),)
)
PFENET_473 = Variant(
    name="pfenet_473", label="PFENet", baselines=_FLOOR, printed=(_sdaanet("PFENet (473)", coco="2"),)
)
SCL_PFENET = Variant(
    name="scl_pfenet",
    label="SCL (PFENet)",
    baselines=_PFENETS,
    printed=(_scl("SCL (PFENet)", "1", fusion="cross-guided", coco="2"),),
)
CANET = Variant(
    name="canet",
    label="CANet",
    baselines=_FLOOR,
    printed=(
        _scl("CANet", "1", 1),
        _scl("average", "4", 5),
        _scl("CGM", "4", 5, fusion="cross-guided"),
    ),
)
CANET_ATTENTION = Variant(
    name="canet_attention",
    label="CANet, attention",
    baselines=_FLOOR,
    printed=(_scl("CANet", "1", 5, fusion="attention"),),
)
SCL_CANET = Variant(
    name="scl_canet",
    label="SCL (CANet)",
    baselines=_CANETS,
    one_part_less=tuple(
        f"scl_canet_{part}" for part in ("primary", "auxiliary", "first_loss", "second_loss")
    ),
    printed=(_scl("SCL (CANet)", "1", fusion="cross-guided"), _scl("SGM + average", "4", 5)),
)
SCL_CANET_INITIAL = _sgm("initial", "v_s", "v_s", "5")
SCL_CANET_PRIMARY = _sgm("primary", "v_pri", "v_pri", "5")
SCL_CANET_AUXILIARY = _sgm("auxiliary", "v_aux", "v_aux", "5")
SCL_CANET_ALL_VECTORS = _sgm("all_vectors", "all vectors", "v_s + v_pri + v_aux", "5", less=("scl_canet",))
SCL_CANET_FIRST_LOSS = _sgm("first_loss", "L_s1", "L_ce^s1", "6")
SCL_CANET_SECOND_LOSS = _sgm("second_loss", "L_s2", "L_ce^s2", "6")
SDAANET_BASELINE = _teacher(_BASELINE, "baseline", _sdaanet("Baseline", table="1", coco="2"))
SDAANET_BASELINE_473 = _teacher(f"{_BASELINE}_473", "baseline", _sdaanet("Baseline (473)", coco="2"))
SDAANET_SAAM = _teacher(
    "sdaanet_saam", "baseline + SAAM", _sdaanet("Baseline + SAAM", 1, table="3"), less=(_BASELINE,)
)
SDAANET_SDPM = _teacher(
    "sdaanet_sdpm", "baseline + SDPM", _sdaanet("Baseline + SDPM", 1, table="3"), less=(_BASELINE,)
)
SDAANET = _teacher(
    "sdaanet",
    "SD-AANet",
    _sdaanet("SD-AANet", 1, table="3", coco="2"),
    _sdaanet("Multi-scale Inference", 1, table="4", sizes=(321, 473)),
    less=("sdaanet_saam", "sdaanet_sdpm", _BASELINE),
)
SDAANET_473 = _teacher(
    "sdaanet_473", "SD-AANet", _sdaanet("SD-AANet (473)", 1, coco="2"), less=(f"{_BASELINE}_473",)
)
SDAANET_INTEGRAL = _teacher(
    "sdaanet_integral", "SD-AANet, one teacher", _sdaanet("Integral Strategy", 5, table="5")
)
SDAANET_SEPARATE = _teacher(
    "sdaanet_separate",
    "SD-AANet, a teacher a shot",
    _sdaanet("Separate Strategy", 5, table="5"),
    _sdaanet("SD-AANet", 5, coco="2"),
    less=("sdaanet_integral", _BASELINE),
)
SDAANET_SEPARATE_473 = _teacher(
    "sdaanet_separate_473",
    "SD-AANet, a teacher a shot",
    _sdaanet("SD-AANet (473)", 5, coco="2"),
    less=(f"{_BASELINE}_473",),
)
PANET = Variant(
    name="panet",
    label="PANet",
    baselines=_FLOOR,
    one_part_less=("panet_no_alignment",),
    printed=(_scl("PANet", "1", fusion="mean"),),
)
PANET_NO_ALIGNMENT = Variant(name="panet_no_alignment", label="PANet, no alignment", baselines=_FLOOR)
SRPNET_COS = Variant(name="srpnet_cos", label="SRPNet, cosine", baselines=_FLOOR, printed=(_srpnet("Cos"),))
SRPNET_F = Variant(
    name="srpnet_f",
    label="SRPNet, fidelity",
    baselines=_FLOOR,
    one_part_less=("srpnet_cos",),
    printed=(_srpnet("F"), _srpnet("F + IQI", "iterative"), _srpnet("F (sup)", on="support")),
)
SRPNET = Variant(
    name="srpnet",
    label="SRPNet",
    baselines=_FLOOR,
    one_part_less=("srpnet_f",),
    printed=(
        _srpnet("F + SRP"),
        _srpnet("SRPNet", "iterative", table="2"),
        _srpnet("F + SRP (sup)", on="support"),
    ),
)
