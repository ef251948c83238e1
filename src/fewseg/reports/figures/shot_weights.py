"""Correlation of the weights U_k of SCL's cross-guided module with the quality of each shot.

Source: SCL (Zhang et al. 2021), Eq. 15-17: U_k is the mean IoU of shot k's predictions of all K supports.
The quality of a shot is the IoU of its own prediction of the query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import rankdata

from fewseg.methods.fusion import CrossGuided
from fewseg.reports.figures.drawing import error_bars, legend_below, panels, style
from fewseg.reports.figures.intervals import Floats, mean_estimate, resampled, with_percentiles
from fewseg.reports.figures.model import FigureModel
from fewseg.reports.figures.support_masks import SCLFigure
from fewseg.reports.numbers import Estimate

SHOTS = 5
BINS = 10
_POOLED_RESAMPLES = 200  # each ranks all shots anew
_MOST_POINTS = 4000


@dataclass(frozen=True, kw_only=True)
class ShotWeights:
    """U_k against the IoU of each shot, over n episodes of K shots."""

    weights: Floats  # (n, K) U_k
    ious: Floats  # (n, K) IoU of shot k's own prediction of the query
    # Spearman's rank correlation over all n K shots. It also shows that some classes are easier than others,
    # for supports and queries alike
    pooled: Estimate
    # mean over the episodes of the rank correlation between the K shots of one episode, which the weights
    # compare
    within: Estimate
    # number of episodes in which both U_k and the IoU differ between shots; ``within`` leaves out the others
    ranked: int


def correlated(weights: Floats, ious: Floats, *, seed: int = 0) -> ShotWeights:
    """Correlates U_k (n, K) with the IoU (n, K); intervals are over episodes."""
    correlations = rank_correlations(weights, ious)
    finite = correlations[np.isfinite(correlations)]
    if not len(finite):
        raise ValueError("the shots of no episode differ: nothing can be ranked")

    def pooled(drawn: Floats) -> Floats:
        rows = [np.repeat(np.arange(len(row)), row.astype(np.int64)) for row in drawn]
        return np.array(
            [rank_correlations(*(v[row].reshape(1, -1) for v in (weights, ious)))[0] for row in rows]
        )

    ones = np.ones((1, len(weights)))
    samples = resampled(pooled, len(weights), seed=seed, resamples=_POOLED_RESAMPLES)
    return ShotWeights(
        weights=weights,
        ious=ious,
        pooled=with_percentiles(float(pooled(ones)[0]), samples),
        within=mean_estimate(finite, seed=seed),
        ranked=len(finite),
    )


def rank_correlations(a: Floats, b: Floats) -> Floats:
    """Spearman's correlation of each row of (n, K), mean ranks for ties, NaN for equal values."""
    a, b = (rankdata(v, axis=1) for v in (a, b))
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    norms = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    correlations: Floats = np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), np.nan), where=norms > 0)
    return correlations


def binned(weights: Floats, ious: Floats) -> dict[int, tuple[Estimate, int]]:
    """Mean IoU and number of shots of each of ``BINS`` equal bins of U_k in [0, 1] that is not empty."""
    bins = np.clip((weights.ravel() * BINS).astype(np.int64), 0, BINS - 1)
    ious_of = {i: ious.ravel()[bins == i] for i in np.unique(bins).tolist()}
    return {i: (mean_estimate(values), len(values)) for i, values in ious_of.items()}


def weights_of(model: FigureModel) -> tuple[Floats, Floats]:
    """U_k and the IoU of shot k's own prediction of the query, (n, K) each; every pair is scored once."""
    specs = [spec for _, spec in model.episodes(SHOTS)]
    targets = [(*spec.supports, spec.query) for spec in specs]
    pairs = {
        (s.class_id, k, i)
        for s, images in zip(specs, targets, strict=True)
        for k in s.supports
        for i in images
    }
    ious = model.evaluator().pair_ious(pairs, CrossGuided())
    rows = [
        [[ious[spec.class_id, k, i] for i in images] for k in spec.supports]
        for spec, images in zip(specs, targets, strict=True)
    ]
    scores = np.array(rows, dtype=np.float64)  # (n, K, K + 1)
    return scores[..., :-1].mean(axis=2), scores[..., -1]


class ShotWeightFigure(SCLFigure[ShotWeights]):
    """One plot of all checkpoints of SCL."""

    name = "shot-weights"
    shows = "the cross-guided module's weights against the true IoU of each shot (SCL Eq. 16)"

    def measure(self, model: FigureModel) -> ShotWeights:
        """Measures the two correlations and the bins."""
        result = correlated(*weights_of(model), seed=self.options.seed)

        def note(quantity: str, estimate: Estimate, count: int, **bin: float) -> None:
            numbers = {**bin, **asdict(estimate), "count": count}
            self.records.append({**model.columns, "quantity": quantity, **numbers})

        claim, what = f"U_k recognises good shots ({model.label})", "rank correlation of U_k and IoU"
        pooled, within = (result.pooled, result.weights.size), (result.within, result.ranked)
        self.claim(model.fold, claim, f"{what} over all shots", pooled)
        self.claim(model.fold, claim, f"mean {what} within an episode", within)
        note("rank correlation over all shots", *pooled)
        note("mean rank correlation within an episode", *within)
        for i, (mean, shots) in binned(result.weights, result.ious).items():
            ends = {"u_from": i / BINS, "u_below": (i + 1) / BINS}
            note("mean IoU of the shots with U_k in the bin", mean, shots, **ends)
        return result

    def draw_all(self, measured: Mapping[FigureModel, ShotWeights]) -> None:
        """Draws a panel per checkpoint: a point per shot, and the mean of each bin with its interval."""
        title = f"{self.context.dataset}: weights of the cross-guided module, {SHOTS}-shot"
        figure, grid = panels(3.2 * len(measured) + 0.4, 3.6, 1, len(measured), title=title, sharey=True)
        for axes, model in zip(grid[0], sorted(measured, key=lambda m: m.place), strict=True):
            result = measured[model]
            weights, ious = 100 * result.weights.ravel(), 100 * result.ious.ravel()
            step = max(1, len(weights) // _MOST_POINTS)
            axes.scatter(weights[::step], ious[::step], s=3, color="0.65", linewidth=0, rasterized=True)
            bins = binned(result.weights, result.ious)
            means = [mean for mean, _ in bins.values()]
            axes.errorbar(
                [100 * (i + 0.5) / BINS for i in bins],
                [100 * mean.value for mean in means],
                yerr=error_bars(means, 100),
                capsize=2,
                label="mean of a bin",
                **style(0),
            )
            score = f"rank correlation {result.pooled.value:.2f}, within an episode {result.within.value:.2f}"
            axes.set_title(f"{model.label}, fold {model.fold}\n{score}", fontsize=8)
            axes.set_xlabel("U_k: mean IoU on the supports (%)", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 100)
        grid[0][0].set_ylabel("IoU of shot k's prediction of the query (%)", fontsize=8)
        legend_below(figure, fontsize=7)
        arrays = {
            f"{m.label}, fold {m.fold} {what}": getattr(result, what)
            for m, result in measured.items()
            for what in ("weights", "ious")
        }
        self.context.save(figure, self.name, self.records, arrays)
