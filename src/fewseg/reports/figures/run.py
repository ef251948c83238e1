"""``fewseg report figures``: all figures that checkpoints and results allow."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts
from fewseg.reports.figures.data_files import Row, write_rows
from fewseg.reports.figures.registry import FIGURES
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.subjects import Subject, subject_of
from fewseg.reports.results_page import load_folder

CLAIMS = "claims.csv"


def make_figures(
    results: Path | None,
    checkpoints: Sequence[str],
    out: Path,
    *,
    figures: Sequence[str] = (),
    fold: int | None = None,
    root: Path | None = None,
    episodes: int | None = None,
    examples: int = 5,
    seed: int = 0,
    shots: tuple[int, ...] = (1,),
    progress: bool = True,
) -> Study:
    """Makes the figures; what is missing is noted and the rest is made.

    Args:
        results: folder of result files; None for none.
        checkpoints: paths, or names of recipes without training.
        out: folder for the figures: ``plots`` without photographs, ``pictures`` with them.
        figures: names; all by default.
        fold: of recipes without training.
        root: folder of the data set; the recipes' own by default.
        episodes: a seed; the protocol's by default.
        examples: rows of a figure with photographs.
        seed: of everything that is drawn: examples, cells, t-SNE's start, resamples.
        shots: K of the predictions in the qualitative figure, a column each.
        progress: show bars.

    Returns:
        What was made, found and missing.

    Raises:
        ValueError: an unknown figure, or ``episodes``, ``examples`` or ``shots`` below 1.
        OSError: nothing can be written to ``out``.
    """
    for name in figures:
        if name not in FIGURES:
            near = difflib.get_close_matches(name, FIGURES) or list(FIGURES)
            raise ValueError(f"unknown figure {name!r}: did you mean {' or '.join(near)}?")
    if min(examples, *shots) < 1 or (episodes is not None and episodes < 1):
        counts = f"{episodes} episodes, {examples} examples and shots {shots}"
        raise ValueError(f"got {counts}: give 1 of each at least")
    problems: list[str] = []
    subjects = _subjects(checkpoints, fold, root, problems)
    study = Study(
        subjects=subjects,
        results=_results(results, problems),
        out=out,
        episodes=episodes,
        examples=examples,
        seed=seed,
        shots=shots,
        progress=progress,
        problems=problems,
    )
    for name in figures or FIGURES:
        with study.attempt(name):
            FIGURES[name].make(study)
    _write_claims(study)
    return study


def _subjects(
    checkpoints: Sequence[str], fold: int | None, root: Path | None, problems: list[str]
) -> list[Subject]:
    found: list[Subject] = []
    for what in checkpoints:
        try:
            subject = subject_of(what, fold=fold, root=root)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        same = [s for s in found if (s.stem, s.fold) == (subject.stem, subject.fold)]
        if same:
            problems.append(
                f"{what} and {same[0].what} are both {subject.label} fold {subject.fold}: took the latter"
            )
        else:
            found.append(subject)
    sets = {s.recipe.data for s in found}
    if len(sets) > 1:
        first = found[0].recipe.data
        for subject in found:
            if subject.recipe.data is not first:
                problems.append(f"{subject.what} is of another data set than {found[0].what}: left out")
        found = [s for s in found if s.recipe.data is first]
    return found


def _results(folder: Path | None, problems: list[str]) -> list[tuple[RunResult, EpisodeCounts]]:
    if folder is None:  # a figure that needs results says so itself
        return []
    try:
        found, left_out = load_folder(folder)
    except ValueError as error:
        problems.append(str(error))
        return []
    problems += left_out
    return found


def _write_claims(study: Study) -> None:
    rows: list[Row] = [
        {
            "claim": claim.claim,
            "where": claim.where,
            "quantity": claim.quantity,
            "value": claim.found.value,
            "low": claim.found.low,
            "high": claim.found.high,
            "count": claim.count,
            "verdict": claim.verdict,
        }
        for claim in study.claims
    ]
    if rows:
        study.files.append(write_rows(study.out / CLAIMS, rows))
