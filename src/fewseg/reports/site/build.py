"""Makes the page: reads what exists, names what is missing, and writes one file in one step."""

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

from fewseg.engine.results import RunResult
from fewseg.metrics.scores import SIZE_EDGES
from fewseg.ops.files import atomic_write_text
from fewseg.ops.progress import tracked
from fewseg.reports.frame import (
    FoldTable,
    Results,
    baseline_pairs,
    fold_tables,
    gain_lines,
    load_results,
    missing_of_pair,
    without_conflicts,
)
from fewseg.reports.numbers import Estimate, gain_with_interval, mean_of, percent, with_interval
from fewseg.reports.papers import page_of, paper_tables
from fewseg.reports.site import SiteOptions
from fewseg.reports.site.pictures import Pictures, read_pictures
from fewseg.reports.site.plots import MEAN, Curve, IntervalRow, interval_charts, panel, round_ticks
from fewseg.reports.site.training_runs import TrainingRun, learning_charts, read_runs
from fewseg.reports.size_scores import SizeScore, mean_size_score, size_scores
from fewseg.reports.templating import asset, render

_SHORT = 12
"""So many lines of what is missing are shown at once."""
_STEP = SIZE_EDGES[-1] - SIZE_EDGES[-2]


@dataclass(frozen=True, kw_only=True)
class Site:
    """What was written.

    Attributes:
        path: the page.
        size: of the page, in bytes.
        results: how many results it shows.
        problems: what could not be used or is missing, one sentence each; the page states the same.
        all_used: whether all that was given could be used, though results may be missing.
    """

    path: Path
    size: int
    results: int
    problems: tuple[str, ...]
    all_used: bool


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
    tables = [setting.table for setting in settings]
    problems = [
        *(*unused, *conflicts, *_mixed_protocols(tables), *_missing_folds(settings)),
        *(problem for setting in settings for problem in setting.not_paired),
        *(*unread, *pictures.problems),
    ]
    text = _page(options, results, settings, runs, pictures, problems)
    atomic_write_text(options.out, text)
    return Site(
        path=options.out,
        size=len(text.encode()),
        results=len(results),
        problems=tuple(problems),
        all_used=not (unused or conflicts or unread or pictures.problems),
    )


def _page(
    options: SiteOptions,
    results: Results,
    settings: Sequence[Setting],
    runs: Sequence[TrainingRun],
    pictures: Pictures,
    problems: Sequence[str],
) -> str:
    frame = results.frame
    versions = {
        (run.versions.get("fewseg", "?"), run.versions.get("torch", "?"))
        for run in (results.runs[key] for key in frame.index)
    }
    name = options.folder.resolve().name
    return render(
        "site.html",
        name=name,
        title=f"fewseg: {name}",
        style=asset("page.css") + asset("site.css"),
        script=asset("site.js"),
        results=len(results),
        methods=sorted(frame.method.unique()),
        datasets=sorted(frame.dataset.unique()),
        versions=sorted(versions),
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
    )


def _settings(results: Results, progress: bool) -> list[Setting]:
    """The tables with their titles; a title has the protocol where tables differ by it alone."""
    tables = fold_tables(results) if len(results) else []
    headings = [table.heading for table in tables]
    settings = []
    for table in tables:
        alone = headings.count(table.heading) == 1
        title = table.heading if alone else f"{table.heading}, protocol {table.protocol}"
        settings.append(Setting(table=table, title=title))
    for setting, over, series in tracked(
        progress, "pairing results", [(s, *pair) for s in settings for pair in baseline_pairs(s.table)]
    ):
        try:
            lines = gain_lines(setting.table, over, series)
        except ValueError as error:
            heading = setting.table.heading
            setting.not_paired.append(f"{heading}: no gain of {series} over {over}: {error}")
        else:
            setting.gains[over, series] = {
                line["fold"]: Estimate(**{end: line[end] for end in ("value", "low", "high")})
                for line in lines
            }
    for setting in tracked(progress, "scoring sizes", settings):
        _ = setting.bins
    return settings


def _mixed_protocols(tables: Sequence[FoldTable]) -> Iterator[str]:
    """One sentence for each data set, ways and shots that were measured by several protocols."""
    for heading in dict.fromkeys(table.heading for table in tables):
        protocols = [table.protocol for table in tables if table.heading == heading]
        if len(protocols) > 1:
            yield (
                f"{heading}: results of {len(protocols)} protocols ({'; '.join(protocols)}) stand in tables "
                "of their own, since their numbers answer different questions"
            )


def _missing_folds(settings: Sequence[Setting]) -> Iterator[str]:
    """One sentence for each row that lacks a fold."""
    for setting in settings:
        for series, missing in setting.missing.items():
            if missing:
                yield f"{setting.table.heading}: {series}: {missing}, so it has no mean"


@dataclass(frozen=True, kw_only=True)
class Download:
    """The data behind a plot: a CSV file that the page itself holds."""

    name: str
    frame: pd.DataFrame
    what: str = "Data behind it"


def data_uri(frame: pd.DataFrame) -> str:
    """A frame as a CSV data URI; floats are written in full, missing values as nothing."""
    text = frame.to_csv(index=False, lineterminator="\n")
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """A number and its interval in brackets, or "" for none."""

    text: str
    interval: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What the page shows of one table: scores, folds, gains, classes, sizes, provenance.

    Attributes:
        table: its rows.
        title: of its section.
        gains: (over, series) to fold to the paired difference.
        not_paired: a sentence for each pair that is not of the same episodes.
    """

    table: FoldTable
    title: str
    gains: dict[tuple[str, str], dict[int, Estimate]] = field(default_factory=dict)
    not_paired: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Of the section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @cached_property
    def rows(self) -> dict[str, pd.DataFrame]:
        """Series to its results by fold."""
        return {series: self.table.row(series) for series in self.table.series}

    @cached_property
    def missing(self) -> dict[str, str]:
        """Series to which folds it lacks, or ""."""
        return {series: self.table.missing(series) for series in self.table.series}

    @cached_property
    def identities(self) -> dict[str, list[str]]:
        """Series to the columns that name it in data: method, fusion and variant."""
        return {
            series: list(row.iloc[0][["method", "fusion", "suffix"]]) for series, row in self.rows.items()
        }

    def _download(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **what: str
    ) -> Download:
        frame = pd.DataFrame(list(rows), columns=list(columns), dtype=object)
        return Download(name=f"{self.id}-{name}", frame=frame, **what)

    # ---- scores

    @property
    def published(self) -> list[tuple[str, str]]:
        """(data set, backbone) of the published means beside the rows."""
        frame = self.table.results.frame
        found = frame[frame.published.notna()]
        return sorted(set(zip(found.published_dataset, found.published_backbone, strict=True)))

    @property
    def score_headings(self) -> list[str]:
        """Of the table of scores; a published mean on a different data set is marked in capitals."""
        headings = ["method", "fusion", *(f"fold {f}" for f in range(self.table.folds))]
        headings += ["mean", "FB-IoU", "Dice"]
        for dataset, backbone in self.published:
            where = "" if dataset == self.table.dataset else f", on {dataset}: NOT this data set"
            headings.append(f"published mean ({backbone}{where})")
        return headings

    @property
    def score_rows(self) -> Iterator[list[ScoreCell]]:
        """The table of scores; a mean stands only over all folds."""
        for series, row in self.rows.items():
            method, fusion, suffix = self.identities[series]
            cells = [ScoreCell(text=f"{method} ({suffix})" if suffix else method), ScoreCell(text=fusion)]
            for fold in range(self.table.folds):
                cells.append(_score_cell(self._estimate(row, fold) if fold in row.index else None))
            mean, missing = self.table.mean(series), self.missing[series]
            cells.append(ScoreCell(text=missing) if missing else _score_cell(mean))
            for score in ("fb_iou", "dice"):
                values = row[score]
                if not missing:
                    text = percent(sum(values) / self.table.folds)
                else:  # of a single fold its own value, which says so
                    text = f"{percent(values.iloc[0])} (fold {row.index[0]})" if len(values) == 1 else "-"
                cells.append(ScoreCell(text=text))
            first = row.iloc[0]
            for kind in self.published:
                own = (first.published_dataset, first.published_backbone) == kind and first.published
                cells.append(ScoreCell(text=f"{first.published:.1f}" if own else "-"))
            yield cells

    def _estimate(self, row: pd.DataFrame, fold: int) -> Estimate:
        return self.table.results.estimate(row.key[fold])

    @property
    def scores_download(self) -> Download:
        """Every result in full."""
        scores = ["miou", "miou_low", "miou_high", "miou_std", "fb_iou", "dice"]
        rows = [
            [*self.identities[series], line.recipe, fold, *(line[score] for score in scores)]
            for series, row in self.rows.items()
            for fold, line in row.iterrows()
        ]
        columns = ["method", "fusion", "variant", "recipe", "fold", *scores]
        what = "Data behind the table and the chart of folds"
        return self._download("scores", columns, rows, what=what)

    # ---- folds and gains

    @property
    def fold_charts(self) -> list[Markup]:
        """MIoU of each row in each fold."""
        rows = [
            IntervalRow(
                label=series,
                note=self.missing[series],
                estimates=self._with_mean({fold: self._estimate(row, fold) for fold in row.index}),
            )
            for series, row in self.rows.items()
        ]
        return interval_charts(f"{self.id}-folds", rows, "mIoU (%)", self.folds_label)

    @property
    def folds_label(self) -> str:
        """What the chart of folds shows."""
        return f"{self.title}: mIoU of each row in each fold, with 95 % intervals; the numbers are in Scores"

    def _with_mean(self, by_fold: Mapping[int, Estimate]) -> list[tuple[int, str, Estimate]]:
        """A mark a fold, and the mean where no fold is missing."""
        marks = [(fold % MEAN, f"fold {fold}", estimate) for fold, estimate in sorted(by_fold.items())]
        if len(by_fold) == self.table.folds:
            marks.append((MEAN, "mean", mean_of([by_fold[f] for f in sorted(by_fold)])))
        return marks

    @property
    def gains_label(self) -> str:
        """What the chart of gains shows."""
        return (
            f"{self.title}: gains in mIoU, paired on the same episodes, with 95 % intervals over query images"
        )

    @property
    def gain_charts(self) -> list[Markup]:
        """Paired gains of each row over its baselines."""
        rows = [
            IntervalRow(
                label=f"{series} over {over}",
                note=missing_of_pair(self.table, over, series),
                estimates=self._with_mean(by_fold),
            )
            for (over, series), by_fold in self.gains.items()
        ]
        axis = "gain in mIoU (percentage points)"
        return interval_charts(f"{self.id}-gains", rows, axis, self.gains_label, signed=True)

    @property
    def gain_rows(self) -> Iterator[list[str]]:
        """The gains as texts, in percentage points: what is compared, by fold, mean or what it lacks."""
        for (over, series), by_fold in self.gains.items():
            folds = [gain_with_interval(by_fold[f]) if f in by_fold else "-" for f in range(self.table.folds)]
            missing = missing_of_pair(self.table, over, series)
            yield [
                f"{series} over {over}",
                *folds,
                missing or gain_with_interval(mean_of([*by_fold.values()])),
            ]

    @property
    def gains_download(self) -> Download:
        """Every paired difference in full."""
        names = ["method", "fusion", "variant"]
        rows = [
            [*self.identities[series], *self.identities[over], fold, e.value, e.low, e.high]
            for (over, series), by_fold in self.gains.items()
            for fold, e in by_fold.items()
        ]
        columns = [*names, *(f"over_{name}" for name in names), "fold", "gain", "low", "high"]
        return self._download("gains", columns, rows)

    # ---- classes

    @cached_property
    def tested_classes(self) -> list[tuple[int, int, str]]:
        """(fold, class, name) in the order of the folds."""
        classes = []
        for fold in range(self.table.folds):
            key = next((row.key[fold] for row in self.rows.values() if fold in row.index), None)
            run = self.table.results.runs[key] if key is not None else None
            for c in run.classes if run else ():
                classes.append((fold, c, run.class_names.get(c, str(c)) if run else ""))
        return classes

    @property
    def class_rows(self) -> list[tuple[str, list[tuple[float, bool] | None]]]:
        """Each row with its IoU by class, and whether it is the highest of its column; None: not run."""
        runs = self.table.results.runs
        values = []
        for row in self.rows.values():
            scores = {fold: runs[row.key[fold]].per_class_mean for fold in row.index}
            values.append([scores[f][c] if f in scores else None for f, c, _ in self.tested_classes])
        best = [
            max((v for v in column if v is not None), default=None) for column in zip(*values, strict=True)
        ]
        return [
            (series, [None if v is None else (v, v == top) for v, top in zip(own, best, strict=True)])
            for series, own in zip(self.rows, values, strict=True)
        ]

    @property
    def classes_download(self) -> Download:
        """IoU and Dice of every row and class."""
        rows = []
        for series, row in self.rows.items():
            for fold in row.index:
                run = self.table.results.runs[row.key[fold]]
                iou, dice = run.per_class_mean, run.per_class_dice
                for c in run.classes:
                    rows.append(
                        [*self.identities[series], fold, c, run.class_names.get(c, ""), iou[c], dice[c]]
                    )
        columns = ["method", "fusion", "variant", "fold", "class", "name", "iou", "dice"]
        return self._download("classes", columns, rows)

    # ---- sizes (SD-AANet, Fig. 10)

    @cached_property
    def bins(self) -> dict[str, dict[int, tuple[SizeScore, ...]]]:
        """Series to fold to the score of each bin."""
        results = self.table.results
        return {
            series: {
                f: size_scores(results.counts[row.key[f]], results.runs[row.key[f]].classes)
                for f in row.index
            }
            for series, row in self.rows.items()
        }

    @cached_property
    def whole(self) -> dict[str, list[tuple[SizeScore, ...]]]:
        """The rows with all folds: series to bins, the scores of a bin by fold."""
        return {
            series: list(zip(*by_fold.values(), strict=True))
            for series, by_fold in self.bins.items()
            if not self.missing[series]
        }

    @property
    def without_curve(self) -> list[str]:
        """The rows that lack folds."""
        return [f"{s}, {self.missing[s]}" for s in self.rows if self.missing[s]]

    @property
    def episodes_behind(self) -> list[str]:
        """Episodes of each size in all folds together; where the rows differ, the fewest and the most."""
        parts = []
        for of_bin in zip(*self.whole.values(), strict=True):
            counts = {sum(score.episodes for score in folds) for folds in of_bin}
            number = " to ".join(map(str, sorted({min(counts), max(counts)})))
            parts.append(f"{number} of {of_bin[0][0].label} pixels")
        return parts

    @property
    def size_panels(self) -> list[tuple[str, Markup]]:
        """A small chart for each row that has all folds, over the pale curves of all."""
        curves = {series: _size_curve(series, bins) for series, bins in self.whole.items()}
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
    def size_headings(self) -> list[str]:
        """The bins of the table of sizes."""
        return [score.label for score in next(iter(next(iter(self.bins.values())).values()))]

    @property
    def size_rows(self) -> Iterator[list[str]]:
        """Means over all folds and numbers of episodes; a row that lacks folds has a line for each fold."""
        for series, by_fold in self.bins.items():
            if series in self.whole:
                yield [series, *map(_size_cell, self.whole[series])]
                continue
            for fold, scores in by_fold.items():
                name = f"{series}, fold {fold} ({self.missing[series]}: no mean)"
                yield [name, *(_size_cell([score]) for score in scores)]

    @property
    def sizes_download(self) -> Download:
        """Every bin of every row and fold."""
        rows = [
            [*self.identities[series], fold, b.low, b.high, b.episodes, b.classes]
            + ([b.miou.value, b.miou.low, b.miou.high] if b.miou else [None] * 3)
            for series, by_fold in self.bins.items()
            for fold, scores in by_fold.items()
            for b in scores
        ]
        columns = [
            "method",
            "fusion",
            "variant",
            "fold",
            "pixels_from",
            "pixels_below",
            "episodes",
            "classes",
        ]
        return self._download("sizes", [*columns, "miou", "low", "high"], rows)

    # ---- provenance

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How its results were measured."""
        return self._run(next(iter(self.rows.values())).key.iloc[0]).protocol

    def _run(self, key: str) -> RunResult:
        return self.table.results.runs[key]

    @property
    def provenance(self) -> Iterator[tuple[str, str, list[list[str]], list[tuple[str, Any]]]]:
        """Series, its recipes, a line for each fold, and path and content of each result file."""
        for series, row in self.rows.items():
            recipes = ", ".join(sorted({r for r in row.recipe if r})) or "no recipe"
            lines, files = [], []
            for key, path in zip(row.key, row.path, strict=True):
                run = self._run(key)
                steps, revision = run.training.get("step", "-"), run.versions.get("revision", "-")
                time, machine = f"{run.wall_seconds:.0f}", run.hardware
                lines.append([str(run.fold), run.checkpoint or "-", str(steps), time, machine, str(revision)])
                files.append((path, run.content()))
            yield series, recipes, lines, files


def _score_cell(estimate: Estimate | None) -> ScoreCell:
    if estimate is None:
        return ScoreCell(text="-")
    value, _, interval = with_interval(estimate).partition(" ")
    return ScoreCell(text=value, interval=interval)


def _size_cell(folds: Sequence[SizeScore]) -> str:
    scores = [score.miou.value for score in folds if score.miou is not None]
    if len(scores) < len(folds):
        return "-"
    return f"{percent(sum(scores) / len(scores))} ({sum(score.episodes for score in folds)})"


def _size_curve(series: str, bins: Sequence[tuple[SizeScore, ...]]) -> Curve:
    """Mean over all folds of each bin, in percent; NaN where a fold has no such episode."""
    x, y, ends, titles = [], [], [], []
    for folds in bins:
        mean = mean_size_score(folds)
        score = mean.miou if mean else None
        x.append(folds[0].low + _STEP / 2)
        y.append(100 * score.value if score else float("nan"))
        ends.append((100 * score.low, 100 * score.high) if score else (float("nan"), float("nan")))
        if mean and score:
            text = f"{series}, {mean.label} pixels: {with_interval(score)} ({mean.episodes} episodes)"
            titles.append((text, repr(score.value)))
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
    """JSON as the text of an element; quotes stay as they are, which halves its size."""
    return Markup(html.escape(json.dumps(value, indent=1, ensure_ascii=False), quote=False))
