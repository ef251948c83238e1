"""Integer intersections and unions of masks, and the per-episode table of them.

Source: the metrics of SCL (Zhang et al. 2021), Sec. 5.2, checked against golden counts of the PFENet family.
The arguments are never changed, and values that are no mask are an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fewseg.types import IGNORE

ANY_WAY = 0
"""The class id of the row that counts the foreground of any way, in an episode of several."""

Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pixel counts of binary masks, ignored pixels left out everywhere.

    Every field is int64 of the masks' leading shape: () for one (H, W) mask, (n,) for n of them.

    Attributes:
        fg_inter: pixels that are foreground in prediction and truth (TP).
        fg_union: pixels that are foreground in either (TP + FP + FN).
        bg_inter: pixels that are background in both (TN).
        bg_union: pixels that are background in either (TN + FP + FN).
        fg_pred: pixels predicted as foreground (TP + FP).
        fg_true: pixels that truly are foreground (TP + FN).
    """

    fg_inter: Ints
    fg_union: Ints
    bg_inter: Ints
    bg_union: Ints
    fg_pred: Ints
    fg_true: Ints

    @staticmethod
    def stack(items: Sequence[Counts]) -> Counts:
        """Joins the counts of single masks or of batches into one of shape (n,)."""
        return Counts(
            **{name: np.concatenate([np.atleast_1d(getattr(c, name)) for c in items]) for name in COUNT_NAMES}
        )

    @staticmethod
    def total(items: Sequence[Counts]) -> Counts:
        """Adds up counts of one shape, such as those of all images of a set."""
        return Counts(**{name: np.sum([getattr(c, name) for c in items], axis=0) for name in COUNT_NAMES})


COUNT_NAMES = tuple(f.name for f in fields(Counts))


def count(prediction: npt.NDArray[Any] | torch.Tensor, truth: npt.NDArray[Any] | torch.Tensor) -> Counts:
    """Counts the pixels of predicted masks against true ones.

    Args:
        prediction: (H, W) or (n, H, W), bool or integers in {0, 1}; array or tensor on any device.
        truth: same shape, integers in {0, 1, 255}; pixels of 255 count nowhere.

    Returns:
        Counts of shape () or (n,).

    Raises:
        ValueError: the shapes differ, are not (H, W) or (n, H, W), or a value is outside the sets above.
    """
    predicted, true = as_numpy(prediction), as_numpy(truth)
    if predicted.shape != true.shape or predicted.ndim not in (2, 3):
        raise ValueError(
            f"prediction {predicted.shape} and truth {true.shape} must have one shape, (H, W) or (n, H, W): "
            "resize the prediction to the label first"
        )
    if predicted.ndim == 2:
        return as_counts(_counted(predicted, true, 1)[:, 0])
    rows = [_counted(p, t, 1)[:, 0] for p, t in zip(predicted, true, strict=True)]
    return as_counts(np.array(rows, dtype=np.int64).reshape(len(rows), len(COUNT_NAMES)).T)


def _counted(predicted: npt.NDArray[Any], true: npt.NDArray[Any], ways: int) -> Ints:
    """(6, ways) counts of one label map in the order of COUNT_NAMES; of several ways, the last is any way."""
    scored, background = true != IGNORE, predicted == 0
    labelled, areas = int(np.count_nonzero(background)), []
    for way in range(1, ways + 1):
        p, t = predicted == way, true == way
        labelled += int(np.count_nonzero(p))
        areas.append([int(np.count_nonzero(mask)) for mask in (p & t, p & scored, t)])
    of_way = np.array(areas, dtype=np.int64)
    total, no_way = int(np.count_nonzero(scored)), true == 0
    if of_way[:, 2].sum() + np.count_nonzero(no_way) != total:
        raise ValueError(
            f"the truth has values {odd_values(true, (*range(ways + 1), IGNORE))}; only 0 .. {ways} and "
            f"{IGNORE} are labels"
        )
    if labelled != predicted.size:
        raise ValueError(
            f"the prediction has values {odd_values(predicted, tuple(range(ways + 1)))}; only 0 .. {ways} "
            "are labels: threshold it, or take the argmax"
        )
    if ways > 1:
        any_pred, any_true = of_way[:, 1].sum(), of_way[:, 2].sum()
        any_union = total - int(np.count_nonzero(background & no_way))
        of_way = np.concatenate([of_way, [[any_pred + any_true - any_union, any_pred, any_true]]])
    inter, pred, fg_true = of_way.T
    union = pred + fg_true - inter
    return np.stack([inter, union, total - union, total - inter, pred, fg_true])


def as_counts(columns: Ints) -> Counts:
    """Returns the counts whose columns, in the order of ``COUNT_NAMES``, are the rows of ``columns``."""
    return Counts(**dict(zip(COUNT_NAMES, columns, strict=True)))


def as_numpy(values: npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[Any]:
    """Returns an array of a tensor on any device; an array is returned as it is."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def odd_values(values: npt.NDArray[Any], accepted: tuple[int, ...]) -> list[Any]:
    """Returns up to five of the values that are not accepted, ascending."""
    unique = np.unique(values)
    return list(unique[~np.isin(unique, accepted)][:5].tolist())


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeCounts:
    """One row an episode: who it was and what was counted. N rows; all counts int64.

    An episode of several ways has one row a way, its class against everything else, whether the query shows
    the class or not (its false positives count), and one row of class ``ANY_WAY``: the rows of
    :func:`fewseg.metrics.count_ways`.

    Attributes:
        seed: (N,) seed of the run of episodes.
        episode: (N,) index i of the episode within its seed; (seed, episode, class_id) is unique.
        class_id: (N,) id of the episode's class, or of the way's; 0 in the row of any way.
        fg_inter: (N,) see :class:`Counts`, as for the next five.
        fg_union: (N,).
        bg_inter: (N,).
        bg_union: (N,).
        fg_pred: (N,).
        fg_true: (N,).
        query: (N,) id of the query image; empty strings where it was not kept.
        supports: (N, K) ids of the support images, in a way's row those of that way, in the row of any way
            empty strings; (N, 0) where they were not kept.
    """

    seed: Ints
    episode: Ints
    class_id: Ints
    fg_inter: Ints
    fg_union: Ints
    bg_inter: Ints
    bg_union: Ints
    fg_pred: Ints
    fg_true: Ints
    query: Texts
    supports: Texts

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of an episode table must have one length, got {lengths}")
        order = np.lexsort((self.class_id, self.episode, self.seed))
        keys = np.stack([self.seed, self.episode, self.class_id], axis=1)[order]
        again = np.flatnonzero(np.all(keys[1:] == keys[:-1], axis=1))
        if len(again):
            seed, episode, class_id = keys[again[0]].tolist()
            raise ValueError(
                f"episode {episode} of seed {seed} is in the table more than once (class {class_id}): score "
                "it once"
            )
        sums = (self.fg_pred + self.fg_true - self.fg_inter == self.fg_union) & (
            self.bg_union - self.bg_inter == self.fg_union - self.fg_inter
        )
        ordered = (self.fg_inter >= 0) & (self.bg_inter >= 0)
        ordered &= (self.fg_inter <= self.fg_pred) & (self.fg_inter <= self.fg_true)
        if not bool(np.all(sums & ordered)):
            row = int(np.argmin(sums & ordered))
            raise ValueError(
                f"row {row} (seed {self.seed[row]}, episode {self.episode[row]}) has counts that no pair "
                "of masks gives: use the numbers of fewseg.metrics.count as they are"
            )

    def __len__(self) -> int:
        return len(self.seed)

    @property
    def episodes(self) -> int:
        """How many episodes the rows are of; fewer than rows where there are several ways."""
        return len(np.unique(np.stack([self.seed, self.episode], axis=1), axis=0))

    def check_ways(self, ways: int) -> None:
        """Checks that the table is of whole episodes of N ways.

        Args:
            ways: N.

        Raises:
            ValueError: an episode has not N rows and, for N > 1, one of ``ANY_WAY``.
        """
        keys = np.stack([self.seed, self.episode], axis=1)
        episodes, episode_of_row, rows = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        any_way = np.bincount(episode_of_row.ravel(), weights=self.class_id == ANY_WAY, minlength=len(rows))
        several = int(ways > 1)
        wrong = (rows != ways + several) | (any_way != several)
        if np.any(wrong):
            (seed, episode), n = episodes[wrong][0].tolist(), int(rows[wrong][0])
            raise ValueError(
                f"episode {episode} of seed {seed} has {n} rows, {int(any_way[wrong][0])} of class "
                f"{ANY_WAY}, and {ways}-way episodes have {ways + several}, {several} of class {ANY_WAY}: "
                "give the ways that they were drawn with"
            )

    @staticmethod
    def of(
        counts: Counts,
        *,
        seed: int | Sequence[int],
        episode: int | Sequence[int],
        class_id: int | Sequence[int],
        query: str | Sequence[str] = "",
        supports: Sequence[Sequence[str]] | None = None,
    ) -> EpisodeCounts:
        """Makes the rows of one episode of n rows, or of a batch of n 1-way episodes.

        Args:
            counts: of shape () or (n,).
            seed: one for all rows, or n; so for ``episode``, ``class_id`` and ``query``.
            episode: index of each episode within its seed.
            class_id: the episodes' classes; with several ways those of the ways, then ``ANY_WAY``.
            query: query image ids.
            supports: n sequences of K support image ids.

        Raises:
            ValueError: the lengths differ, or an episode (with one class) occurs twice.
        """
        stacked = Counts.stack([counts])
        n = len(stacked.fg_inter)
        numbers = {"seed": seed, "episode": episode, "class_id": class_id}
        return EpisodeCounts(
            **{name: _column(name, value, n, np.int64) for name, value in numbers.items()},
            **{name: getattr(stacked, name) for name in COUNT_NAMES},
            query=_column("query", query, n, np.str_),
            supports=np.empty((n, 0), np.str_)
            if supports is None
            else np.array(supports, np.str_).reshape(n, -1),
        )

    @staticmethod
    def join(tables: Sequence[EpisodeCounts]) -> EpisodeCounts:
        """Puts tables under each other and sorts the rows by (seed, episode, class).

        Raises:
            ValueError: no table, an episode in two of them, or different numbers of supports.
        """
        if not tables:
            raise ValueError("there is no episode to join: evaluate at least one")
        shots = {t.supports.shape[1] for t in tables}
        if len(shots) != 1:
            raise ValueError(f"tables of different numbers of supports cannot be joined: {sorted(shots)}")
        joined = EpisodeCounts(
            **{f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(EpisodeCounts)}
        )
        return joined._rows(np.lexsort((joined.class_id, joined.episode, joined.seed)))

    def select(self, index: npt.NDArray[Any]) -> EpisodeCounts:
        """Returns the rows at ``index``, a boolean mask or integers."""
        rows = self._rows(index)
        return rows if index.dtype == np.bool_ else replace(rows)  # checked: integers may repeat a row

    def _rows(self, index: npt.NDArray[Any]) -> EpisodeCounts:
        """Rows without a repeat: those of a valid table need no check, which takes longer than they do."""
        rows = object.__new__(EpisodeCounts)
        rows.__dict__.update({name: column[index] for name, column in self.columns().items()})
        return rows

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the columns by name, as they are stored beside a result."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _column(name: str, value: Any, n: int, dtype: type[Any]) -> npt.NDArray[Any]:
    column = np.asarray(value, dtype=dtype)
    if column.ndim == 0:
        return np.full(n, column, dtype=column.dtype)
    if column.shape != (n,):
        raise ValueError(f"{name} has shape {column.shape} for {n} episodes: give one value or {n}")
    return column


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
    return as_counts(_counted(predicted, true, ways))
