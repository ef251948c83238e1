"""Fold tables: a row a method and fusion, a column a fold, and a mean that exists only over all folds.

A table is of one data set, one number of shots and one protocol; results of several make several tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fewseg.engine.results import RunResult
from fewseg.reports.paper_rows import recipe_stem
from fewseg.reports.published import PublishedValue, paper_mean

FOLDS = 4
"""Of the data sets of the papers."""

FOLDS_OF: MappingProxyType[str, int] = MappingProxyType({"fss-1000": 1, "fss-1000-drawn": 1})
"""Of data sets that have another number of them, by name: FSS-1000 has one split."""


@dataclass(frozen=True, kw_only=True)
class FoldRow:
    """The results of one method with one fusion, by fold.

    Attributes:
        method: e.g. "scl-pfenet".
        fusion: e.g. "average".
        variant: what tells rows of one method and fusion apart: recipe, training seed; may be "".
        results: fold to result; a fold that was not run is not there.
        published: the paper's mean for this row, or None.
    """

    method: str
    fusion: str
    variant: str
    results: Mapping[int, RunResult]
    published: PublishedValue | None

    def missing(self, folds: int) -> str:
        """Says which of ``folds`` folds were not run, e.g. "missing fold 2"; "" when none is."""
        missing = [str(f) for f in range(folds) if f not in self.results]
        return f"missing fold{'s' if len(missing) > 1 else ''} {', '.join(missing)}" if missing else ""

    @property
    def stem(self) -> str:
        """Its recipe without data set and backbone, e.g. "srpnet_f"."""
        return recipe_stem(next(iter(self.results.values())).recipe)

    @property
    def backbone(self) -> str:
        """The name of its backbone, "" where no config says."""
        return backbone_of(next(iter(self.results.values())))

    @property
    def sizes(self) -> str:
        """The side or sides of its input, as :func:`sizes_of` writes them."""
        return sizes_of(next(iter(self.results.values())))

    @property
    def multi_scale(self) -> bool:
        """Whether several input sizes were added."""
        return "+" in self.sizes

    @property
    def seed(self) -> object:
        """The training seed."""
        return next(iter(self.results.values())).train_seed

    @property
    def label(self) -> str:
        """Method and, where it is needed, the variant."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


@dataclass(frozen=True, kw_only=True)
class FoldTable:
    """Rows that may stand in one column.

    Attributes:
        dataset: their data set.
        ways: their N.
        shots: their K.
        on: what was segmented, "query" or "support".
        protocol: protocol name and digest.
        episodes: "5 x 1000", seeds times episodes.
        folds: how many folds a mean needs.
        rows: in the order of method and fusion.
    """

    dataset: str
    ways: int
    shots: int
    on: str
    protocol: str
    episodes: str
    folds: int
    rows: tuple[FoldRow, ...]

    @property
    def title(self) -> str:
        """What the numbers are, in one line."""
        return f"{self.heading}, mIoU in percent with 95 % intervals"

    @property
    def heading(self) -> str:
        """Data set, ways and shots, e.g. "voc5i-mini, 2-way 5-shot"."""
        ways = f"{self.ways}-way " if self.ways > 1 else ""
        on = ", on the support set itself" if self.on == "support" else ""
        return f"{self.dataset}, {ways}{self.shots}-shot{on}"

    @property
    def caption(self) -> str:
        """How they were measured, in one line."""
        return f"protocol {self.protocol}, {self.episodes} episodes a fold"


def fold_tables(results: Sequence[RunResult], *, folds: int = FOLDS) -> list[FoldTable]:
    """Sorts results into tables.

    Args:
        results: any number of results of any data set, protocol and shots.
        folds: how many folds the data sets have, those of ``FOLDS_OF`` aside.

    Returns:
        One table for each data set, number of ways and shots, what is segmented, and protocol, in this
        order.

    Raises:
        ValueError: there are no results; a fold is outside 0 .. folds - 1; two results of one table are of
            the same row and fold, or have another class split for the same fold.
    """
    if not results:
        raise ValueError("there are no results to make a table of: evaluate something first")
    groups: dict[tuple[str, int, int, str, str], list[RunResult]] = defaultdict(list)
    for result in results:
        own = FOLDS_OF.get(result.dataset, folds)
        if not 0 <= result.fold < own:
            raise ValueError(
                f"{result_name(result)} is outside folds 0 .. {own - 1}: give the right number of folds"
            )
        groups[table_key(result)].append(result)
    return [_table(groups[key], FOLDS_OF.get(key[0], folds)) for key in sorted(groups)]


def table_key(result: RunResult) -> tuple[str, int, int, str, str]:
    """Results with the same key share a table: data set, ways, shots, what is segmented, protocol."""
    return result.dataset, result.ways, result.shots, result.on, result.protocol_digest


def row_key(result: RunResult) -> tuple[str, str, str, str, object]:
    """Results of a table with the same key share a row: method, fusion, recipe, input size, training seed."""
    return result.method, result.fusion, _family(result), sizes_of(result), result.train_seed


def _table(results: Sequence[RunResult], folds: int) -> FoldTable:
    splits: dict[int, RunResult] = {}
    cells: dict[tuple[str, str, str], dict[int, RunResult]] = defaultdict(dict)
    for result in results:
        first = splits.setdefault(result.fold, result)
        if set(first.classes) != set(result.classes):
            raise ValueError(
                f"{result_name(first)} tests classes {sorted(first.classes)} and {result_name(result)} tests "
                f"{sorted(result.classes)}: different class splits cannot share a table; keep them apart"
            )
        row = cells[result.method, result.fusion, _variant(result, results)]
        if result.fold in row:
            raise ValueError(f"there are two results of {result_name(result)}: keep one of the two files")
        row[result.fold] = result
    rows = tuple(
        FoldRow(
            method=method,
            fusion=fusion,
            variant=variant,
            results=cells[method, fusion, variant],
            published=_published(next(iter(cells[method, fusion, variant].values()))),
        )
        for method, fusion, variant in sorted(cells)
    )
    first = results[0]
    return FoldTable(
        dataset=first.dataset,
        ways=first.ways,
        shots=first.shots,
        on=first.on,
        protocol=f"{first.protocol.get('name', '')} [{first.protocol_digest}]".strip(),
        episodes=f"{len(first.seeds)} x {first.seeds[0].episodes}",
        folds=folds,
        rows=rows,
    )


def _published(result: RunResult) -> PublishedValue | None:
    if result.ways > 1:
        return None
    place = (result.dataset, result.method, result.fusion, result.shots, result.recipe, result.on)
    return paper_mean(*place, backbone=backbone_of(result), sizes=result.sizes)


def backbone_of(result: RunResult) -> str:
    """The name of the result's backbone, "" where its config does not say."""
    method = result.config.get("method", {})
    backbone = method.get("backbone", {}) if isinstance(method, Mapping) else {}
    return str(backbone.get("name", "")) if isinstance(backbone, Mapping) else ""


def _variant(result: RunResult, among: Sequence[RunResult]) -> str:
    """Names recipe, input size and training seed, each only where rows of this method and fusion differ."""
    alike = [r for r in among if (r.method, r.fusion) == (result.method, result.fusion)]
    parts = []
    if len({_family(r) for r in alike}) > 1:
        parts.append(_family(result))
    if len({sizes_of(r) for r in alike}) > 1:
        parts.append(f"at {sizes_of(result)} px")
    if len({r.train_seed for r in alike}) > 1:
        parts.append(f"training seed {'unknown' if result.train_seed is None else result.train_seed}")
    return ", ".join(parts)


def sizes_of(result: RunResult) -> str:
    """The side or sides of the network's input, such as "241" or "241 + 353"."""
    return " + ".join(map(str, result.sizes)) or "unknown"


def _family(result: RunResult) -> str:
    """The recipe without its fold, so that the four folds of a recipe are one row."""
    return result.recipe.removesuffix(f"_fold{result.fold}")


def result_name(result: RunResult) -> str:
    """A result in messages, e.g. "pfenet mean 1-shot on voc5i-mini fold 0"."""
    return f"{result.method} {result.fusion} {result.shots}-shot on {result.dataset} fold {result.fold}"
