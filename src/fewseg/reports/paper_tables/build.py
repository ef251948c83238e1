"""Finds our figures for every row of the papers' tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from fewseg.data.protocols import stored_protocol
from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts
from fewseg.reports.gains import Gain
from fewseg.reports.paper_rows import row_of
from fewseg.reports.paper_tables import scl_layout, sdaanet_layout, srpnet_layout
from fewseg.reports.paper_tables.conflicts import separable
from fewseg.reports.paper_tables.layout import Column, Place, RowLayout, SectionLayout, TableLayout, printed
from fewseg.reports.paper_tables.model import (
    MINI,
    NOT_RUN,
    GainOver,
    Line,
    Measured,
    PaperTable,
    Row,
    Section,
    Source,
)
from fewseg.reports.paper_tables.scores import Scores, spread
from fewseg.reports.published import PublishedValue, is_of_backbone, published_values
from fewseg.reports.table import FOLDS, FoldRow, FoldTable, backbone_of, fold_tables, result_name, sizes_of

LAYOUTS: tuple[TableLayout, ...] = (*scl_layout.TABLES, *srpnet_layout.TABLES, *sdaanet_layout.TABLES)
"""Every table of the three papers."""

Ours = tuple[FoldTable, FoldRow]
LineKey = tuple[str, str, str, int]
Printed = Mapping[tuple[str, int, str], PublishedValue]


def paper_tables(
    found: Sequence[tuple[RunResult, EpisodeCounts]],
    *,
    paths: Sequence[str] = (),
    layouts: Sequence[TableLayout] = LAYOUTS,
    folds: int = FOLDS,
    gains: Sequence[Gain] = (),
) -> list[PaperTable]:
    """Makes the papers' tables with our figures beside the printed ones.

    Results that are no row of a paper's table have no place in them. Those that cannot share a table are left
    out, and every table says which.

    Args:
        found: results with their counts, as ``load_folder`` gives them; none at all is well.
        paths: the file of each, for the sentences about what was left out; names of the results by default.
        layouts: which tables; all by default.
        folds: how many folds the data sets have.
        gains: of rows of these results in mIoU, where they were computed before.

    Raises:
        ValueError: ``paths`` are not one for each result.
    """
    if paths and len(paths) != len(found):
        raise ValueError(f"got {len(paths)} paths for {len(found)} results: give one a result or none")
    names = {id(result): path for (result, _), path in zip(found, paths, strict=False)}
    placed = [result for result, _ in found if _place(result) is not None]
    kept, problems = separable(placed, folds, lambda r: names.get(id(r), result_name(r)))
    rows: dict[tuple[Place, str, int], list[Ours]] = defaultdict(list)
    for table in fold_tables(kept, folds=folds) if kept else []:
        for row in table.rows:
            first = next(iter(row.results.values()))
            place = _place(first)
            if place is not None:
                rows[place, table.dataset, table.shots].append((table, row))
    counts = {id(result): counts for result, counts in found}
    scores = Scores(lambda result: counts[id(result)], gains)
    return [_Filler(layout, rows, scores, folds).table(tuple(problems)) for layout in layouts]


def _place(result: RunResult) -> Place | None:
    """Where the papers print what this result measures, or None."""
    if result.ways > 1:
        return None
    task = (result.dataset, result.fusion, result.shots, result.on)
    row = row_of(result.method, result.recipe, *task, result.sizes)
    if row is None:
        return None
    place = (row.paper, row.table_for(result.dataset), row.row)
    backbone = next((v.backbone for v in published_values() if (v.paper, v.table, v.row) == place), "")
    return place if is_of_backbone(backbone, result.dataset, backbone_of(result)) else None


class _Filler:
    """Fills one table's layout."""

    def __init__(
        self,
        layout: TableLayout,
        rows: Mapping[tuple[Place, str, int], list[Ours]],
        scores: Scores,
        folds: int,
    ) -> None:
        self._layout, self._rows, self._scores, self._folds = layout, rows, scores, folds
        self._printed: Printed = printed(layout)

    def table(self, problems: tuple[str, ...]) -> PaperTable:
        own = self._layout.dataset
        mini = own == "pascal-5i" and any(dataset == MINI for _, dataset, _ in self._rows)
        datasets = (own, MINI) if mini else (own,)
        sections = tuple(self._section(section, datasets) for section in self._layout.sections)
        return PaperTable(layout=self._layout, datasets=datasets, sections=sections, problems=problems)

    def _section(self, section: SectionLayout, datasets: Sequence[str]) -> Section:
        layouts = {row.name: row for row in section.rows}
        rows = []
        for row in section.rows:
            over = layouts.get(row.over)
            values = [self._printed.get((row.name, c.shots, c.key)) for c in section.columns]
            below = [self._printed.get((row.over, c.shots, c.key)) for c in section.columns]
            lines = {d: self._lines(row, over, section.columns, d) for d in datasets} if row.ours else {}
            rows.append(
                Row(
                    name=row.name,
                    label=row.label,
                    marks=row.marks,
                    backbone=next((v.backbone for v in values if v), ""),
                    published=tuple(values),
                    over=over.label if over else "",
                    published_gains=tuple(
                        value.percent - base.percent if value and base else None
                        for value, base in zip(values, below, strict=True)
                    ),
                    lines=lines,
                    without=row.without,
                )
            )
        return Section(layout=section, rows=tuple(rows))

    def _lines(
        self, row: RowLayout, over: RowLayout | None, columns: Sequence[Column], dataset: str
    ) -> tuple[Line, ...]:
        """One line for each protocol, input size and training seed; the most complete first."""
        by_shots = {c.shots: self._by_key(row, dataset, c.shots) for c in columns}
        keys = sorted({key for found in by_shots.values() for key in found})

        def runs(key: LineKey) -> int:
            return sum(len(found[key][1].results) for found in by_shots.values() if key in found)

        lines = []
        for key in sorted(keys, key=runs, reverse=True):
            cells = [self._cell(by_shots[c.shots].get(key), key, over, c, dataset) for c in columns]
            lines.append(Line(variant=_variant(key, keys), cells=tuple(cells)))
        nothing = [self._cell(None, None, over, c, dataset) for c in columns]
        return tuple(lines) or (Line(variant="", cells=tuple(nothing)),)

    def _by_key(self, row: RowLayout | None, dataset: str, shots: int) -> dict[LineKey, Ours]:
        found: dict[LineKey, Ours] = {}
        if row is None or row.ours is None:
            return found
        for table, ours in self._rows.get((row.ours, dataset, shots), []):
            first = next(iter(ours.results.values()))
            base = (table.protocol, sizes_of(first), str(ours.seed))
            same = sum(key[:3] == base for key in found)
            found[(*base, same)] = (table, ours)
        return found

    def _cell(
        self, ours: Ours | None, key: LineKey | None, over: RowLayout | None, column: Column, dataset: str
    ) -> Measured:
        if ours is None or key is None:
            gain = GainOver(over=over.label, status=NOT_RUN) if over else None
            return Measured(status=NOT_RUN, gain=gain)
        table, row = ours
        estimate = self._scores.estimate(row, column, self._folds)
        missing = NOT_RUN if column.fold is not None else row.missing(self._folds)
        return Measured(
            estimate=estimate,
            std=spread(row, column, self._folds),
            status="" if estimate else missing,
            source=source_of(table, row),
            gain=self._gain(table, row, key, over, column, dataset) if over else None,
        )

    def _gain(
        self, table: FoldTable, row: FoldRow, key: LineKey, over: RowLayout, column: Column, dataset: str
    ) -> GainOver:
        bases = self._by_key(over, dataset, column.shots)
        if not bases:
            return GainOver(over=over.label, status="baseline not run")
        alike = {k[1]: base for k, (_, base) in reversed(bases.items()) if (k[0], k[2]) == (key[0], key[2])}
        if not alike:
            return GainOver(over=over.label, status="baseline of another protocol or training seed")
        base = alike.get(row.sizes) or _one_scale(row, alike)
        if base is None:
            return GainOver(over=over.label, status="baseline at another input size")
        return self._scores.gain(table, row, base, column, over.label)


def _one_scale(row: FoldRow, by_sizes: Mapping[str, FoldRow]) -> FoldRow | None:
    """What a row of several input sizes is set beside: the baseline at the first of them that there is."""
    sides = row.sizes.split(" + ") if row.multi_scale else []
    return next((by_sizes[side] for side in sides if side in by_sizes), None)


def _variant(key: LineKey, among: Sequence[LineKey]) -> str:
    """Names what differs among the lines of a row: protocol, input size, training seed."""
    *texts, number = key
    names = ("protocol {}", "at {} px", "training seed {}")
    parts = [
        name.format(text)
        for i, (name, text) in enumerate(zip(names, texts, strict=True))
        if len({k[i] for k in among}) > 1
    ]
    return ", ".join([*parts, f"no. {number + 1}"] if number else parts)


def source_of(table: FoldTable, row: FoldRow) -> Source:
    """How a row of ours was measured; what its folds share is taken from the first."""
    first = next(iter(row.results.values()))
    protocol = stored_protocol(first.protocol)
    return Source(
        dataset=table.dataset,
        method=row.method,
        recipe=first.recipe.removesuffix(f"_fold{first.fold}"),
        backbone=row.backbone,
        size=sizes_of(first),
        shots=table.shots,
        fusion=row.fusion,
        on=table.on,
        protocol=table.protocol,
        protocol_line=protocol.line() if protocol else "",
        digest=first.protocol_digest,
        episodes=table.episodes,
        training=_training(first),
        reservations=_reservations(first),
    )


def _training(result: RunResult) -> str:
    config = result.training.get("config")
    steps = config.get("steps") if isinstance(config, Mapping) else None
    epochs = config.get("epochs") if isinstance(config, Mapping) else None
    length = f"{steps} steps, " if steps else f"{epochs} epochs, " if epochs else ""
    return f"trained {length}seed {result.train_seed}" if length else "no training recorded"


def _reservations(result: RunResult) -> str:
    """What the recipe leaves out of the paper's row: SD-AANet's 5-shot rows on the small set are so."""
    method = result.config.get("method")
    attention = method.get("attention") if isinstance(method, Mapping) else None
    absent = isinstance(attention, Mapping) and attention.get("type") == "NoAttention"
    return "without SAAM" if absent else ""
