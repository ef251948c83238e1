"""Makes the results page: reads results, lists what is missing, and writes one file atomically."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib import colormaps

from fewseg.metrics.scores import SIZE_EDGES, size_label
from fewseg.ops.files import atomic_write_text
from fewseg.ops.progress import tracked
from fewseg.reports.frame import (
    FoldRow,
    FoldTable,
    Gain,
    Results,
    baseline_pairs,
    fold_tables,
    load_results,
    without_conflicts,
)
from fewseg.reports.numbers import Estimate, mean_of, percent, with_interval
from fewseg.reports.options import SiteOptions
from fewseg.reports.paper_pages import page_of
from fewseg.reports.papers import paper_tables
from fewseg.reports.site.pictures import Pictures, read_pictures
from fewseg.reports.site.plots import MEAN, Curve, IntervalRow, interval_charts, panel, round_ticks
from fewseg.reports.site.training_runs import learning_charts, read_runs
from fewseg.reports.size_scores import mean_sizes, size_cells, size_scores
from fewseg.reports.tables import gain_cells, score_cells
from fewseg.reports.templating import asset, render
from fewseg.reports.trainings import training_cells, training_gain_cells

_SHORT = 12
"""Most lines of missing inputs that are shown at once."""
_STEP = SIZE_EDGES[-1] - SIZE_EDGES[-2]
_IDENTITY = ["method", "fusion", "variant"]
"""Columns that identify a row in CSV data."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """The written page."""

    path: Path  # the page
    size: int  # size of the page in bytes
    results: int  # number of results that it shows
    # inputs that could not be used or are missing, one sentence each, as on the page
    problems: tuple[str, ...]
    all_used: bool  # whether all given inputs could be used, though results may be missing


def write_site(options: SiteOptions) -> Site:
    """Writes the page of a folder of results."""
    progress = not options.quiet
    results = load_results(options.folder, folds=options.folds)
    unused = list(results.left_out)
    if not len(results):
        unused.append(f"{options.folder} has no result that can be read: `fewseg evaluate` writes results")
    results, conflicts = without_conflicts(results)
    runs, unread = read_runs(options.runs, results, progress=progress) if options.runs else ([], [])
    pictures = Pictures()
    if options.figures:
        pictures = read_pictures(options.figures, photographs=options.photographs)
    settings = _settings(results, progress)
    problems = [*unused, *conflicts, *_mixed_protocols([setting.table for setting in settings])]
    for setting in settings:
        for row in setting.without_mean:
            problems.append(f"{setting.table.heading}: {row.name}: {row.missing}, so it has no mean")
    problems += [problem for setting in settings for problem in setting.not_paired]
    problems += [*unread, *pictures.problems]
    versions = [results.runs[key].versions for key in results.frame.index]
    name = options.folder.resolve().name
    text = render(
        "site.html",
        name=name,
        title=f"fewseg: {name}",
        style=asset("page.css") + asset("site.css"),
        script=asset("site.js"),
        results=len(results),
        methods=sorted(results.frame.method.unique()),
        datasets=sorted(results.frame.dataset.unique()),
        versions=sorted({(version.get("fewseg", "?"), version.get("torch", "?")) for version in versions}),
        settings=settings,
        papers=[page_of(table) for table in paper_tables(results)],
        runs=runs,
        learning=learning_charts(runs),
        pictures=pictures,
        problems=problems,
        short=_SHORT,
        percent=percent,
        data_uri=data_uri,
        json_text=json_text,
        heat_colour=heat_colour,
        gain_cells=gain_cells,
        size_cells=size_cells,
    )
    atomic_write_text(options.out, text)
    return Site(
        path=options.out,
        size=len(text.encode()),
        results=len(results),
        problems=tuple(problems),
        all_used=not (unused or conflicts or unread or pictures.problems),
    )


def _settings(results: Results, progress: bool) -> list[Setting]:
    """The tables with their titles, which name the protocol where tables differ only in it."""
    tables = fold_tables(results) if len(results) else []
    headings = [table.heading for table in tables]
    settings = []
    for table in tables:
        unique = headings.count(table.heading) == 1
        title = table.heading if unique else f"{table.heading}, protocol {table.protocol}"
        settings.append(Setting(table=table, title=title))
    pairs = [(setting, *pair) for setting in settings for pair in baseline_pairs(setting.table)]
    for setting, over, row in tracked(progress, "pairing results", pairs):
        try:
            setting.gains.append(row.gain_over(over))
        except ValueError as error:
            heading = setting.table.heading
            setting.not_paired.append(f"{heading}: no gain of {row.name} over {over.name}: {error}")
    for setting in tracked(progress, "scoring sizes", settings):
        _ = setting.sizes
    return settings


def _mixed_protocols(tables: Sequence[FoldTable]) -> Iterator[str]:
    """One sentence for each data set, ways and shots measured by several protocols."""
    for heading in dict.fromkeys(table.heading for table in tables):
        protocols = [table.protocol for table in tables if table.heading == heading]
        if len(protocols) > 1:
            yield (
                f"{heading}: results of {len(protocols)} protocols ({'; '.join(protocols)}) stand in tables "
                "of their own, since their numbers answer different questions"
            )


def data_uri(frame: pd.DataFrame) -> str:
    """A frame as a CSV data URI, with floats in full and missing values empty."""
    text = frame.to_csv(index=False, lineterminator="\n")
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """The section of the page on one table: scores, folds, gains, classes, sizes, provenance."""

    table: FoldTable  # the table
    title: str  # title of the section
    gains: list[Gain] = field(default_factory=list)  # gains of each row over its baselines
    # a sentence for each pair with different episodes
    not_paired: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id of the section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The results in the order of the rows and folds."""
        frame = self.table.results.frame.rename_axis("key").reset_index()
        frame = frame.assign(variant=frame.suffix)
        return frame.sort_values(["method", "fusion", "variant", "fold"], kind="stable", ignore_index=True)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The table of scores as text."""
        return score_cells(self.table)

    @property
    def published(self) -> int:
        """Number of columns of published means."""
        return sum(heading.startswith("published") for heading in self.scores.columns)

    @property
    def scores_data(self) -> pd.DataFrame:
        """Every result in full."""
        scores = ["miou", "miou_low", "miou_high", "miou_std", "fb_iou", "dice", "dice_of_miou"]
        return self.frame[[*_IDENTITY, "recipe", "fold", *scores]]

    @cached_property
    def trainings(self) -> pd.DataFrame:
        """The mean over trainings of methods that were trained several times."""
        return training_cells(self.table)

    @cached_property
    def training_gains(self) -> pd.DataFrame:
        """Gains between methods that were trained several times."""
        return training_gain_cells(self.table)

    # ---- folds and gains

    @property
    def fold_charts(self) -> list[Markup]:
        """MIoU of each row in each fold."""
        rows = [self._marks(row.name, row.missing, row.estimates()) for row in self.table.rows]
        return interval_charts(f"{self.id}-folds", rows, "mIoU (%)", self.folds_label)

    @property
    def folds_label(self) -> str:
        """The description of the chart of folds."""
        return f"{self.title}: mIoU of each row in each fold, with 95 % intervals; the numbers are in Scores"

    def _marks(self, label: str, note: str, by_fold: Mapping[Any, Estimate]) -> IntervalRow:
        """A mark per fold, and the mean if no fold is missing."""
        marks = [(fold % MEAN, f"fold {fold}", estimate) for fold, estimate in sorted(by_fold.items())]
        if len(by_fold) == self.table.folds:
            marks.append((MEAN, "mean", mean_of([by_fold[fold] for fold in sorted(by_fold)])))
        return IntervalRow(label=label, note=note, estimates=marks)

    @property
    def gains_label(self) -> str:
        """The description of the chart of gains."""
        return (
            f"{self.title}: gains in mIoU, paired on the same episodes, with 95 % intervals over query images"
        )

    @property
    def gain_charts(self) -> list[Markup]:
        """Paired gains of each row over its baselines."""
        rows = [self._marks(gain.name, gain.missing, gain.by_fold) for gain in self.gains]
        axis = "gain in mIoU (percentage points)"
        return interval_charts(f"{self.id}-gains", rows, axis, self.gains_label, signed=True)

    @property
    def gains_data(self) -> pd.DataFrame:
        """Every paired difference in full."""
        names = self.frame.drop_duplicates("series").set_index("series")[_IDENTITY].T
        return pd.DataFrame(
            [
                {
                    **names[gain.row.name],
                    **names[gain.over.name].add_prefix("over_"),
                    "fold": fold,
                    "gain": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                }
                for gain in self.gains
                for fold, estimate in gain.by_fold.items()
            ]
        )

    # ---- classes

    @cached_property
    def classes(self) -> pd.DataFrame:
        """IoU and Dice of every result and class."""
        columns = ["key", "series", *_IDENTITY, "fold"]
        return self.frame[columns].merge(self.table.results.classes(), on="key")

    @property
    def tested(self) -> pd.DataFrame:
        """One row per fold and class, in the order of the folds."""
        return self.classes.drop_duplicates(["fold", "class_id"]).sort_values("fold", kind="stable")

    @property
    def class_rows(self) -> list[tuple[str, list[tuple[float, bool] | None]]]:
        """Each row with its IoU by class, and whether it is the highest of its column; None: not run."""
        wide = self.classes.pivot(index="series", columns=["fold", "class_id"], values="iou")
        tested = self.tested[["fold", "class_id"]].itertuples(index=False, name=None)
        wide = wide.reindex(self.table.series)[list(tested)]
        best = wide.eq(wide.max())
        return [
            (series, [None if pd.isna(v) else (v, top) for v, top in zip(row, tops, strict=True)])
            for series, row, tops in zip(wide.index, wide.to_numpy(), best.to_numpy(), strict=True)
        ]

    @property
    def classes_data(self) -> pd.DataFrame:
        """IoU and Dice of every row and class."""
        columns = [*_IDENTITY, "fold", "class_id", "name", "iou", "dice"]
        return self.classes[columns].rename(columns={"class_id": "class"})

    # ---- sizes (SD-AANet, Fig. 10)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """One row per result and size bin."""
        results, columns = self.table.results, ["series", *_IDENTITY, "fold"]
        frames = [
            size_scores(results.counts[line.key], results.runs[line.key].classes).assign(
                **{name: getattr(line, name) for name in columns}
            )
            for line in self.frame.itertuples()
        ]
        return pd.concat(frames, ignore_index=True)

    @property
    def without_mean(self) -> list[FoldRow]:
        """The rows that lack folds."""
        return [row for row in self.table.rows if row.missing]

    @cached_property
    def mean_sizes(self) -> dict[str, pd.DataFrame]:
        """Series to the mean of each bin over all folds, of the rows that have them all."""
        complete = self.sizes[~self.sizes.series.isin([row.name for row in self.without_mean])]
        return {
            str(series): mean_sizes([fold.reset_index(drop=True) for _, fold in bins.groupby("fold")])
            for series, bins in complete.groupby("series", sort=False)
        }

    @property
    def episodes_behind(self) -> list[str]:
        """Number of episodes of each size over all folds; where rows differ, the least and the most."""
        parts = []
        for (low, _), bins in pd.concat(self.mean_sizes.values()).groupby(
            ["pixels_from", "pixels_below"], dropna=False
        ):
            number = " to ".join(map(str, sorted({bins.episodes.min(), bins.episodes.max()})))
            if bins.episodes.any():
                parts.append(f"{number} of {_size(low)} pixels".replace("of from", "from"))
        return parts

    @property
    def size_panels(self) -> list[tuple[str, Markup]]:
        """A small chart for each row with all folds, over pale curves of all such rows."""
        curves = {series: _size_curve(series, bins) for series, bins in self.mean_sizes.items()}
        y = round_ticks([0.0, *(high for c in curves.values() for _, high in c.ends if high == high)], 6)
        axes = "pixels of the target; the last from 5000", "mIoU (%)"
        panels = []
        for i, (series, curve) in enumerate(curves.items()):
            plot = panel(
                f"{self.id}-size-{i}",
                f"{series}: {axes[1]} over {axes[0]}",
                [curve],
                x=(SIZE_EDGES[::2], SIZE_EDGES[-1] + _STEP, axes[0]),
                y=(y, axes[1]),
                pale=() if i else list(curves.values()),
                behind=f"{self.id}-all-sizes",
            )
            panels.append((series, plot))
        return panels

    @property
    def sizes_data(self) -> pd.DataFrame:
        """Every bin of every row and fold."""
        pixels = ["pixels_from", "pixels_below", "episodes", "classes"]
        return self.sizes[[*_IDENTITY, "fold", *pixels, "miou", "low", "high"]]

    # ---- provenance

    @property
    def provenance(self) -> Iterator[tuple[str, str, list[list[str]], list[tuple[str, Any]]]]:
        """Series, its recipes, a line for each fold, and path and content of each result file."""
        for row in self.table.rows:
            recipes = ", ".join(sorted({r for r in row.frame.recipe if r})) or "no recipe"
            lines, files = [], []
            for run, path in zip(row.runs, row.frame.path, strict=True):
                steps, revision = run.training.get("step", "-"), run.versions.get("revision", "-")
                time, machine = f"{run.wall_seconds:.0f}", run.hardware
                lines.append([str(run.fold), run.checkpoint or "-", str(steps), time, machine, str(revision)])
                files.append((path, run.content()))
            yield row.name, recipes, lines, files


def _size(low: int) -> str:
    return size_label(low, None if low == SIZE_EDGES[-1] else low + _STEP)


def _size_curve(series: str, bins: pd.DataFrame) -> Curve:
    """Mean over all folds of each bin, in percent; NaN where a fold has no such episode."""
    titles = [
        (
            f"{series}, {_size(b.pixels_from)} pixels: "
            f"{with_interval(Estimate(value=b.miou, low=b.low, high=b.high))} ({b.episodes} episodes)",
            repr(float(b.miou)),
        )
        for b in bins.dropna(subset="miou").itertuples()
    ]
    x, y = (bins.pixels_from + _STEP / 2).tolist(), (100 * bins.miou).tolist()
    ends = list(zip(100 * bins.low, 100 * bins.high, strict=True))
    return Curve(series=0, x=x, y=y, ends=ends, titles=titles)


def heat_colour(fraction: float) -> tuple[str, str]:
    """The colour of a score in [0, 1], and black or white, whichever is easier to read on it, as #rrggbb.

    The map looks the same with and without colour blindness; its lightness rises evenly, so that it also
    prints. Source: WCAG 2.2, definition of relative luminance.
    """
    rgb = colormaps["cividis"](min(max(fraction, 0.0), 1.0))[:3]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    ink = "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb), ink


def json_text(value: Mapping[str, Any]) -> Markup:
    """JSON as the text of an element; quotes are not escaped, which halves its size."""
    return Markup(html.escape(json.dumps(value, indent=1, ensure_ascii=False), quote=False))
