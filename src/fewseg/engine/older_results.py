"""What can be checked of result files that have no seal yet: all that follows from their other parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewseg.data.coco_splits import coco_20i
from fewseg.data.folds import ClassSplit, pascal_5i
from fewseg.data.protocols import stored_protocol
from fewseg.engine.result_schema import SEALED, as_json, digest
from fewseg.metrics import EpisodeCounts

if TYPE_CHECKING:
    from fewseg.engine.results import RunResult

_SPLITS: Mapping[str, Callable[[int], ClassSplit]] = {
    "pascal-5i": pascal_5i,
    "coco-20i": coco_20i,
    "coco-20i-a": partial(coco_20i, split="A"),
}


def check_older(path: str | Path, result: RunResult, counts: EpisodeCounts) -> None:
    """Checks shots, fold, fusion, class split and protocol of a result; one with a seal needs no such check.

    Raises:
        ValueError: one does not follow from the others, so the file was edited.
    """
    if result.schema >= SEALED:
        return
    for what, said, follows in _pairs(result, counts):
        if said != follows:
            raise ValueError(
                f"{path}: {what} is {said!s:.80}, from the rest of the file and its counts follows "
                f"{follows!s:.80}: the file was edited; evaluate again"
            )


def _pairs(result: RunResult, counts: EpisodeCounts) -> list[tuple[str, Any, Any]]:
    """(what, what the file says, what follows from the rest)."""
    split, fusion = result.class_split, result.config.get("fusion")
    found: list[tuple[str, Any, Any]] = []
    if counts.supports.shape[1]:  # tables that were not made by fewseg may leave the supports out
        found.append(("shots", result.shots, counts.supports.shape[1]))
    if isinstance(fusion, Mapping) and "kind" in fusion:
        found.append(("fusion", result.fusion, fusion["kind"]))
    if "novel" in split:
        found.append(("class_split.novel", sorted(split["novel"]), sorted(result.classes)))
    if split.get("type") == "ClassSplit":
        found.append(("fold", result.fold, split.get("fold")))
    if split.get("type") == "ClassSplit" and split.get("name") in _SPLITS and result.fold in range(4):
        found.append(("class_split", split, as_json(_SPLITS[split["name"]](result.fold))))
    return [*found, *_of_protocol(result)]


def _of_protocol(result: RunResult) -> list[tuple[str, Any, Any]]:
    protocol = stored_protocol(result.protocol)
    if protocol is None:  # of no newer fewseg, which would have sealed it
        return [("protocol_digest", result.protocol_digest, digest(result.protocol))]
    return [
        ("the list of seeds", tuple(seed.seed for seed in result.seeds), tuple(sorted(protocol.seeds))),
        ("the number of episodes", {seed.episodes for seed in result.seeds}, {protocol.episodes}),
    ]
