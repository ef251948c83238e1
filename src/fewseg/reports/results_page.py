"""The Markdown of ``docs/results.md``, made from a folder of result files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from fewseg.engine.results import RunResult, counts_path, load_with_counts
from fewseg.metrics import EpisodeCounts
from fewseg.ops.files import atomic_write_text
from fewseg.reports.gains import gain_cells, gains
from fewseg.reports.numbers import percent
from fewseg.reports.render import dice_cells, markdown, markdown_table
from fewseg.reports.table import FOLDS, FoldTable, fold_tables

BEGIN = "<!-- results: begin (made from the result files; edit outside of this block) -->"
END = "<!-- results: end -->"


@dataclass(frozen=True, kw_only=True)
class ResultsFolder:
    """What a folder of results holds.

    Attributes:
        found: every result that can be read with its counts, in the order of their paths.
        paths: their paths within the folder.
        left_out: one sentence for each result file left out.
    """

    found: list[tuple[RunResult, EpisodeCounts]]
    paths: list[str]
    left_out: list[str]


def read_folder(folder: str | Path) -> ResultsFolder:
    """Reads every result under a folder, which may have none.

    Other JSON files are passed over; a result that cannot be read, or has lost its counts, is left out.

    Raises:
        ValueError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that `fewseg evaluate` writes to")
    found, paths, left_out = [], [], []
    for path in sorted(root.rglob("*.json")):
        if not counts_path(path).exists() and not _is_result(path):
            continue
        try:
            found.append(load_with_counts(path))
            paths.append(str(path.relative_to(root)))
        except (FileNotFoundError, ValueError) as error:
            left_out.append(str(error).replace(f"{root}/", ""))
    return ResultsFolder(found=found, paths=paths, left_out=left_out)


def load_folder(folder: str | Path) -> tuple[list[tuple[RunResult, EpisodeCounts]], list[str]]:
    """Reads every result under a folder as :func:`read_folder`, which must have one.

    Returns:
        The results with their counts, and one sentence for each file left out.

    Raises:
        ValueError: the folder does not exist or has no result.
    """
    read = read_folder(folder)
    if not read.found:
        reasons = "; ".join(read.left_out) or "evaluate first"
        raise ValueError(f"{Path(folder)} has no result that can be read: {reasons}")
    return read.found, read.left_out


def _is_result(path: Path) -> bool:
    """Tells a result that has lost its counts from some other JSON file."""
    try:
        RunResult.load(path)
    except ValueError:
        return False
    return True


def results_page(folder: str | Path, *, folds: int = FOLDS) -> str:
    """Makes the tables of all results under a folder: scores, gains, classes, how they were made.

    Raises:
        ValueError: no result, or results that cannot share a table (two of one fold, different class splits).
    """
    found, left_out = load_folder(folder)
    runs = [result for result, _ in found]

    def counts_of(result: RunResult) -> EpisodeCounts:
        return next(counts for other, counts in found if other is result)

    parts = []
    for table in fold_tables(runs, folds=folds):
        parts.append(f"## {table.heading}\n\n{markdown_table(table)}")
        pairs = gains(table, counts_of)
        if pairs:
            heading = "Paired differences, in points of mIoU, with 95 % intervals over query images:"
            parts.append(f"{heading}\n\n{markdown(*gain_cells(table, pairs))}")
        parts.append(f"Dice by fold, in percent:\n\n{markdown(*dice_cells(table))}")
        for name, values in (("IoU", "per_class_mean"), ("Dice", "per_class_dice")):
            cells = class_cells(table, attrgetter(values))
            parts.append(f"{name} of each class, mean over seeds, in percent:\n\n{markdown(*cells)}")
        parts.append("".join(f"{line}\n" for line in provenance(table)))
    if left_out:
        parts.append("Left out, because they could not be read:\n\n" + "".join(f"- {s}\n" for s in left_out))
    return "\n".join(parts)


def update_page(page: str | Path, folder: str | Path, *, folds: int = FOLDS) -> None:
    """Replaces the block between the two marker comments of ``page``, or adds it at the end of the file.

    Raises:
        OSError: the page cannot be written; it is unchanged.
        ValueError: as :func:`results_page`, or only one of the markers is there.
    """
    path = Path(page)
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    block = f"{BEGIN}\n\n{results_page(folder, folds=folds)}\n{END}"
    if (BEGIN in text) != (END in text):
        raise ValueError(
            f"{path} has one marker of the block without the other: restore '{BEGIN}' and '{END}'"
        )
    if BEGIN in text:
        before, rest = text.split(BEGIN, 1)
        after = rest.split(END, 1)[1]
        atomic_write_text(path, f"{before}{block}{after}")
    else:
        atomic_write_text(path, f"{text.rstrip()}\n\n{block}\n")


def class_cells(
    table: FoldTable, score: Callable[[RunResult], Mapping[int, float]]
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text: a row a class, a column a row of the table; "-" where a fold was not run."""
    headings = ["class", "fold", *(f"{row.label} {row.fusion}" for row in table.rows)]
    rows = []
    for fold in range(table.folds):
        runs = [row.results.get(fold) for row in table.rows]
        known = next((r for r in runs if r is not None), None)
        for class_id in known.classes if known else []:
            name = known.class_names.get(class_id, str(class_id)) if known else ""
            values = [percent(score(r)[class_id]) if r else "-" for r in runs]
            rows.append([name, str(fold), *values])
    return headings, rows


def provenance(table: FoldTable) -> list[str]:
    """A list item a row: recipe, time and hardware of the evaluation; under it config and training."""
    lines = []
    for row in table.rows:
        runs = [row.results[f] for f in sorted(row.results)]
        recipes = ", ".join(sorted({r.recipe for r in runs if r.recipe})) or "none"
        hours = sum(r.wall_seconds for r in runs) / 3600
        hardware = "; or ".join(sorted({r.hardware for r in runs}))
        folds = f"{len(runs)} fold{'s' if len(runs) > 1 else ''}"
        lines += [
            f"- {row.label} {row.fusion}: recipe {recipes}; evaluated in {hours:.2f} h for {folds} on "
            f"{hardware}",
            f"  - config: {_in_common([_config(r) for r in runs])}",
            f"  - training: {_in_common([_training(r) for r in runs])}",
        ]
    return lines


def _config(run: RunResult) -> dict[str, Any]:
    """Everything that decides how a result was measured, as far as it is known."""
    size = run.sizes[0] if len(run.sizes) == 1 else list(run.sizes)
    named = {
        "size": size,
        "precision": run.precision,
        "data": run.data,
        "episodes": run.data and run.episodes,
    }
    return {**run.config, **{name: value for name, value in named.items() if value}}


def _training(run: RunResult) -> dict[str, Any]:
    seed = {} if run.train_seed is None else {"seed": run.train_seed}
    return {**seed, **run.training}


def _in_common(entries: Sequence[Mapping[str, Any]]) -> str:
    """What all folds have in common, as "steps 100, view.size 241"; what differs by fold is left out."""
    flat = [_flatten(entry) for entry in entries]
    same = {key: value for key, value in flat[0].items() if all(f.get(key) == value for f in flat)}
    return ", ".join(f"{key} {value}" for key, value in same.items()) or "not recorded"


def _flatten(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        inner = (
            _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        )
        flat |= inner
    return flat
