"""Which of a project's annotated tasks become supports, and with which regions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fewseg.data.errors import DataError
from fewseg.inference.formats.canvas import BACKGROUND_NAMES, IGNORE_NAMES
from fewseg.inference.formats.json_fields import field, shown, typed
from fewseg.inference.formats.label_studio import changed_at, chosen_annotation, labels_of
from fewseg.serve.label_studio.label_config import LabelConfig

logger = logging.getLogger(__name__)

_KEY_POINTS = "keypointlabels"
_NEGATIVE = ""  # stands for the class of images that show none


@dataclass(frozen=True, kw_only=True)
class Example:
    """An annotated task, as a support.

    Attributes:
        task: its id.
        address: of its image.
        regions: of the annotation that counts; none on an image that shows none of the classes.
        labels: of the regions.
        changed: when, in seconds since 1970.
        fingerprint: tells whether any of this changed but the time.
    """

    task: int
    address: str
    regions: Sequence[dict[str, Any]]
    labels: frozenset[str]
    changed: float
    fingerprint: str


def read_examples(tasks: Sequence[Any], config: LabelConfig) -> list[Example]:
    """Returns the annotated tasks of an export; what cannot be used is left out, with a line in the log.

    Of several annotations of a task the ground truth counts, else the latest that was not cancelled.
    """
    found = []
    for k, task in enumerate(tasks):
        number = task.get("id", k) if isinstance(task, dict) else k
        where = f"Label Studio's task {shown(number)}"
        try:
            example = _example(typed(task, dict, where), config, where)
        except DataError as error:
            logger.warning("%s: the task is no example", error)
            continue
        if example is not None:
            found.append(example)
    return found


def _example(task: dict[str, Any], config: LabelConfig, where: str) -> Example | None:
    made = chosen_annotation(task.get("annotations"), where)
    if made is None:
        return None
    number = field(task, "id", int, where)
    address = field(field(task, "data", dict, where), config.key, str, where)
    given = [
        typed(item, dict, f"{where}, region {k}") for k, item in enumerate(field(made, "result", list, where))
    ]
    regions = [item for item in given if item.get("to_name") == config.to_name]
    kept = [item for item in regions if _usable(item, config)]
    left_out = Counter(str(item.get("type")) for item in regions if not _usable(item, config))
    if left_out:
        logger.warning(
            "%s: left out are %s; accepted are brushes, polygons, ellipses and rectangles of the labels of "
            "%s: %s",
            where,
            ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items())),
            config.from_name,
            "the task is used without them" if kept else "the task is no example",
        )
        if not kept:
            return None  # there is something on it: it is no negative
    content = json.dumps([number, address, kept], sort_keys=True)
    return Example(
        task=number,
        address=address,
        regions=kept,
        labels=frozenset(label for item in kept for label in labels_of(item))
        - BACKGROUND_NAMES
        - IGNORE_NAMES,
        changed=changed_at(made),
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
    )


def _usable(item: dict[str, Any], config: LabelConfig) -> bool:
    """Whether a region is of a kind and of labels that count."""
    known = {*config.labels, *BACKGROUND_NAMES, *IGNORE_NAMES}
    return item.get("type") != _KEY_POINTS and (not config.labels or known.issuperset(labels_of(item)))


def newest(examples: Iterable[Example], shots: int) -> list[Example]:
    """Returns the examples that are among the newest ``shots`` of a class, or of those that show none.

    Returns:
        In the order of the tasks.
    """
    taken: Counter[str] = Counter()
    kept = []
    for example in sorted(examples, key=lambda e: (e.changed, e.task), reverse=True):
        shown_on = example.labels or {_NEGATIVE}
        if any(taken[label] < shots for label in shown_on):
            taken.update(shown_on)
            kept.append(example)
    return sorted(kept, key=lambda e: e.task)
