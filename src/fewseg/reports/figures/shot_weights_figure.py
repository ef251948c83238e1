"""CGM's weights U_k against the true IoU of each shot's own prediction of the query."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from fewseg.engine.executors import Pair
from fewseg.methods.fusion import CrossGuided
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig
from fewseg.reports.figures.data_files import Row
from fewseg.reports.figures.intervals import Floats
from fewseg.reports.figures.shot_weights import ShotWeights, binned, correlated
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import colour, line, marker, new_figure
from fewseg.reports.figures.subjects import Opened, Subject

NAME = "shot-weights"
SHOTS = 5
_MOST_POINTS = 4000


def fits(subject: Subject) -> bool:
    """Whether it is SCL, whose module this is."""
    return isinstance(subject.recipe.method, SCLPFENetConfig | SCLCANetConfig)


def make(study: Study) -> None:
    """Makes one plot of all checkpoints of SCL."""
    found: dict[str, ShotWeights] = {}
    by_label: dict[str, dict[int, ShotWeights]] = {}
    dataset = ""
    rows: list[Row] = []
    for fold, subjects in study.wanted(NAME, fits, "checkpoint of SCL"):
        for subject in subjects:
            with study.attempt(f"{NAME}, {subject.label} fold {fold}"):
                opened = study.open(subject)
                weights, ious = weights_of(opened, study.episodes, study.progress)
                one = correlated(weights, ious, seed=study.seed)
                found[f"{subject.label}, fold {fold}"] = one
                by_label.setdefault(subject.label, {})[fold] = one
                rows += _rows(subject, one)
                dataset = opened.data.dataset
    if found:
        study.save(draw(found, dataset), NAME, rows)
        arrays = {f"{n} {what}": getattr(v, what) for n, v in found.items() for what in ("weights", "ious")}
        study.save_arrays(NAME, **arrays)
        _claims(study, dataset, by_label)


def weights_of(opened: Opened, per_seed: int | None, progress: bool) -> tuple[Floats, Floats]:
    """U_k and the IoU of shot k's own prediction of the query, (n, K) each; every pair is scored once.

    Both IoUs are the foreground's at the network's input size, as CGM sees them.
    """
    episodes = [spec for _, spec in opened.episodes(SHOTS, per_seed)]
    pairs: set[Pair] = set()
    for spec in episodes:
        targets = (*spec.supports, spec.query)
        pairs |= {(spec.class_id, k, target) for k in spec.supports for target in targets}
    ious = opened.evaluator(progress=progress).pair_ious(pairs, CrossGuided())
    weights = [
        [np.mean([ious[spec.class_id, k, i] for i in spec.supports]) for k in spec.supports]
        for spec in episodes
    ]
    true = [[ious[spec.class_id, k, spec.query] for k in spec.supports] for spec in episodes]
    return np.array(weights, dtype=np.float64), np.array(true, dtype=np.float64)


def _rows(subject: Subject, found: ShotWeights) -> list[Row]:
    said = subject.said
    rows: list[Row] = [
        {
            **said,
            "quantity": name,
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "count": count,
        }
        for name, value, count in (
            ("rank correlation over all shots", found.pooled, found.weights.size),
            ("mean rank correlation within an episode", found.within, found.ranked),
        )
    ]
    return rows + [
        {
            **said,
            "quantity": "mean IoU of the shots with U_k in the bin",
            "u_from": bin.low,
            "u_below": bin.high,
            "value": bin.iou.value,
            "low": bin.iou.low,
            "high": bin.iou.high,
            "count": bin.shots,
        }
        for bin in binned(found.weights, found.ious)
    ]


def _claims(study: Study, dataset: str, found: Mapping[str, Mapping[int, ShotWeights]]) -> None:
    for label, by_fold in found.items():
        claim = f"U_k tells good shots ({label})"
        pooled = {fold: (one.pooled, one.weights.size) for fold, one in by_fold.items()}
        study.claim(claim, dataset, "rank correlation of U_k and IoU over all shots", pooled)
        within = {fold: (one.within, one.ranked) for fold, one in by_fold.items()}
        study.claim(claim, dataset, "mean rank correlation of U_k and IoU within an episode", within)


def draw(found: Mapping[str, ShotWeights], dataset: str) -> Figure:
    """One panel a checkpoint: a point a shot, and the mean of each bin with its interval."""
    figure = new_figure(3.2 * len(found) + 0.4, 3.6)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        flat = one.weights.ravel(), one.ious.ravel()
        step = max(1, len(flat[0]) // _MOST_POINTS)
        axes.scatter(
            100 * flat[0][::step], 100 * flat[1][::step], s=3, color="0.65", linewidth=0, rasterized=True
        )
        bins = binned(one.weights, one.ious)
        means = [bin.iou for bin in bins]
        axes.errorbar(
            [50 * (bin.low + bin.high) for bin in bins],
            [100 * m.value for m in means],
            yerr=[[100 * (m.value - m.low) for m in means], [100 * (m.high - m.value) for m in means]],
            color=colour(0),
            marker=marker(0),
            linestyle=line(0),
            capsize=2,
            label="mean of a bin",
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
