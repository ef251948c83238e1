"""What goes wrong, by rule: each rule looks at the pixels of an episode alone, so that it can be counted.

Source of the kinds: SRPNet (Ding et al. 2022), Fig. 7 (a similar object; all but the monotonous background is
kept), SD-AANet (Zhao et al. 2022), Fig. 13 (a very small target, a target missed). The papers show pictures
and give no rule; these rules are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewseg.metrics import EpisodeCounts
from fewseg.types import IGNORE

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FAILED = 0.5
"""An episode has failed when its own IoU is below this."""
MISSED = 0.1
KEPT = 0.25
SIMILAR = 0.5
TINY = 0.02


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The pixels of n episodes; ignored ones count nowhere.

    Attributes:
        hit: of the target, marked.
        wrong: marked, not of the target.
        lost: of the target, not marked.
        clear: neither.
        other: of ``wrong``, those on labelled objects of other classes; None where only counts are known.
    """

    hit: Ints
    wrong: Ints
    lost: Ints
    clear: Ints
    other: Ints | None = None

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of each episode; 0 where nothing is marked or true."""
        return _share(self.hit, self.hit + self.wrong + self.lost)


def outcomes_of(table: EpisodeCounts) -> Outcomes:
    """The outcomes that the counts of 1-way episodes tell."""
    return Outcomes(
        hit=table.fg_inter,
        wrong=table.fg_pred - table.fg_inter,
        lost=table.fg_true - table.fg_inter,
        clear=table.bg_inter,
    )


def outcome(marked: Bools, labels: Ints, class_id: int) -> tuple[int, int, int, int, int]:
    """Pixels of one answer: hit, wrong, lost, clear, other.

    Args:
        marked: (H, W) what the method marks.
        labels: (H, W) class ids, 0 background, 255 ignore.
        class_id: the target's.
    """
    known, target = labels != IGNORE, labels == class_id
    wrong = marked & known & ~target
    return (
        int((marked & target).sum()),
        int(wrong.sum()),
        int((~marked & target).sum()),
        int((~marked & known & ~target).sum()),
        int((wrong & (labels != 0)).sum()),
    )


def _share(part: Ints, whole: Ints) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def failed(found: Outcomes) -> Bools:
    """IoU below ``FAILED``."""
    return np.asarray(found.iou < FAILED)


def missed_target(found: Outcomes) -> Bools:
    """Failed, and less than a tenth (``MISSED``) of the target is marked."""
    return failed(found) & (_share(found.hit, found.hit + found.lost) < MISSED)


def background_kept(found: Outcomes) -> Bools:
    """Failed, and a quarter (``KEPT``) or more of all that is not the target is marked.

    Marked pixels of other classes' objects are left out on both sides of the share, where they are known.
    """
    kept = found.wrong if found.other is None else found.wrong - found.other
    return failed(found) & (_share(kept, kept + found.clear) >= KEPT)


def similar_class(found: Outcomes) -> Bools:
    """Failed, and half (``SIMILAR``) or more of what is marked lies on labelled objects of other classes.

    Raises:
        ValueError: the outcomes are of counts, which do not tell other classes from the background.
    """
    if found.other is None:
        raise ValueError("counts do not say what is marked wrongly: this rule needs the predictions")
    marked = found.hit + found.wrong
    return failed(found) & (marked > 0) & (_share(found.other, marked) >= SIMILAR)


def tiny_target(found: Outcomes) -> Bools:
    """Failed, and the target covers less than 2 % (``TINY``) of the pixels that count."""
    target = found.hit + found.lost
    return failed(found) & (_share(target, target + found.wrong + found.clear) < TINY)


RULES: Mapping[str, Callable[[Outcomes], Bools]] = {
    "missed target": missed_target,
    "similar class": similar_class,
    "background kept": background_kept,
    "tiny target": tiny_target,
}


def failures(found: Outcomes) -> dict[str, Bools]:
    """Which episodes match each rule, which failed, and which failed without matching any.

    An episode may match several rules. ``similar class`` is left out where only counts are known.
    """
    rules = {
        name: rule(found)
        for name, rule in RULES.items()
        if rule is not similar_class or found.other is not None
    }
    whole = failed(found)
    matched = np.logical_or.reduce(list(rules.values()))
    return {"failed": whole, **rules, "none of these": whole & ~matched}
