"""The results of a page, by the names of their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts
from fewseg.reports.paper_tables.conflicts import separable
from fewseg.reports.results_page import read_folder


@dataclass(frozen=True, kw_only=True)
class FoundResult:
    """A result of a folder.

    Attributes:
        name: its path below the folder.
        result: its scores.
        counts: what they were made of.
    """

    name: str
    result: RunResult
    counts: EpisodeCounts


def find_results(folder: Path, folds: int) -> tuple[list[FoundResult], list[str]]:
    """Reads the results of a folder that can share tables.

    Returns:
        The results, and one sentence for each that was left out.

    Raises:
        ValueError: the folder does not exist.
    """
    read = read_folder(folder)
    found = [
        FoundResult(name=path, result=result, counts=counts)
        for path, (result, counts) in zip(read.paths, read.found, strict=True)
    ]
    problems = list(read.left_out)
    if not found:
        problems.append(f"{folder} has no result that can be read: `fewseg evaluate` writes results")
    names = {id(each.result): each.name for each in found}
    kept, left_out = separable([each.result for each in found], folds, lambda result: names[id(result)])
    shown = {id(result) for result in kept}
    return [each for each in found if id(each.result) in shown], problems + left_out
