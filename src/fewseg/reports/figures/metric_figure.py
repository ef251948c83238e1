"""SRPNet's Fig. 4: support features under the cosine and under fidelity.

A point is a foreground cell of a support, a few drawn from each. Every network is shown under both metrics,
so that what the metric does to given features is told from what training with it does to the features. Where
no prototype method is given, the features are those that the training-free matcher makes of a frozen trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.prototypical import EMBEDDING, PrototypeSegmenter
from fewseg.ops.masks import foreground_cells
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import Row
from fewseg.reports.figures.embedding import Embedding, embed, scatter, separation_row
from fewseg.reports.figures.intervals import Floats
from fewseg.reports.figures.silhouette import MetricName, silhouette_gain
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import new_figure
from fewseg.reports.figures.subjects import Opened, Shot, Subject, distinct_shots, matcher_on
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

NAME = "metric-tsne"
CELLS = 3
"""Cells drawn from a support."""
_METRICS: tuple[MetricName, ...] = ("cosine", "fidelity")


def _compares_prototypes(subject: Subject) -> bool:
    return hasattr(subject.recipe.method, "metric")


def fits(subject: Subject) -> bool:
    """Whether it compares prototypes, or has a frozen trunk for the matcher."""
    return _compares_prototypes(subject) or subject.recipe.method.backbone.fixed


@dataclass(frozen=True, kw_only=True)
class SampledCells:
    """Cells of supports.

    Attributes:
        points: (n, C) embedded features.
        labels: (n,) classes.
        groups: (n,) which support each is of, 0 ..
    """

    points: Floats
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


def drawn_cells(maps: Tensor, masks: Tensor, shots: Sequence[Shot], *, seed: int) -> list[Tensor]:
    """Draws a few foreground cells of each of n supports, by (seed, class, image) alone.

    Args:
        maps: (n, C, h, w).
        masks: (n, H, W) in {0, 1, 255}.
        shots: the n supports.
        seed: part of the draw.

    Returns:
        n tensors (up to ``CELLS``, C).
    """
    cells = foreground_cells(masks, (int(maps.shape[-2]), int(maps.shape[-1])))[:, 0]
    found = []
    for place, shot in enumerate(shots):
        inside = (cells[place].flatten() >= 0.5).nonzero().flatten().tolist()
        draws = Draws("figure", NAME, seed, shot.class_id, shot.image)
        chosen = draws.sample(inside, min(CELLS, len(inside)))
        found.append(maps[place].flatten(1)[:, list(chosen)].T.float().cpu())
    return found


def cells_of(opened: Opened, shots: Sequence[Shot], *, seed: int, progress: bool) -> SampledCells:
    """Cells of supports as a prototype method embeds them."""
    method = opened.method
    assert isinstance(method, PrototypeSegmenter)
    waiting = list(shots)

    def look(features: Features, masks: Tensor) -> list[Tensor]:
        chunk = [waiting.pop(0) for _ in range(len(masks))]
        return drawn_cells(method.embed(features)[EMBEDDING], masks, chunk, seed=seed)

    what = f"cells of {opened.subject.label}"
    each = [cells for batch in opened.over_shots(shots, look, what, progress=progress) for cells in batch]
    counts = [len(cells) for cells in each]
    return SampledCells(
        points=np.asarray(torch.cat(each).numpy(), dtype=np.float64),
        labels=np.repeat([shot.class_id for shot in shots], counts),
        groups=np.repeat(np.arange(len(shots)), counts),
    )


def make(study: Study) -> None:
    """Makes a figure for each fold, and one of the silhouettes of all folds."""
    rows: list[Row] = []
    gains: dict[str, dict[int, tuple[Estimate, int]]] = {}
    groups: dict[str, dict[str, Estimate]] = {}
    dataset = ""
    for fold, subjects in study.wanted(NAME, fits, "checkpoint of a prototype method or with a frozen trunk"):
        with study.attempt(f"{NAME}, fold {fold}"):
            own = [s for s in subjects if _compares_prototypes(s)]
            opened = [study.open(s) for s in own] or [matcher_on(study.open(subjects[0]))]
            panels: dict[tuple[str, MetricName], Embedding] = {}
            for one in opened:
                label = one.subject.label
                shots = list(distinct_shots(one.episodes(1, study.episodes)))
                cells = cells_of(one, shots, seed=study.seed, progress=study.progress)
                for metric in _METRICS:
                    found = embed(cells.points, cells.labels, metric, groups=cells.groups, seed=study.seed)
                    panels[label, metric] = found
                    rows.append(separation_row(found, method=label, fold=fold, supports=len(shots)))
                pair = [panels[label, metric].space for metric in _METRICS]
                gains.setdefault(label, {})[fold] = (silhouette_gain(*pair), len(cells.labels))
                groups[f"{label}\nfold {fold}"] = {m: panels[label, m].space.silhouette for m in _METRICS}
            _of_fold(study, fold, panels, opened[0])
            dataset = opened[0].data.dataset
    if groups:
        study.save(draw_silhouettes(groups, dataset), "metric-silhouettes", rows)
        for label, by_fold in gains.items():
            claim = f"fidelity separates better than cosine ({label})"
            quantity = "silhouette of the same cells by fidelity less that by cosine"
            study.claim(claim, dataset, quantity, by_fold)


def _of_fold(
    study: Study, fold: int, panels: Mapping[tuple[str, MetricName], Embedding], opened: Opened
) -> None:
    names = {c: opened.data.split.class_names[c] for c in opened.data.split.novel}
    figure = draw_panels(panels, names)
    figure.suptitle(f"{opened.data.dataset} fold {fold}: foreground cells of supports, t-SNE", fontsize=9)
    rows: list[Row] = [
        {
            "method": label,
            "metric": metric,
            "class": names[int(class_id)],
            "x": float(point[0]),
            "y": float(point[1]),
        }
        for (label, metric), e in panels.items()
        for class_id, point in zip(e.labels, e.flat, strict=True)
    ]
    study.save(figure, f"{NAME}-fold{fold}", rows)


def draw_panels(panels: Mapping[tuple[str, MetricName], Embedding], names: dict[int, str]) -> Figure:
    """A row a network, a column a metric."""
    labels = list(dict.fromkeys(label for label, _ in panels))
    figure = new_figure(6.4, 3.0 * len(labels) + 0.6)
    axes = figure.subplots(len(labels), len(_METRICS), squeeze=False)
    for (label, metric), e in panels.items():
        scatter(axes[labels.index(label)][_METRICS.index(metric)], e, names, f"{label}: {metric}")
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(names), fontsize=8)
    return figure


def draw_silhouettes(groups: Mapping[str, Mapping[str, Estimate]], dataset: str) -> Figure:
    """Silhouettes of the same features under both metrics."""
    figure = new_figure(2.5 + 0.9 * len(groups), 3.2)
    axes = figure.subplots()
    grouped_bars(
        axes, groups, {m: f"by {m}" for m in _METRICS}, scale=1, unit="silhouette in the feature space"
    )
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title(f"{dataset}: foreground cells of supports", fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
