"""Folders of training runs: their losses, the results of their checkpoints, and learning curves."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, nan
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from fewseg.engine.checkpoint import Checkpoint, read_checkpoint
from fewseg.engine.train import BEST, LAST, LOSSES
from fewseg.ops.files import parse_json
from fewseg.ops.progress import tracked
from fewseg.reports.frame import Results
from fewseg.reports.site.plots import Curve, legend_line, panel, round_ticks

_TOTAL, _NOT_DRAWN = "total", ("lr",)
_UNITS = {
    "gradient_norm": "gradient norm",
    "prototype_length": "length",
    "prototype_contrast": "1 - entropy / log d",
}
"""Units of logged values that are not losses."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A folder with a ``losses.jsonl``."""

    name: str  # its path below the folder of runs
    recipe: str  # name of the recipe, or of the folder if no checkpoint names a recipe
    fold: int | None  # fold of its class split; None if unknown
    seed: int | None  # training seed; None if unknown
    digest: str  # digest of its finished checkpoint, or ""
    # one row per step, ascending; one column per value ("total", "query", "lr"), NaN if a step lacks it
    losses: pd.DataFrame
    results: tuple[str, ...]  # paths of the results of this checkpoint
    # paths of results of this recipe, fold and seed, but of a different checkpoint
    retrained: tuple[str, ...]

    @property
    def label(self) -> str:
        """Fold and seed, or the folder's name."""
        return self.name if self.fold is None else f"fold {self.fold}, seed {self.seed}"

    @property
    def steps(self) -> list[int]:
        """The steps with losses."""
        return [int(step) for step in self.losses.index]

    @property
    def last_loss(self) -> str:
        """The last total loss."""
        last = self.losses[_TOTAL].iloc[-1] if _TOTAL in self.losses else nan
        return f"{last:.3f}" if isfinite(last) else "-"

    @property
    def tested(self) -> str:
        """The number of results of the run, and how they were matched."""
        parts = []
        if self.results:
            parts.append(f"{len(self.results)} of this checkpoint")
        if self.retrained:
            what = "another checkpoint" if self.digest else "a checkpoint that is not here"
            parts.append(f"{len(self.retrained)} of this recipe, fold and seed, but of {what}")
        return "; ".join(parts) or "none"


def read_runs(
    folder: Path, results: Results, *, progress: bool = False
) -> tuple[list[TrainingRun], list[str]]:
    """Reads every training run under a folder, and notes what cannot be read."""
    if not folder.is_dir():
        return [], [
            f"{folder} is not a folder: give the folder of training runs that `fewseg train` writes to"
        ]
    paths = sorted(folder.rglob(LOSSES))
    if not paths:
        return [], [f"{folder} has no {LOSSES}: give the folder of training runs"]
    runs, problems = [], []
    for path in tracked(progress, "reading training runs", paths):
        relative = path.parent.relative_to(folder).as_posix()
        name = path.parent.name if relative == "." else relative
        losses, damaged = read_losses(path)
        problems += [f"{name}/{LOSSES}: {problem}" for problem in damaged]
        if len(losses):
            runs.append(_run(name, path.parent, losses, results))
    runs.sort(key=lambda r: (r.recipe, -1 if r.fold is None else r.fold, str(r.seed), r.name))
    return runs, problems


def read_losses(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The values of a ``losses.jsonl`` by step, and a message for each kind of damage."""
    lines: dict[int, dict[str, float]] = {}
    broken: list[int] = []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return pd.DataFrame(), [f"it cannot be read ({error})"]
    for i, text in enumerate(texts, start=1):
        values = _values(text)
        step = int(values.pop("step")) if values else 0
        if values is None or (lines and step <= max(lines)):
            broken.append(i)
        else:
            lines[step] = values
    damaged = []
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        many = "lines" if len(broken) > 1 else "line"
        damaged.append(f"{many} {shown} of {len(texts)} passed over: no complete losses in order of steps")
    if not lines:
        damaged.append("it has no line that can be read, so the run has no curve")
    columns = list(dict.fromkeys(name for values in lines.values() for name in values))
    return pd.DataFrame(list(lines.values()), index=list(lines), columns=columns, dtype=float), damaged


def _values(text: str) -> dict[str, float] | None:
    """The finite numbers of a line, or None if it is not a line of losses."""
    try:
        values = parse_json(text)
    except ValueError:
        return None
    if not isinstance(values, dict) or type(values.get("step")) is not int or values["step"] < 0:
        return None
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {k: v for k, v in numbers.items() if isfinite(v)}


def _run(name: str, folder: Path, losses: pd.DataFrame, results: Results) -> TrainingRun:
    recipe, fold, seed = folder.name, None, None
    header = _header(folder)
    digest = header.digest if header and (folder / BEST).exists() else ""
    if header is not None:
        recipe = header.recipe or recipe
        fold = (header.class_split or {}).get("fold", fold)
        seed = header.training.get("config", {}).get("seed", seed)
    frame = results.frame
    of_checkpoint = (frame.checkpoint == digest) & bool(digest)
    of_recipe = (frame.recipe == recipe) & (frame.fold == fold) & (frame.train_seed == seed)
    return TrainingRun(
        name=name,
        recipe=recipe,
        fold=fold,
        seed=seed,
        digest=digest,
        losses=losses,
        results=tuple(frame.path[of_checkpoint]),
        retrained=tuple(frame.path[of_recipe & ~of_checkpoint]),
    )


def _header(folder: Path) -> Checkpoint | None:
    """The header of the finished checkpoint, else of the last one; None if neither can be read."""
    for name in (BEST, LAST):
        try:
            return read_checkpoint(folder / name)
        except (FileNotFoundError, ValueError) as error:
            if (folder / name).exists():
                _log.warning("%s", error)
    return None


@dataclass(frozen=True, kw_only=True)
class LearningCharts:
    """The curves of a recipe: a sample and label per run, a title and panel per loss, and the data."""

    recipe: str
    legend: list[tuple[Markup, str]]
    panels: list[tuple[str, Markup]]
    data: pd.DataFrame


def learning_charts(runs: Sequence[TrainingRun]) -> list[LearningCharts]:
    """The charts of each recipe; runs of one recipe must be adjacent."""
    return [_charts(recipe, list(group)) for recipe, group in groupby(runs, key=lambda run: run.recipe)]


def _charts(recipe: str, runs: Sequence[TrainingRun]) -> LearningCharts:
    x = round_ticks([0, *(run.steps[-1] for run in runs)], 5)
    panels = []
    for name in drawn_names(runs):
        values = [run.losses[name].tolist() if name in run.losses else [] for run in runs]
        curves = [
            Curve(series=i, x=run.steps, y=y)
            for i, (run, y) in enumerate(zip(runs, values, strict=True))
            if y
        ]
        y = round_ticks([0.0, *(v for series in values for v in series)], 5)
        unit = _UNITS.get(name, "loss")
        title = f"{recipe}: {name.replace('_', ' ')}"
        id = re.sub(r"[^a-z0-9]+", "-", f"{recipe}-{name}".lower())
        panels.append(
            (title, panel(id, f"{title}: {unit} over step", curves, x=(x, x[-1], "step"), y=(y, unit)))
        )
    legend = [(legend_line(i), run.label) for i, run in enumerate(runs)]
    return LearningCharts(recipe=recipe, legend=legend, panels=panels, data=_data(runs))


def _data(runs: Sequence[TrainingRun]) -> pd.DataFrame:
    """Every value of every step."""
    about = [{"run": run.name, "fold": run.fold, "seed": run.seed} for run in runs]
    frames = [
        run.losses.rename_axis("step").reset_index().assign(**columns)
        for run, columns in zip(runs, about, strict=True)
    ]
    joined = pd.concat([frame.astype(object) for frame in frames])
    names = list(dict.fromkeys(name for run in runs for name in run.losses))
    return joined[["run", "fold", "seed", "step", *names]]


def drawn_names(runs: Sequence[TrainingRun]) -> list[str]:
    """The names of the drawn values, the total first; terms that always equal the total are left out."""
    names = list(dict.fromkeys(n for run in runs for n in run.losses if n not in _NOT_DRAWN))

    def is_total(run: TrainingRun, name: str) -> bool:
        values, total = run.losses.get(name), run.losses.get(_TOTAL)
        return values is total if values is None or total is None else bool(values.equals(total))

    terms = [n for n in names if n != _TOTAL and not all(is_total(run, n) for run in runs)]
    return ([_TOTAL] if _TOTAL in names else []) + terms
