"""Do the weights U_k of SCL's cross-guided module know which shot is good?

Source: SCL (Zhang et al. 2021), Eq. 15-17: U_k is the mean IoU of shot k's predictions of all K supports.
What it should be worth is the IoU of shot k's own prediction of the query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from fewseg.engine.executors import Pair
from fewseg.methods.fusion import CrossGuided
from fewseg.reports.figures.context import FigureContext, Record
from fewseg.reports.figures.drawing import error_bars, new_figure, style
from fewseg.reports.figures.intervals import Floats, mean_estimate, resampled, with_percentiles
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.figures.support_masks import is_scl
from fewseg.reports.numbers import Estimate

NAME = "shot-weights"
SHOTS = 5
BINS = 10
_POOLED_RESAMPLES = 200  # each ranks all shots anew
_MOST_POINTS = 4000


@dataclass(frozen=True, kw_only=True)
class ShotWeights:
    """U_k against what it predicts, over n episodes of K shots."""

    weights: Floats  # (n, K) U_k
    ious: Floats  # (n, K) IoU of shot k's own prediction of the query
    # Spearman's rank correlation over all n K shots. It also shows that some classes are easier than others,
    # for supports and queries alike
    pooled: Estimate
    # mean over the episodes of the rank correlation between the K shots of one episode: what the weights,
    # which only compare shots of one episode, can use
    within: Estimate
    # in how many episodes both U_k and the IoU differ between shots; the others have no rank correlation and
    # are left out of ``within``
    ranked: int


def correlated(weights: Floats, ious: Floats, *, seed: int = 0) -> ShotWeights:
    """Correlates U_k (n, K) with the IoU (n, K); intervals are over episodes."""
    each = within_episodes(weights, ious)
    known = each[np.isfinite(each)]
    if not len(known):
        raise ValueError("the shots of no episode differ: nothing can be ranked")

    def pooled(drawn: Floats) -> Floats:
        rows = [np.repeat(np.arange(len(row)), row.astype(np.int64)) for row in drawn]
        return np.array([spearman(weights[row].ravel(), ious[row].ravel()) for row in rows])

    samples = resampled(pooled, len(weights), seed=seed, resamples=_POOLED_RESAMPLES)
    return ShotWeights(
        weights=weights,
        ious=ious,
        pooled=with_percentiles(spearman(weights.ravel(), ious.ravel()), samples),
        within=mean_estimate(known, seed=seed),
        ranked=len(known),
    )


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where all values of one are equal."""
    return float(_pearson(rankdata(a)[None], rankdata(b)[None])[0])


def within_episodes(a: Floats, b: Floats) -> Floats:
    """Spearman's rank correlation of each row of (n, K); NaN where all values of a row are equal."""
    return _pearson(rankdata(a, axis=1), rankdata(b, axis=1))


def _pearson(a: Floats, b: Floats) -> Floats:
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    below = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    found: Floats = np.divide((a * b).sum(axis=1), below, out=np.full(len(a), np.nan), where=below > 0)
    return found


@dataclass(frozen=True, kw_only=True)
class WeightBin:
    """The shots whose U_k lies in [low, high), and their mean IoU."""

    low: float
    high: float
    shots: int
    iou: Estimate


def binned(weights: Floats, ious: Floats, *, seed: int = 0) -> list[WeightBin]:
    """Mean IoU of the shots in each of ``BINS`` equal bins of U_k in [0, 1]; empty bins are left out."""
    place = np.clip((weights.ravel() * BINS).astype(np.int64), 0, BINS - 1)
    bins = []
    for i in np.unique(place).tolist():
        inside = ious.ravel()[place == i]
        mean = mean_estimate(inside, seed=seed)
        bins.append(WeightBin(low=i / BINS, high=(i + 1) / BINS, shots=len(inside), iou=mean))
    return bins


def make(context: FigureContext) -> None:
    """Makes one plot of all checkpoints of SCL."""
    found: dict[str, dict[int, ShotWeights]] = {}
    records: list[Record] = []
    for fold, models in context.models_by_fold(NAME, is_scl, "checkpoint of SCL"):
        for model in models:
            with context.attempt(f"{NAME}, {model.title}"):
                pairs = weights_of(model, context.options.episodes, context.progress)
                one = correlated(*pairs, seed=context.options.seed)
                found.setdefault(model.label, {})[fold] = one
                records += _records(model, one)
    if found:
        panels = {
            f"{label}, fold {fold}": one for label, by_fold in found.items() for fold, one in by_fold.items()
        }
        arrays = {f"{n} {what}": getattr(v, what) for n, v in panels.items() for what in ("weights", "ious")}
        context.save(draw(panels, context.dataset), NAME, records, **arrays)
    for label, by_fold in found.items():
        claim = f"U_k recognises good shots ({label})"
        pooled = {fold: (one.pooled, one.weights.size) for fold, one in by_fold.items()}
        context.claim(claim, context.dataset, "rank correlation of U_k and IoU over all shots", pooled)
        within = {fold: (one.within, one.ranked) for fold, one in by_fold.items()}
        quantity = "mean rank correlation of U_k and IoU within an episode"
        context.claim(claim, context.dataset, quantity, within)


def weights_of(model: FigureModel, per_seed: int | None, progress: bool) -> tuple[Floats, Floats]:
    """U_k and the IoU of shot k's own prediction of the query, (n, K) each; every pair is scored once."""
    episodes = [spec for _, spec in model.episodes(SHOTS, per_seed)]
    pairs: set[Pair] = set()
    for spec in episodes:
        targets = (*spec.supports, spec.query)
        pairs |= {(spec.class_id, k, target) for k in spec.supports for target in targets}
    ious = model.evaluator(progress=progress).pair_ious(pairs, CrossGuided())
    weights = [
        [np.mean([ious[spec.class_id, k, i] for i in spec.supports]) for k in spec.supports]
        for spec in episodes
    ]
    true = [[ious[spec.class_id, k, spec.query] for k in spec.supports] for spec in episodes]
    return np.array(weights, dtype=np.float64), np.array(true, dtype=np.float64)


def _records(model: FigureModel, found: ShotWeights) -> list[Record]:
    def record(quantity: str, estimate: Estimate, count: int, **bin: float) -> Record:
        return {**model.columns, "quantity": quantity, **bin, **asdict(estimate), "count": count}

    return [
        record("rank correlation over all shots", found.pooled, found.weights.size),
        record("mean rank correlation within an episode", found.within, found.ranked),
        *(
            record(
                "mean IoU of the shots with U_k in the bin",
                bin.iou,
                bin.shots,
                u_from=bin.low,
                u_below=bin.high,
            )
            for bin in binned(found.weights, found.ious)
        ),
    ]


def draw(found: Mapping[str, ShotWeights], dataset: str) -> Figure:
    """One panel a checkpoint: a point a shot, and the mean of each bin with its interval."""
    figure = new_figure(3.2 * len(found) + 0.4, 3.6)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        weights, ious = 100 * one.weights.ravel(), 100 * one.ious.ravel()
        step = max(1, len(weights) // _MOST_POINTS)
        axes.scatter(weights[::step], ious[::step], s=3, color="0.65", linewidth=0, rasterized=True)
        bins = binned(one.weights, one.ious)
        axes.errorbar(
            [50 * (bin.low + bin.high) for bin in bins],
            [100 * bin.iou.value for bin in bins],
            yerr=error_bars([bin.iou for bin in bins], 100),
            capsize=2,
            label="mean of a bin",
            **style(0),
        )
        title = f"rank correlation {one.pooled.value:.2f}, within an episode {one.within.value:.2f}"
        axes.set_title(f"{name}\n{title}", fontsize=8)
        axes.set_xlabel("U_k: mean IoU on the supports (%)", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
    panels[0].set_ylabel("IoU of shot k's prediction of the query (%)", fontsize=8)
    figure.suptitle(f"{dataset}: weights of the cross-guided module, {SHOTS}-shot", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=7)
    return figure
