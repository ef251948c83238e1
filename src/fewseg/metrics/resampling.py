"""Scores of bootstrap resamples of an episode table: a resample is a weight an episode, or a query image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fewseg.metrics.counts import ANY_WAY, EpisodeCounts
from fewseg.metrics.scores import check_classes

Score = Literal["miou", "fb_iou", "dice"]
Over = Literal["episodes", "queries"]
Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.uint16]

_CHUNK = 64  # resamples drawn and multiplied at once


def resampled_scores(
    tables: Sequence[EpisodeCounts],
    classes: Sequence[int],
    resamples: int,
    seed: int,
    score: Score,
    over: Over = "episodes",
) -> list[Floats]:
    """Scores of ``resamples`` resamples of each table, the same drawn from all: (resamples,) each.

    A resample is a weight an episode, so that the sums of all resamples are one matrix product; integers
    below 2 ** 53 stay exact in it. Over "queries" an image is drawn with all its episodes, whatever their
    seed; an episode that does not say its query is an image of its own.
    """
    for table in tables:
        check_classes(table, classes)
    tables = [EpisodeCounts.join([t]) for t in tables]
    run_seeds = np.unique(tables[0].seed)
    totals = np.zeros((len(tables), resamples))
    of_seeds = [tables[0].select(tables[0].seed == s) for s in run_seeds]
    if over == "queries":
        numbers = _query_numbers(of_seeds)
        images = 1 + max(int(of_seed.max()) for of_seed in numbers)
        (of_images,) = _weights(seed, (images,), resamples)
        drawn = tuple(of_images[:, of_seed] for of_seed in numbers)
    else:
        drawn = _weights(seed, tuple(t.episodes for t in of_seeds), resamples)
    for run_seed, of_seed in zip(run_seeds, drawn, strict=True):
        columns = np.stack([_columns(t.select(t.seed == run_seed), classes, score) for t in tables])
        for start in range(0, resamples, _CHUNK):
            stop = min(start + _CHUNK, resamples)
            sums = of_seed[start:stop].astype(np.float64) @ columns
            totals[:, start:stop] += _mean_ratio(sums)
    return list(totals / len(run_seeds))


def _query_numbers(of_seeds: Sequence[EpisodeCounts]) -> list[npt.NDArray[np.intp]]:
    """The number of each episode's query image, the same in all seeds: (episodes,) for each table."""
    names = []
    for table in of_seeds:
        _, first = np.unique(table.episode, return_index=True)
        seed, episode, query = table.seed[first], table.episode[first], table.query[first]
        names.append([q or f"/{s}/{i}" for s, i, q in zip(seed, episode, query.tolist(), strict=True)])
    _, numbers = np.unique(np.concatenate(names), return_inverse=True)
    return np.split(numbers, np.cumsum([len(part) for part in names])[:-1])


@lru_cache(maxsize=2)
def _weights(seed: int, sizes: tuple[int, ...], resamples: int) -> tuple[Weights, ...]:
    """How often each of n is drawn in each resample: (resamples, n) for each n of ``sizes``.

    Kept for the next call: runs of one protocol, of which a table has hundreds, are resampled alike.
    """
    generator = np.random.default_rng(seed)
    return tuple(
        np.concatenate(
            [
                resample_weights(generator, min(_CHUNK, resamples - start), n)
                for start in range(0, resamples, _CHUNK)
            ]
        )
        for n in sizes
    )


def resample_weights(generator: np.random.Generator, rows: int, n: int) -> Weights:
    """How often each of n is drawn in each of ``rows`` resamples: (rows, n)."""
    drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint16)


def _columns(table: EpisodeCounts, classes: Sequence[int], score: Score) -> Floats:
    """What is summed over episodes: the numerators of the score's ratios, then their denominators.

    The ratios of mIoU and Dice are of the classes, 0 where no way of the episode is of it; those of FB-IoU
    are of foreground and background, over the rows that :func:`fewseg.metrics.scores.fb_iou` looks at.

    Args:
        table: of one seed, sorted by episode: all rows of an episode are neighbours.
        classes: C ids.
        score: which score.

    Returns:
        (episodes, 2 C) or, for FB-IoU, (episodes, 4).
    """
    if score == "fb_iou":
        any_way = table.class_id == ANY_WAY
        table = table.select(any_way) if np.any(any_way) else table
        rows = np.stack([table.fg_inter, table.bg_inter, table.fg_union, table.bg_union], axis=1)
    else:
        member = table.class_id[:, None] == np.asarray(classes)[None, :]
        above, below = table.fg_inter, table.fg_union
        if score == "dice":
            above, below = 2 * table.fg_inter, table.fg_pred + table.fg_true
        rows = np.concatenate([member * above[:, None], member * below[:, None]], axis=1)
    _, starts = np.unique(table.episode, return_index=True)
    episodes: Floats = np.add.reduceat(rows, starts, axis=0).astype(np.float64)
    return episodes


def _mean_ratio(sums: Floats) -> Floats:
    """Mean of the ratios of what was drawn (classes, or the two grounds): (..., 2 C) to (...)."""
    above, below = np.split(sums, 2, axis=-1)
    drawn = below > 0
    ratio = np.divide(above, below, out=np.zeros_like(above), where=drawn)
    result: Floats = ratio.sum(axis=-1) / np.maximum(drawn.sum(axis=-1), 1)
    return result
