"""A paper's table with our figures in it, as values that every output format reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fewseg.reports.numbers import Estimate
from fewseg.reports.paper_tables.layout import ROMAN, SCORE_NAMES, Column, SectionLayout, TableLayout
from fewseg.reports.published import PublishedValue

MINI = "voc5i-mini"
DATASET_NAMES = {"pascal-5i": "PASCAL-5i", "coco-20i": "COCO-20i", MINI: MINI}
PAPER_NAMES = {"scl": "SCL", "srpnet": "SRPNet", "sd-aanet": "SD-AANet"}
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a number of ours was measured.

    Attributes:
        dataset: e.g. "voc5i-mini".
        method: registered name.
        recipe: without fold, or "".
        backbone: a name of timm, or "".
        size: side or sides of the input, in pixels.
        shots: K.
        fusion: how K shots became one answer.
        on: "query" or "support".
        protocol: its name and digest.
        protocol_line: all of it in one line, or "" where the file's is of another kind.
        digest: of the protocol.
        episodes: "5 x 1000", seeds times episodes.
        training: seed and length of the training, as text.
        reservations: how it differs from the paper's row, beyond data set and backbone.
    """

    dataset: str
    method: str
    recipe: str
    backbone: str
    size: str
    shots: int
    fusion: str
    on: str
    protocol: str
    protocol_line: str
    digest: str
    episodes: str
    training: str
    reservations: str

    @property
    def text(self) -> str:
        """The whole as one sentence."""
        where = DATASET_NAMES.get(self.dataset, self.dataset)
        papers = " (NOT the papers' data)" if self.dataset == MINI else ""
        on = ", on the supports" if self.on == "support" else ""
        parts = [
            f"fewseg {self.method}, {self.shots}-shot {self.fusion}{on}, on {where}{papers}",
            f"recipe {self.recipe or 'none'}",
            f"{self.backbone or 'backbone unknown'} at {self.size} px",
            self.training,
            f"{self.episodes} episodes a fold; protocol {self.protocol}",
        ]
        return "; ".join([*parts, self.reservations] if self.reservations else parts)


@dataclass(frozen=True, kw_only=True)
class GainOver:
    """A row less the row it is measured against, on the same episodes.

    Attributes:
        over: label of the other row.
        estimate: the difference, a fraction, or None.
        status: why there is none, or "".
    """

    over: str
    estimate: Estimate | None = None
    status: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number of ours in a column.

    Attributes:
        estimate: the score with its 95 % interval, fractions, or None.
        std: sample standard deviation over the seeds of the episodes, a fraction, or None.
        status: why there is no estimate ("not run", "missing fold 2"), or "".
        source: how it was measured; None where nothing was.
        gain: over the row's baseline; None where the row has none.
    """

    estimate: Estimate | None = None
    std: float | None = None
    status: str = ""
    source: Source | None = None
    gain: GainOver | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """Our figures for a row on one data set: of one protocol, input size and training seed.

    Attributes:
        variant: what tells it from the row's other lines, or "".
        cells: one a column.
    """

    variant: str
    cells: tuple[Measured, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper.

    Attributes:
        name: as in ``published.csv``.
        label: as the paper prints it.
        marks: which parts are switched on.
        backbone: as printed.
        published: one a column; None where the paper prints none.
        over: label of the row it is measured against, or "".
        published_gains: printed value less that of the row above, in points, one a column.
        lines: data set to our lines, one at least wherever fewseg has the row.
        without: why fewseg does not have it, or "".
    """

    name: str
    label: str
    marks: tuple[str, ...]
    backbone: str
    published: tuple[PublishedValue | None, ...]
    over: str
    published_gains: tuple[float | None, ...]
    lines: Mapping[str, tuple[Line, ...]]
    without: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows under one heading, with the layout they follow."""

    layout: SectionLayout
    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of numbers."""
        return self.layout.columns

    def is_measured(self, dataset: str) -> bool:
        """Whether any number of ours is of this data set."""
        lines = [line for row in self.rows for line in row.lines.get(dataset, ())]
        return any(cell.source is not None for line in lines for cell in line.cells)


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A paper's table.

    Attributes:
        layout: what the paper prints.
        datasets: whose numbers of ours stand in it, the paper's own first.
        sections: in the order of the paper.
        problems: what was left out of all tables and why, one sentence each.
    """

    layout: TableLayout
    datasets: tuple[str, ...]
    sections: tuple[Section, ...]
    problems: tuple[str, ...]

    @property
    def slug(self) -> str:
        """For file names and links, e.g. "scl-table-1"."""
        return f"{self.layout.paper}-table-{self.layout.number}"

    @property
    def name(self) -> str:
        """E.g. "SD-AANet, Table IV"."""
        number = int(self.layout.number)
        numeral = ROMAN[number] if self.layout.paper == "sd-aanet" else str(number)
        return f"{PAPER_NAMES[self.layout.paper]}, Table {numeral}"

    @property
    def caption(self) -> str:
        """What it shows."""
        return self.layout.caption

    @property
    def shows_std(self) -> bool:
        """Whether the paper prints standard deviations in it; ours are shown then too."""
        rows = [row for section in self.sections for row in section.rows]
        return any(value is not None and value.std is not None for row in rows for value in row.published)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        return (*self.layout.notes, *_notes(self))


def _notes(table: PaperTable) -> list[str]:
    scores = {SCORE_NAMES[c.score] for s in table.sections for c in s.columns}
    own = DATASET_NAMES[table.layout.dataset]
    notes = [
        f"{' and '.join(sorted(scores))} in percent. Printed: the paper's figure on {own}. Ours: mean over "
        "the seeds of the episodes with a 95 % bootstrap interval; a mean stands only over all four folds."
    ]
    if MINI in table.datasets:
        notes.append(
            f"{MINI} is a small subset with a smaller network and short training: its numbers are no "
            "reproduction of the paper's, and stand beside them only to show whether the rows come in the "
            "same order."
        )
    pairs = dict.fromkeys(
        f"{row.label} over {row.over}" for s in table.sections for row in s.rows if row.over
    )
    if pairs:
        notes.append(
            "Gains in points, ours paired on the same episodes with 95 % intervals over query images: "
            + "; ".join(pairs)
            + "."
        )
    reasons: dict[str, list[str]] = {}
    for row in (row for s in table.sections for row in s.rows if row.without):
        names = reasons.setdefault(row.without, [])
        names += [] if row.label in names else [row.label]
    notes += [f"Printed value only, {reason}: {', '.join(names)}." for reason, names in reasons.items()]
    return notes
