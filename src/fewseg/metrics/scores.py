"""mIoU, FB-IoU and Dice of an episode table: integer sums first, one ratio afterwards. Fractions in [0, 1].

Integers are summed over all episodes of a class, then comes the ratio, then the mean over the fold's classes.
The mean of per-episode IoU is another number, and none of the papers reports it.

With several ways a class is scored in every episode in which it is a way, whether the query shows it or not:
there its false positives count. Only FB-IoU looks at the rows of any way (class 0).

Source: SCL (Zhang et al. 2021), section 5.2, for mIoU and FB-IoU; SRPNet's tables for Dice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fewseg.metrics.counts import ANY_WAY, EpisodeCounts


def per_class(table: EpisodeCounts, classes: Sequence[int]) -> dict[int, float]:
    """Foreground IoU of each class: its summed intersections over its summed unions.

    Args:
        table: the episodes.
        classes: the fold's class ids; the result keeps their order.

    Raises:
        ValueError: a class that no episode drew, one drawn but without a foreground pixel in prediction and
            truth, or an episode of a class that is not in ``classes`` (0, any way, is no class of a fold).
    """
    sums = class_sums(table, classes, ("fg_inter", "fg_union"))
    return dict(zip(classes, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))


def miou(table: EpisodeCounts, classes: Sequence[int]) -> float:
    """Mean over the fold's classes of :func:`per_class`.

    Raises:
        ValueError: as :func:`per_class`.
    """
    return float(np.mean(list(per_class(table, classes).values())))


def dice(table: EpisodeCounts, classes: Sequence[int]) -> float:
    """Mean over the fold's classes of 2 TP / (2 TP + FP + FN), summed over the class's episodes.

    Raises:
        ValueError: as :func:`per_class`.
    """
    sums = class_sums(table, classes, ("fg_inter", "fg_pred", "fg_true"))
    return float(np.mean(2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])))


def fb_iou(table: EpisodeCounts) -> float:
    """Mean of foreground and background IoU, each from sums over all episodes whatever their class.

    For several ways this is PANet's binary IoU (Wang et al., ICCV 2019, Sec. 4.1): all the ways of an episode
    are one foreground. It is summed over the rows of any way (class 0) where the table has them, otherwise
    over all rows.

    Raises:
        ValueError: no episode, or no foreground (or background) pixel in any prediction or truth.
    """
    any_way = table.class_id == ANY_WAY
    if np.any(any_way):
        table = table.select(any_way)
    ratios = []
    for ground, word in (("fg", "foreground"), ("bg", "background")):
        union = int(getattr(table, f"{ground}_union").sum())
        if union == 0:
            raise ValueError(
                f"FB-IoU needs {word} pixels, and {len(table)} episodes have none: check the masks"
            )
        ratios.append(int(getattr(table, f"{ground}_inter").sum()) / union)
    return sum(ratios) / 2


def class_sums(table: EpisodeCounts, classes: Sequence[int], columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """Sums count columns over the episodes of each class (the ways of it).

    Returns:
        (len(classes), len(columns)) int64.

    Raises:
        ValueError: as :func:`per_class`.
    """
    check_classes(table, classes)
    return np.array(
        [[getattr(table, column)[table.class_id == c].sum() for column in columns] for c in classes],
        dtype=np.int64,
    )


def check_classes(table: EpisodeCounts, classes: Sequence[int]) -> None:
    """Checks that the episodes can score exactly these classes.

    Raises:
        ValueError: as :func:`per_class`.
    """
    if not classes or len(set(classes)) != len(classes) or ANY_WAY in classes:
        raise ValueError(
            f"the classes of a fold must be one or more different ids other than {ANY_WAY}, got "
            f"{list(classes)}"
        )
    foreign = sorted(set(table.class_id.tolist()) - {*classes, ANY_WAY})
    if foreign:
        raise ValueError(
            f"episodes of class {foreign} are in the table of a fold whose classes are {list(classes)}: "
            "score them with their own fold"
        )
    missing = [c for c in classes if not np.any(table.class_id == c)]
    if missing:
        raise ValueError(
            f"class {missing} was never drawn in {table.episodes} episodes, so its IoU does not exist (it is "
            "not 0 or 1): evaluate more episodes or check the image list"
        )
    empty = [c for c in classes if table.fg_union[table.class_id == c].sum() == 0]
    if empty:
        raise ValueError(
            f"class {empty} was drawn, but no pixel is foreground in any prediction or truth: check the masks"
        )
