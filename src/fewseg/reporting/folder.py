"""A folder of result files, read as far as it can be read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fewseg.engine.counts_file import counts_path
from fewseg.engine.results import RunResult, load_with_counts
from fewseg.metrics import EpisodeCounts
from fewseg.ops.progress import tracked

_log = logging.getLogger(__name__)


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


def read_folder(folder: str | Path, *, progress: bool = False) -> tuple[list[FoundResult], list[str]]:
    """Reads every result under a folder, in the order of their paths.

    Other JSON files are passed over; a result that cannot be read, or has lost its counts, is left out.

    Args:
        folder: where result files lie, at any depth.
        progress: show a bar.

    Returns:
        The results, and one sentence for each file left out.

    Raises:
        ValueError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that `fewseg evaluate` writes to")
    found, left_out = [], []
    for path in tracked(progress, "reading results", sorted(root.rglob("*.json"))):
        if not counts_path(path).exists() and not _is_result(path):
            continue
        try:
            result, counts = load_with_counts(path)
        except (FileNotFoundError, ValueError) as error:
            _log.warning("left out: %s", error)
            left_out.append(str(error).replace(f"{root}/", ""))
        else:
            name = path.relative_to(root).as_posix()
            found.append(FoundResult(name=name, result=result, counts=counts))
    return found, left_out


def _is_result(path: Path) -> bool:
    """Tells a result that has lost its counts from some other JSON file."""
    try:
        RunResult.load(path)
    except ValueError:
        return False
    return True
