"""Integer intersections and unions of label maps of several ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fewseg.metrics.counts import Counts, as_counts, as_numpy, count, odd_values
from fewseg.types import IGNORE


def count_ways(
    prediction: npt.NDArray[Any] | torch.Tensor, truth: npt.NDArray[Any] | torch.Tensor, ways: int
) -> Counts:
    """Counts a predicted label map against the true one, each way against everything else.

    Args:
        prediction: (H, W) integers in {0, 1 .. N}; array or tensor on any device.
        truth: (H, W) integers in {0, 1 .. N, 255}; pixels of 255 count nowhere.
        ways: N.

    Returns:
        Counts of shape (1,), those of :func:`count`, for one way. For several of shape (N + 1,): way 1 .. N,
        then the foreground of any way against the background, the sums of PANet's binary IoU (Wang et al.,
        ICCV 2019, Sec. 4.1).

    Raises:
        ValueError: the shapes differ or are not (H, W), a value is outside the sets above, or N is not in
            1 .. 254.
    """
    predicted, true = as_numpy(prediction), as_numpy(truth)
    if predicted.shape != true.shape or predicted.ndim != 2 or not 1 <= ways < IGNORE:
        raise ValueError(
            f"prediction {predicted.shape} and truth {true.shape} of {ways} ways must have one shape, "
            f"(H, W), and 1 to {IGNORE - 1} ways: give one label map, resized to the label"
        )
    if ways == 1:
        return Counts.stack([count(predicted, true)])
    scored, background = true != IGNORE, predicted == 0
    found, areas = int(np.count_nonzero(background)), []
    for way in range(1, ways + 1):
        p, t = predicted == way, true == way
        found += int(np.count_nonzero(p))
        areas.append([int(np.count_nonzero(mask)) for mask in (p & t, p & scored, t)])
    of_way = np.array(areas, dtype=np.int64)
    total, no_way = int(np.count_nonzero(scored)), true == 0
    if of_way[:, 2].sum() + np.count_nonzero(no_way) != total:
        raise ValueError(
            f"the truth has values {odd_values(true, (*range(ways + 1), IGNORE))}; only 0 .. {ways} and "
            f"{IGNORE} are labels"
        )
    if found != predicted.size:
        raise ValueError(
            f"the prediction has values {odd_values(predicted, tuple(range(ways + 1)))}; only 0 .. {ways} "
            "are labels: take the argmax"
        )
    any_pred, any_true = of_way[:, 1].sum(), of_way[:, 2].sum()
    any_union = total - int(np.count_nonzero(background & no_way))
    any_way = [any_pred + any_true - any_union, any_pred, any_true]
    inter, pred, fg_true = np.concatenate([of_way, [any_way]]).T
    union = pred + fg_true - inter
    return as_counts(np.stack([inter, union, total - union, total - inter, pred, fg_true]))
