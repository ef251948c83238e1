"""Folders of training runs: their losses, and which results were measured with what they trained."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from fewseg.engine.checkpoint import Checkpoint, read_checkpoint
from fewseg.engine.train import BEST, LAST, LOSSES
from fewseg.ops.progress import tracked
from fewseg.reports.site.found import FoundResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A folder with a ``losses.jsonl``.

    Attributes:
        name: its path below the folder of runs.
        recipe: its name; that of the folder where neither checkpoint nor folder says.
        fold: of its class split; None where nothing says.
        seed: of the training; None where nothing says.
        digest: of its finished checkpoint, or "".
        steps: where losses were written, ascending.
        losses: name of a value ("total", "query", "lr") to one value a step; None where a step lacks it.
        results: names of the results of this checkpoint.
        retrained: names of results of this recipe, fold and seed, but of another checkpoint.
    """

    name: str
    recipe: str
    fold: int | None
    seed: int | None
    digest: str
    steps: tuple[int, ...]
    losses: Mapping[str, tuple[float | None, ...]]
    results: tuple[str, ...]
    retrained: tuple[str, ...]

    @property
    def label(self) -> str:
        """Fold and seed, or the folder's name."""
        return self.name if self.fold is None else f"fold {self.fold}, seed {self.seed}"


def read_runs(
    folder: Path, found: Sequence[FoundResult], *, progress: bool = False
) -> tuple[list[TrainingRun], list[str]]:
    """Reads every training run under a folder.

    A run belongs to a result by the digest of its checkpoint. One that is not finished, or has another
    checkpoint, is still named beside results of its recipe, fold and seed.

    Args:
        folder: where ``fewseg train`` wrote, at any depth.
        found: results.
        progress: show a bar.

    Returns:
        The runs, and one sentence for each thing that could not be read.
    """
    if not folder.is_dir():
        return [], [
            f"{folder} is not a folder: give the folder of training runs that `fewseg train` writes to"
        ]
    paths = sorted(folder.rglob(LOSSES))
    if not paths:
        return [], [f"{folder} has no {LOSSES}: give the folder of training runs"]
    runs, problems = [], []
    for path in tracked(progress, "reading training runs", paths):
        place = path.parent.relative_to(folder).as_posix()
        name = path.parent.name if place == "." else place
        steps, losses, damaged = read_losses(path)
        problems += [f"{name}/{LOSSES}: {each}" for each in damaged]
        if steps:
            runs.append(_run(name, path.parent, steps, losses, found))
    return runs, problems


def read_losses(
    path: Path,
) -> tuple[tuple[int, ...], dict[str, tuple[float | None, ...]], list[str]]:
    """Reads a ``losses.jsonl``.

    Returns:
        The steps; name to one value a step (None where it is not there, or not finite); and one phrase for
        each kind of damage. Damaged lines are passed over.
    """
    lines: dict[int, dict[str, float]] = {}
    broken: list[int] = []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return (), {}, [f"it cannot be read ({error})"]
    for i, text in enumerate(texts, start=1):
        values = _line(text)
        if values is None or (lines and values["step"] <= max(lines)):
            broken.append(i)
        else:
            lines[int(values["step"])] = values
    names = [n for n in dict.fromkeys(n for values in lines.values() for n in values) if n != "step"]
    losses = {name: tuple(values.get(name) for values in lines.values()) for name in names}
    damaged = []
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        many = "lines" if len(broken) > 1 else "line"
        damaged.append(
            f"{many} {shown} of {len(texts)} passed over: no whole line of losses in order of steps"
        )
    if not lines:
        damaged.append("it has no line that can be read, so the run has no curve")
    return tuple(lines), losses, damaged


def _line(text: str) -> dict[str, float] | None:
    """The finite numbers of a line, or None where it is no line of losses."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or type(found.get("step")) is not int or found["step"] < 0:
        return None
    numbers = {k: v for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {k: v for k, v in numbers.items() if isfinite(v)}


def _run(
    name: str,
    folder: Path,
    steps: tuple[int, ...],
    losses: Mapping[str, tuple[float | None, ...]],
    found: Sequence[FoundResult],
) -> TrainingRun:
    recipe, fold, seed = _named(folder.name)
    about = _about(folder)
    finished = about is not None and (folder / BEST).exists()
    digest = about.digest if about and finished else ""
    if about is not None:
        recipe = about.recipe or recipe
        fold = (about.class_split or {}).get("fold", fold)
        seed = about.training.get("config", {}).get("seed", seed)
    same = [each for each in found if digest and each.result.checkpoint == digest]
    alike = [
        each
        for each in found
        if (each.result.recipe, each.result.fold, each.result.train_seed) == (recipe, fold, seed)
    ]
    return TrainingRun(
        name=name,
        recipe=recipe,
        fold=fold,
        seed=seed,
        digest=digest,
        steps=steps,
        losses=losses,
        results=tuple(each.name for each in same),
        retrained=tuple(each.name for each in alike if each not in same),
    )


def _named(name: str) -> tuple[str, int | None, int | None]:
    """Recipe, fold and seed of a folder that ``fewseg train`` named."""
    parts = re.fullmatch(r"(.+)-fold(\d+)-seed(\d+)", name)
    return (parts[1], int(parts[2]), int(parts[3])) if parts else (name, None, None)


def _about(folder: Path) -> Checkpoint | None:
    """What the finished checkpoint says, else the last one; None where there is none that can be read."""
    for name in (BEST, LAST):
        try:
            return read_checkpoint(folder / name)
        except (FileNotFoundError, ValueError) as error:
            if (folder / name).exists():
                _log.warning("%s", error)
    return None
