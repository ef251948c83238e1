"""Fold tables as text: scores, gains, classes and sizes for a terminal, and the block of a results page.

A table is a data frame of strings here; a mean stands only over all folds, and a published value of a
different data set in a column that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fewseg.engine.results import RunResult
from fewseg.metrics import dice_of_miou, minimum_detectable_difference
from fewseg.ops.files import atomic_write_text
from fewseg.reports.frame import (
    FoldRow,
    FoldTable,
    Gain,
    Results,
    by_test_alone,
    flatten,
    fold_tables,
    gains,
    load_results,
    results_of,
)
from fewseg.reports.numbers import fold_cells, gain_with_interval, percent, with_interval
from fewseg.reports.options import TableOptions
from fewseg.reports.published import other_parts
from fewseg.reports.size_scores import size_cells
from fewseg.reports.templating import render
from fewseg.reports.trainings import training_cells, training_gain_cells

BEGIN = "<!-- results: begin (made from the result files; edit outside of this block) -->"
END = "<!-- results: end -->"


def run(options: TableOptions, console: Console) -> None:
    """Prints the tables of a folder; writes the block of a page where one is given."""
    results = some_results(options.folder)
    if options.any_training:
        results = by_test_alone(results)
    for table in fold_tables(results):
        console.print(rich_table(score_cells(table), table.title, table.caption, words=2))
        lines = [*dict.fromkeys(table.results.frame.protocol_line), *notes(table)]
        console.out("\n".join(lines), highlight=False)
        paired = gain_cells(gains(table))
        if len(paired):
            title = f"{table.heading}, paired on the same episodes, 95 % intervals over queries"
            console.print(rich_table(paired, title))
        trainings = training_cells(table)
        if len(trainings):
            title = f"{table.heading}, mean of several trainings (how many), 95 % intervals over both"
            console.print(rich_table(trainings, title))
            console.print(rich_table(training_gain_cells(table), f"{table.heading}, gains over trainings"))
        if options.by_size:
            title = f"{table.heading}, mIoU in percent by the size of the target (episodes)"
            cells = size_cells(table).map(lambda text: text.replace(" (", "\n("))
            console.print(rich_table(cells, title, table.caption))
    for reason in results.left_out:
        console.out(f"left out: {reason}", highlight=False)
    if options.page is not None:
        update_page(options.page, results)
        console.print(f"written: {options.page}")


def print_results(runs: Sequence[RunResult], console: Console) -> None:
    """Prints the scores of new results, how they were measured and which differences they can show."""
    results = results_of({str(number): run for number, run in enumerate(runs)})
    for table in fold_tables(results):
        console.print(rich_table(score_cells(table), table.title, table.caption, words=2))
    lines = [*dict.fromkeys(results.frame.protocol_line), *map(spread_line, runs)]
    console.out("\n".join(lines), highlight=False)


def some_results(folder: Path) -> Results:
    """The results of a folder, which must have at least one."""
    results = load_results(folder)
    if not len(results):
        reasons = "; ".join(results.left_out) or "evaluate first"
        raise ValueError(f"{folder} has no result that can be read: {reasons}")
    return results


def score_cells(table: FoldTable) -> pd.DataFrame:
    """The mIoU of every row by fold and over all folds, FB-IoU, both Dices, and printed values."""
    frame = table.results.frame
    kinds = sorted(set(zip(frame.published_dataset, frame.published_backbone, strict=True)) - {("", "")})
    lines = []
    for row in table.rows:
        mean, texts = row.mean(), {fold: with_interval(score) for fold, score in row.estimates().items()}
        line = _start(row) | fold_cells(table.folds, texts)
        line["mean"] = with_interval(mean) if mean else row.missing
        line["FB-IoU"], line["per-class Dice"] = _mean(row, "fb_iou"), _mean(row, "dice")
        line["2m/(1+m) of mIoU"] = _mean(row, "miou", dice_of_miou)
        for dataset, backbone in kinds:
            where = "" if dataset == table.dataset else f", on {dataset}: NOT this data set"
            same_data = (row.first.published_dataset, row.first.published_backbone) == (dataset, backbone)
            line[f"published mean ({backbone}{where})"] = f"{row.first.published:.1f}" if same_data else "-"
        lines.append(line)
    return pd.DataFrame(lines)


def dice_cells(table: FoldTable) -> pd.DataFrame:
    """The mean over classes of the Dice, of every row by fold, and its mean over all folds."""
    lines = []
    for row in table.rows:
        folds = fold_cells(table.folds, row.frame.dice.map(percent).to_dict())
        lines.append(_start(row) | folds | {"mean": "-" if row.missing else _mean(row, "dice")})
    return pd.DataFrame(lines)


def _start(row: FoldRow) -> dict[str, str]:
    fusion = row.first.fusion
    return {"method": row.name.removesuffix(f" {fusion}"), "fusion": fusion}


def _mean(row: FoldRow, score: str, convert: Callable[[float], float] = float) -> str:
    """The mean over all folds, converted; the value and fold of a single fold; "-" for a few folds."""
    by_fold = row.frame[score]
    if len(by_fold) not in (1, row.folds):
        return "-"
    only = "" if len(by_fold) == row.folds else f" (fold {by_fold.index[0]})"
    return f"{percent(convert(by_fold.mean()))}{only}"


def gain_cells(pairs: Sequence[Gain]) -> pd.DataFrame:
    """Gains in percentage points: one row per pair, one column per fold, and the mean over all folds."""
    rows = []
    for gain in pairs:
        texts = {fold: gain_with_interval(estimate) for fold, estimate in gain.by_fold.items()}
        mean = gain_with_interval(gain.mean) if gain.mean else gain.missing
        line = {"gain in mIoU points": gain.name} | fold_cells(gain.row.folds, texts)
        rows.append(line | {"mean": mean})
    return pd.DataFrame(rows)


def class_cells(table: FoldTable, score: Literal["iou", "dice"]) -> pd.DataFrame:
    """One row per class, one column per row of the table, in percent; "-" where a fold was not run."""
    frame = table.results.frame[["series", "fold"]].join(
        table.results.classes().set_index("key")[["class_id", "name", score]]
    )
    wide = frame.pivot(index=["fold", "class_id", "name"], columns="series", values=score)
    shown = wide.reindex(columns=table.series).map(lambda v: "-" if pd.isna(v) else percent(v))
    shown = shown.reset_index().drop(columns="class_id").rename(columns={"name": "class"})
    shown["fold"] = shown.fold.astype(str)
    return shown[["class", "fold", *table.series]]


def rich_table(cells: pd.DataFrame, title: str, caption: str = "", words: int = 1) -> Table:
    """A table of text for a terminal; the first columns are words, the others numbers."""
    shown = Table(title=escape(title), caption=escape(caption) or None)
    for i, heading in enumerate(cells.columns):
        shown.add_column(
            escape(heading), justify="left" if i < words else "right", no_wrap=words > 1 and i < words
        )
    for row in cells.itertuples(index=False, name=None):
        shown.add_row(*(escape(text.replace(" [", "\n[")) for text in row))
    return shown


def results_block(results: Results) -> str:
    """The tables of all results in Markdown: scores, gains, classes, provenance."""
    parts = [
        {
            "heading": table.heading,
            "title": table.title,
            "caption": table.caption,
            "notes": notes(table),
            "scores": score_cells(table),
            "gains": gain_cells(gains(table)),
            "trainings": training_cells(table),
            "training_gains": training_gain_cells(table),
            "dice": dice_cells(table),
            "classes": {"IoU": class_cells(table, "iou"), "Dice": class_cells(table, "dice")},
            "rows": [_provenance(row) for row in table.rows],
        }
        for table in fold_tables(results)
    ]
    return render("results.md", tables=parts, left_out=results.left_out)


def notes(table: FoldTable) -> list[str]:
    """What must be known of the rows of a table: other models than the recipes', and collapsed trainings."""
    return [*superseded(table), *collapsed(table)]


def collapsed(table: FoldTable) -> list[str]:
    """A sentence for each result whose training collapsed."""
    return [
        f"{row.name}, fold {run.fold}: its training collapsed ({', '.join(since)})"
        for row in table.rows
        for run in row.runs
        if (since := _vanished(run))
    ]


def _vanished(run: RunResult) -> list[str]:
    """What vanished in a training, such as "prototype length since step 40"."""
    since: Mapping[str, int] = run.training.get("watched", {}).get("collapsed", {})
    return [f"{name.replace('_', ' ')} since step {step}" for name, step in since.items()]


def superseded(table: FoldTable) -> list[str]:
    """A sentence for each row whose model differs from that of its recipe now."""
    parts = {row.name: dict.fromkeys(p for run in row.runs for p in other_parts(run)) for row in table.rows}
    return [
        f"{name}: not the model that its recipe has now, but {', '.join(others)}"
        for name, others in parts.items()
        if others
    ]


def update_page(page: str | Path, results: Results) -> None:
    """Replaces the block between the two marker comments of ``page``, or adds it at the end of the file."""
    path = Path(page)
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    if (BEGIN in text) != (END in text):
        raise ValueError(
            f"{path} has one marker of the block without the other: restore '{BEGIN}' and '{END}'"
        )
    block = f"{BEGIN}\n\n{results_block(results)}\n{END}"
    if BEGIN in text:
        before, rest = text.split(BEGIN, 1)
        atomic_write_text(path, f"{before}{block}{rest.split(END, 1)[1]}")
    else:
        atomic_write_text(path, f"{text.rstrip()}\n\n{block}\n")


def _provenance(row: FoldRow) -> dict[str, str]:
    """Recipe, time and hardware of a row's evaluation; config and training shared by all folds."""
    runs = row.runs
    return {
        "series": row.name,
        "recipes": ", ".join(sorted({r.recipe for r in runs if r.recipe})) or "none",
        "hours": f"{sum(r.wall_seconds for r in runs) / 3600:.2f}",
        "folds": f"{len(runs)} fold{'s' if len(runs) > 1 else ''}",
        "hardware": "; or ".join(sorted({r.hardware for r in runs})),
        "config": _in_common([measured_with(r) for r in runs]),
        "training": _in_common([trained_with(r) for r in runs]),
    }


def measured_with(run: RunResult) -> dict[str, Any]:
    """Everything known that a result's numbers depend on, without the protocol."""
    size = run.sizes[0] if len(run.sizes) == 1 else list(run.sizes)
    named = {
        "size": size,
        "output_sizes": list(run.output_sizes),
        "precision": run.precision,
        "data": run.data,
        "episodes": run.data and run.episodes,
    }
    return {**run.config, **{name: value for name, value in named.items() if value}}


def trained_with(run: RunResult) -> dict[str, Any]:
    """The known facts of a result's training."""
    facts = {"checkpoint": run.checkpoint or None, "seed": run.train_seed}
    return {**{name: value for name, value in facts.items() if value is not None}, **run.training}


def _in_common(entries: Sequence[Mapping[str, Any]]) -> str:
    """The values that all folds share, as "steps 100, view.size 241"."""
    flat = [flatten(entry) for entry in entries]
    shared = {key: value for key, value in flat[0].items() if all(f.get(key) == value for f in flat)}
    return ", ".join(f"{key} {value}" for key, value in shared.items()) or "not recorded"


def spread_line(run: RunResult) -> str:
    """One line: mIoU, its standard deviation over seeds, and the smallest difference that can be found.

    The difference is that between two results of so many episodes each, not paired, found 8 times of 10 at
    95 %; paired episodes (``fewseg compare``) find smaller ones.
    """
    episodes = sum(seed.episodes for seed in run.seeds)
    low, high = run.miou_ci95
    error = (high - low) / (2 * NormalDist().inv_cdf(0.975))
    smallest = minimum_detectable_difference(sqrt(2) * error, episodes=episodes)
    std = run.miou_std
    over = "one seed" if std is None else f"+- {percent(std)} over {len(run.seeds)} seeds"
    return (
        f"{run.method} {run.fusion}, {run.shots}-shot, fold {run.fold}: mIoU {percent(run.miou_mean)} "
        f"({over}); {episodes} episodes find differences from {100 * smallest:.1f} points, unpaired"
    )
