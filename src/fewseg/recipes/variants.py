"""What the recipes are variants of: a method with its parts, the same on every data set and backbone.

An ablation is declared here once: its label, what it is measured against, and where papers print it. Recipes
and results name it, and every table and figure reads it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewseg.engine.results import RunResult

MINI = "voc5i-mini"
"""The small real set; rows on it stand beside those that papers print for PASCAL-5i."""


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """A row of a paper's tables; ``published.csv`` has its numbers."""

    paper: str  # "scl", "srpnet" or "sd-aanet"
    row: str  # the row's name there
    table: str = ""  # number of the table for PASCAL-5i, or ""
    coco_table: str = ""  # number of the table for COCO-20i, or ""
    fusion: str = "mean"  # how K shots were joined; with one shot every fusion but "iterative" is the same
    on: str = "query"  # what is segmented, "query" or "support"
    shots: tuple[int, ...] = ()  # only these K; all where empty
    # multi-scale: sides of the resized logits, ascending; the small set has its own
    output_sizes: tuple[int, ...] = ()

    def table_for(self, dataset: str) -> str:
        """Number of the table for a data set, "" for none."""
        return {"pascal-5i": self.table, MINI: self.table, "coco-20i": self.coco_table}.get(dataset, "")

    def fits(self, result: RunResult) -> bool:
        """Whether a result of this variant is measured as the row was: in one way, at one input size."""
        fusions = (result.fusion, self.fusion)
        fused = fusions[0] == fusions[1] or (result.shots == 1 and "iterative" not in fusions)
        scaled = tuple(sorted(result.output_sizes))
        if result.dataset == MINI:
            sized = bool(scaled) == bool(self.output_sizes)
        else:
            sized = scaled == self.output_sizes
        counted = not self.shots or result.shots in self.shots
        single = result.ways == 1 and len(result.sizes) < 2
        known = bool(self.table_for(result.dataset))
        return known and single and fused and sized and counted and result.on == self.on


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with its parts."""

    name: str = ""  # as results carry it, e.g. "sdaanet_saam"; "" for a recipe that declares none.
    label: str = ""  # as figures show it
    baselines: tuple[str, ...] = ()  # variants of other methods that it is measured against, fused alike
    # variants that lack one of its parts, and the baseline of its paper; trained alike
    one_part_less: tuple[str, ...] = ()
    printed: tuple[PrintedRow, ...] = ()  # where papers print it


_FLOOR = ("matcher",)
_PFENETS = ("pfenet", "pfenet_473", "matcher")
_CANETS = ("canet", "canet_attention", "matcher")
_BASELINE = "sdaanet_baseline"


def _variant(
    name: str,
    label: str,
    *printed: PrintedRow,
    baselines: tuple[str, ...] = _FLOOR,
    less: tuple[str, ...] = (),
) -> Variant:
    return Variant(name=name, label=label, baselines=baselines, one_part_less=less, printed=printed)


def _scl(row: str, table: str, *shots: int, fusion: str = "average", coco: str = "") -> PrintedRow:
    return PrintedRow(paper="scl", row=row, table=table, coco_table=coco, shots=shots, fusion=fusion)


def _sgm(name: str, label: str, row: str, table: str, *, less: tuple[str, ...] = ()) -> Variant:
    """An ablation of SCL's self-guided module on CANet."""
    printed = _scl(row, table, 1)
    return _variant(f"scl_canet_{name}", f"SCL (CANet), {label}", printed, baselines=_CANETS, less=less)


def _srpnet(row: str, fusion: str = "mean", on: str = "query", table: str = "1") -> PrintedRow:
    return PrintedRow(paper="srpnet", row=row, table=table, fusion=fusion, on=on)


def _sdaanet(
    row: str, *shots: int, table: str = "", coco: str = "", output_sizes: tuple[int, ...] = ()
) -> PrintedRow:
    return PrintedRow(
        paper="sd-aanet", row=row, table=table, coco_table=coco, shots=shots, output_sizes=output_sizes
    )


MATCHER = _variant("matcher", "matcher", baselines=())
MATCHER_FIDELITY = _variant("matcher_fidelity", "matcher, fidelity", baselines=(), less=_FLOOR)
PFENET = _variant("pfenet", "PFENet", _scl("PFENet", "1", fusion="mean", coco="2"))
PFENET_473 = _variant("pfenet_473", "PFENet", _sdaanet("PFENet (473)", coco="2"))
SCL_PFENET = _variant(
    "scl_pfenet",
    "SCL (PFENet)",
    _scl("SCL (PFENet)", "1", fusion="cross-guided", coco="2"),
    baselines=_PFENETS,
)
CANET = _variant(
    "canet",
    "CANet",
    _scl("CANet", "1", 1),
    _scl("average", "4", 5),
    _scl("CGM", "4", 5, fusion="cross-guided"),
)
CANET_ATTENTION = _variant("canet_attention", "CANet, attention", _scl("CANet", "1", 5, fusion="attention"))
SCL_CANET = _variant(
    "scl_canet",
    "SCL (CANet)",
    _scl("SCL (CANet)", "1", fusion="cross-guided"),
    _scl("SGM + average", "4", 5),
    baselines=_CANETS,
    less=("scl_canet_primary", "scl_canet_auxiliary", "scl_canet_first_loss", "scl_canet_second_loss"),
)
SCL_CANET_INITIAL = _sgm("initial", "v_s", "v_s", "5")
SCL_CANET_PRIMARY = _sgm("primary", "v_pri", "v_pri", "5")
SCL_CANET_AUXILIARY = _sgm("auxiliary", "v_aux", "v_aux", "5")
SCL_CANET_ALL_VECTORS = _sgm("all_vectors", "all vectors", "v_s + v_pri + v_aux", "5", less=("scl_canet",))
SCL_CANET_FIRST_LOSS = _sgm("first_loss", "L_s1", "L_ce^s1", "6")
SCL_CANET_SECOND_LOSS = _sgm("second_loss", "L_s2", "L_ce^s2", "6")
SDAANET_BASELINE = _variant(_BASELINE, "baseline", _sdaanet("Baseline", table="1", coco="2"))
SDAANET_BASELINE_473 = _variant("sdaanet_baseline_473", "baseline", _sdaanet("Baseline (473)", coco="2"))
SDAANET_SAAM = _variant(
    "sdaanet_saam", "baseline + SAAM", _sdaanet("Baseline + SAAM", 1, table="3"), less=(_BASELINE,)
)
SDAANET_SDPM = _variant(
    "sdaanet_sdpm", "baseline + SDPM", _sdaanet("Baseline + SDPM", 1, table="3"), less=(_BASELINE,)
)
SDAANET = _variant(
    "sdaanet",
    "SD-AANet",
    _sdaanet("SD-AANet", 1, table="3", coco="2"),
    _sdaanet("Multi-scale Inference", 1, table="4", output_sizes=(321, 473)),
    less=("sdaanet_saam", "sdaanet_sdpm", _BASELINE),
)
SDAANET_473 = _variant(
    "sdaanet_473", "SD-AANet", _sdaanet("SD-AANet (473)", 1, coco="2"), less=("sdaanet_baseline_473",)
)
SDAANET_INTEGRAL = _variant(
    "sdaanet_integral", "SD-AANet, one teacher", _sdaanet("Integral Strategy", 5, table="5")
)
SDAANET_SEPARATE = _variant(
    "sdaanet_separate",
    "SD-AANet, a teacher a shot",
    _sdaanet("Separate Strategy", 5, table="5"),
    _sdaanet("SD-AANet", 5, coco="2"),
    less=("sdaanet_integral", _BASELINE),
)
SDAANET_SEPARATE_473 = _variant(
    "sdaanet_separate_473",
    "SD-AANet, a teacher a shot",
    _sdaanet("SD-AANet (473)", 5, coco="2"),
    less=("sdaanet_baseline_473",),
)
PANET = _variant("panet", "PANet", _scl("PANet", "1", fusion="mean"), less=("panet_no_alignment",))
PANET_NO_ALIGNMENT = _variant("panet_no_alignment", "PANet, no alignment")
SRPNET_COS = _variant("srpnet_cos", "SRPNet, cosine", _srpnet("Cos"))
SRPNET_F = _variant(
    "srpnet_f",
    "SRPNet, fidelity",
    _srpnet("F"),
    _srpnet("F + IQI", "iterative"),
    _srpnet("F (sup)", on="support"),
    less=("srpnet_cos",),
)
SRPNET = _variant(
    "srpnet",
    "SRPNet",
    _srpnet("F + SRP"),
    _srpnet("SRPNet", "iterative", table="2"),
    _srpnet("F + SRP (sup)", on="support"),
    less=("srpnet_f",),
)
