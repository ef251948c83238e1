"""What a part is worth: paired differences of rows that differ in it, fold by fold and over all folds.

Their intervals are over query images: episodes that share an image are not so many witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts, Score, paired_difference
from fewseg.reports.numbers import Estimate, gain_with_interval, mean_of
from fewseg.reports.table import FoldRow, FoldTable

METHOD_BASELINES = {
    "pfenet": ("matcher",),
    "scl-pfenet": ("pfenet", "matcher"),
    "canet": ("matcher",),
    "scl-canet": ("canet", "matcher"),
    "panet": ("matcher",),
    "srpnet": ("matcher",),
    "sdaanet": ("matcher",),
}
"""Method: the methods that it is measured against."""

_SGM = "scl_canet"
_BASELINE = "sdaanet_baseline"

RECIPE_BASELINES: dict[str, tuple[str, ...]] = {
    "panet": ("panet_no_alignment",),
    "srpnet_f": ("srpnet_cos",),
    "srpnet": ("srpnet_f",),
    "matcher_fidelity": ("matcher",),
    _SGM: tuple(f"{_SGM}_{less}" for less in ("primary", "auxiliary", "first_loss", "second_loss")),
    f"{_SGM}_all_vectors": (_SGM,),
    "sdaanet_saam": (_BASELINE,),
    "sdaanet_sdpm": (_BASELINE,),
    "sdaanet": ("sdaanet_saam", "sdaanet_sdpm", _BASELINE),
    "sdaanet_separate": ("sdaanet_integral", _BASELINE),
    "sdaanet_473": (f"{_BASELINE}_473",),
    "sdaanet_separate_473": (f"{_BASELINE}_473",),
}
"""Recipe (without data set and backbone): the recipes, of any method, that it has one part more than, and the
baseline that its paper sets it beside."""

OWN_BASELINES = frozenset({_BASELINE, f"{_BASELINE}_473"})
"""Recipes that are nobody's baseline but that of the recipes above: PFENet as SD-AANet trains it."""

FUSION_BASELINE = {"cross-guided": "average", "iterative": "mean"}

PAPER_FUSIONS = (("mean", "cross-guided"), ("attention", "cross-guided"))
"""The papers' 5-shot rows: PFENet with mean vectors, or CANet with its attention, and SCL with CGM."""

CountsOf = Callable[[RunResult], EpisodeCounts]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Row ``b`` less row ``a`` of one table, on the same episodes.

    Attributes:
        a: the baseline.
        b: what is measured against it.
        by_fold: fold to the paired difference; only folds that both have.
        missing: which folds the mean lacks, or "".
    """

    a: FoldRow
    b: FoldRow
    by_fold: Mapping[int, Estimate]
    missing: str

    @property
    def text(self) -> str:
        """What is compared."""
        return f"{self.b.label} {self.b.fusion} over {self.a.label} {self.a.fusion}"

    @property
    def mean(self) -> str:
        """The mean gain with its interval, or which folds are missing."""
        return self.missing or gain_with_interval(mean_of([self.by_fold[f] for f in sorted(self.by_fold)]))


def gains(table: FoldTable, counts_of: CountsOf) -> list[Gain]:
    """Pairs every row with its baselines: the baseline methods fused alike, and the method with plain fusion.

    With one shot there is nothing to fuse but iterated prototypes, so that all other rows of the baseline
    method count as fused alike. A recipe is also paired with those that have a part less. Rows that were
    trained for different numbers of steps or with different batches are not paired.

    Args:
        table: the rows.
        counts_of: gives the episode counts of a result of the table.

    Raises:
        ValueError: two results of one fold and protocol are not of the same episodes.
    """
    return [paired_gain(a, b, table.folds, counts_of) for a, b in baseline_pairs(table)]


def baseline_pairs(table: FoldTable) -> list[tuple[FoldRow, FoldRow]]:
    """The pairs of :func:`gains`, the baseline first."""
    return [(a, b) for b in table.rows for a in table.rows if _is_baseline(a, b, table.shots)]


def _is_baseline(a: FoldRow, b: FoldRow, shots: int) -> bool:
    if a.multi_scale or b.multi_scale:
        alike = (a.stem, a.seed, a.fusion) == (b.stem, b.seed, b.fusion)
        return alike and b.multi_scale and not a.multi_scale
    if not trained_alike(a, b):
        return False
    if a.stem in RECIPE_BASELINES.get(b.stem, ()):
        return _is_part_less(a, b)
    if a.method == b.method:
        return (a.stem, a.seed) == (b.stem, b.seed) and _is_fused_plainly(a, b, shots)
    return _is_of_baseline_method(a, b, shots)


def _is_of_baseline_method(a: FoldRow, b: FoldRow, shots: int) -> bool:
    """Whether ``a`` is of a method that ``b``'s is measured against, plain, and fused alike."""
    if a.method not in METHOD_BASELINES.get(b.method, ()) or a.stem in OWN_BASELINES:
        return False
    if a.stem in RECIPE_BASELINES or a.fusion == "iterative":
        return False  # the baseline is the method without its parts
    if b.fusion == "iterative":
        return a.fusion == "mean"
    if shots == 1:
        return a.fusion != "attention"  # which was trained for several shots
    return a.fusion == b.fusion or (a.fusion, b.fusion) in PAPER_FUSIONS


def trained_alike(a: FoldRow, b: FoldRow) -> bool:
    """Whether both were trained for as long, or one was not trained at all (or does not say)."""

    def length(result: RunResult) -> tuple[object, object] | None:
        config = result.training.get("config")
        return (config.get("steps"), config.get("batch")) if isinstance(config, Mapping) else None

    lengths = [(length(a.results[f]), length(b.results[f])) for f in set(a.results) & set(b.results)]
    return all(None in pair or pair[0] == pair[1] for pair in lengths)


def _is_fused_plainly(a: FoldRow, b: FoldRow, shots: int) -> bool:
    """Whether ``a`` is ``b`` with the plain fusion of the same shots."""
    return (shots > 1 or b.fusion == "iterative") and a.fusion == FUSION_BASELINE.get(b.fusion)


def _is_part_less(a: FoldRow, b: FoldRow) -> bool:
    """Whether ``a``, of a recipe that ``b`` is measured against, was trained and fused as ``b``."""
    if (a.seed, a.backbone) != (b.seed, b.backbone):
        return False
    return a.fusion == b.fusion or (b.fusion == "iterative" and a.fusion == "mean")


def paired_gain(a: FoldRow, b: FoldRow, folds: int, counts_of: CountsOf, score: Score = "miou") -> Gain:
    """Row ``b`` less row ``a``, on the folds that both have.

    Raises:
        ValueError: two results of one fold are not of the same episodes.
    """
    by_fold = {
        fold: _paired(a.results[fold], b.results[fold], counts_of, score)
        for fold in sorted(set(a.results) & set(b.results))
    }
    missing = "; ".join(
        f"{row.label} {row.fusion}: {row.missing(folds)}" for row in (a, b) if row.missing(folds)
    )
    return Gain(a=a, b=b, by_fold=by_fold, missing=missing)


def _paired(a: RunResult, b: RunResult, counts_of: CountsOf, score: Score) -> Estimate:
    found = paired_difference(counts_of(a), counts_of(b), a.classes, score=score, over="queries")
    return Estimate(value=found.difference, low=found.interval.low, high=found.interval.high)


def gain_cells(table: FoldTable, found: Sequence[Gain]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text; gains in percentage points."""
    headings = ["gain in mIoU points", *(f"fold {f}" for f in range(table.folds)), "mean"]
    rows = []
    for gain in found:
        folds = [
            gain_with_interval(gain.by_fold[f]) if f in gain.by_fold else "-" for f in range(table.folds)
        ]
        rows.append([gain.text, *folds, gain.mean])
    return headings, rows


def rich_gains(table: FoldTable, found: Sequence[Gain]) -> Table:
    """The gains of a table for a terminal."""
    headings, rows = gain_cells(table, found)
    shown = Table(title=f"{table.heading}, paired on the same episodes, 95 % intervals over queries")
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if i else "left")
    for row in rows:
        shown.add_row(*(escape(text.replace(" [", "\n[")) for text in row))
    return shown
