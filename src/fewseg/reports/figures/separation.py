"""How well classes separate: t-SNE and silhouettes of support cells (SRPNet 4) and prototypes (SD-AANet 9).

Cells: a point is a foreground cell of a support, a few drawn from each. Every network is shown under both
metrics, so that what the metric does to given features is distinct from what training with it does to them.
Without a prototype method the features are those of the training-free matcher on a frozen trunk.

Prototypes: the paper draws 5 000 supports a fold. Many of those are the same image of the same class, whose
prototype is one point however often it is drawn: points are the distinct ones, and the data state how often
each was drawn.

Intervals are of a delete-one-group jackknife (Efron & Tibshirani 1993, ch. 11), a group being the points of
one image. A bootstrap draws images twice: points of two copies are as near to one another as points of one
image are, so that there are twice as many such pairs in the mean distance to the own class, and the
silhouettes of the resamples lie above the one that they should surround. Without an image no pair is new. The
jackknife's variance is right where classes separate, and up to twice too large where they do not (Efron &
Stein 1981): such intervals are wide, never narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.prototypical import EMBEDDING
from fewseg.ops.masks import foreground_cells
from fewseg.reports.figures.context import ByFold, FigureContext, Record, with_prefix
from fewseg.reports.figures.drawing import COLOURS, MARKERS, grouped_bars, legend_below, new_figure
from fewseg.reports.figures.intervals import Floats, with_jackknife
from fewseg.reports.figures.model import TABLE_III, FigureModel, Support, distinct_supports, label_of
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

CELLS_NAME, PROTOTYPES_NAME = "metric-tsne", "prototype-tsne"
CELLS = 3
"""Cells drawn from a support."""

Ints = npt.NDArray[Any]
PointMetric = Literal["cosine", "fidelity", "euclidean"]

_CELL_METRICS: tuple[PointMetric, ...] = ("cosine", "fidelity")
_PROTOTYPE_METRIC: PointMetric = "cosine"  # of SD-AANet's Eq. 13
_PERPLEXITY = 30.0  # scikit-learn's default
_PROTOTYPE_CLAIMS = (
    ("SDPM makes prototypes more compact", "sdaanet_baseline", "sdaanet_sdpm"),
    ("SDPM makes prototypes more compact, with SAAM", "sdaanet_saam", "sdaanet"),
    ("SAAM makes prototypes more discriminative", "sdaanet_baseline", "sdaanet_saam"),
)


def distances(points: npt.ArrayLike, metric: PointMetric) -> Floats:
    """Distances of n points: (n, d) to (n, n).

    "cosine" is 1 - cos, in [0, 2]; "fidelity" 1 - cos^2, in [0, 1] (SRPNet, Ding et al. 2022, Eq. 5-6, turned
    into a distance); "euclidean" the length of the difference. A zero vector is at right angles to all
    others.
    """
    values = np.asarray(points, dtype=np.float64)
    if metric == "euclidean":
        squares = np.square(values).sum(axis=1)
        found = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0.0))
    else:
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        unit = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
        cosine = np.clip(unit @ unit.T, -1.0, 1.0)
        found = 1.0 - (np.square(cosine) if metric == "fidelity" else cosine)
    np.fill_diagonal(found, 0.0)
    return np.asarray(found, dtype=np.float64)


def silhouette(apart: Floats, labels: Ints) -> float:
    """Mean silhouette, in [-1, 1], of points with distances (n, n) and classes (n,).

    That of a point is (b - a) / max(a, b), a being its mean distance to its own class and b that to the
    nearest other class; of a point alone in its class it is 0.

    Source: Rousseeuw (1987), as scikit-learn computes it.
    """
    own, member = _memberships(labels)
    if member.shape[1] < 2:
        raise ValueError("a silhouette needs points of at least two classes")
    return _mean_silhouette(apart @ member, member.sum(axis=0), own)


def _memberships(labels: Ints) -> tuple[Ints, Floats]:
    """The class of each point, 0 .., and the same as (n, classes) of 0 and 1."""
    classes, own = np.unique(labels, return_inverse=True)
    return own, np.eye(len(classes))[own]


def _mean_silhouette(sums: Floats, sizes: Floats, own: Ints) -> float:
    """From each point's summed distances to each class (m, classes), and the sizes of the classes."""
    index = np.arange(len(own))
    others = sizes[own] - 1
    inside = np.divide(sums[index, own], others, out=np.zeros(len(own)), where=others > 0)
    means = np.divide(sums, sizes, out=np.full_like(sums, np.inf), where=sizes > 0)
    means[index, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    known = (others > 0) & (larger > 0)
    return float(np.divide(outside - inside, larger, out=np.zeros(len(own)), where=known).mean())


def silhouettes_without(apart: Floats, labels: Ints, groups: Ints) -> Floats:
    """The mean silhouette without each group (n,), 0 .., in turn; NaN where one class is left."""
    own, member = _memberships(labels)
    sums, sizes = apart @ member, member.sum(axis=0)
    found = np.full(int(groups.max()) + 1, np.nan)
    for group in range(len(found)):
        out = groups == group
        left = sizes - member[out].sum(axis=0)
        if np.count_nonzero(left) > 1:
            rest = sums[~out] - apart[np.ix_(~out, out)] @ member[out]
            found[group] = _mean_silhouette(rest, left, own[~out])
    return found


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far classes lie apart, in one space."""

    silhouette: Estimate  # mean silhouette with its interval over groups of points
    without: Floats  # (groups,) the silhouette without each group
    within: float  # mean distance of two points of one class (mean over the points)
    between: float  # mean distance of two points of different classes


def separation(apart: Floats, labels: Ints, groups: Ints | None = None) -> Separation:
    """Scores points by their distances (n, n)."""
    value = silhouette(apart, labels)
    without = silhouettes_without(apart, labels, np.arange(len(labels)) if groups is None else groups)
    same = labels[:, None] == labels[None]
    pairs = same & ~np.eye(len(labels), dtype=bool)
    return Separation(
        silhouette=with_jackknife(value, without),
        without=without,
        within=float(apart[pairs].mean()) if pairs.any() else 0.0,
        between=float(apart[~same].mean()),
    )


def silhouette_gain(a: Separation, b: Separation) -> Estimate:
    """Silhouette b less silhouette a of the same points and groups in two spaces, paired group by group."""
    return with_jackknife(b.silhouette.value - a.silhouette.value, b.without - a.without)


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Labelled points in two dimensions, and how well their classes separate."""

    metric: PointMetric  # of the distances in the feature space
    flat: Floats  # (n, 2), t-SNE's; without unit
    labels: Ints  # (n,) classes
    space: Separation  # separation in the feature space under the metric
    plane: Separation  # separation in ``flat`` under the Euclidean distance

    @property
    def record(self) -> Record:
        """Its numbers as columns of a table."""
        record: Record = {"metric": self.metric, "points": len(self.labels)}
        for space, name in ((self.space, "feature_space"), (self.plane, "tsne_plane")):
            record |= with_prefix(f"silhouette_{name}", space.silhouette)
            record |= {f"distance_within_{name}": space.within, f"distance_between_{name}": space.between}
        return record


def embed(
    points: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: PointMetric,
    *,
    groups: Ints | None = None,
    seed: int = 0,
) -> Embedding:
    """Embeds n >= 3 points (n, d) of at least two classes by t-SNE on their distances."""
    from sklearn.manifold import TSNE

    classes = np.asarray(labels)
    if len(classes) < 3:
        raise ValueError(f"t-SNE needs at least 3 points, got {len(classes)}: evaluate more episodes")
    apart = distances(points, metric)
    perplexity = min(_PERPLEXITY, (len(classes) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", random_state=seed, perplexity=perplexity)
    flat = np.asarray(tsne.fit_transform(apart), dtype=np.float64)
    return Embedding(
        metric=metric,
        flat=flat,
        labels=classes,
        space=separation(apart, classes, groups),
        plane=separation(distances(flat, "euclidean"), classes, groups),
    )


def scatter(axes: Axes, embedding: Embedding, names: Mapping[int, str], title: str) -> None:
    """Draws an embedding: a colour and a marker for each class, the silhouettes below the title."""
    for i, class_id in enumerate(sorted(names)):
        own = embedding.flat[embedding.labels == class_id]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=12,
            marker=MARKERS[i % len(MARKERS)],
            facecolor=COLOURS[i % len(COLOURS)],
            edgecolor="black",
            linewidth=0.25,
            label=names[class_id],
        )
    space, plane = embedding.space.silhouette.value, embedding.plane.silhouette.value
    score = f"silhouette {space:.3f} by {embedding.metric}, {plane:.3f} in the plane"
    axes.set_title(f"{title}\n{score}", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")


def _novel_names(model: FigureModel) -> dict[int, str]:
    split = model.data.split
    return {c: split.class_names[c] for c in split.novel}


# ---- cells under both metrics


def sampled_cells(maps: Tensor, masks: Tensor, supports: Sequence[Support], *, seed: int) -> list[Tensor]:
    """Draws a few foreground cells of each of n supports, by (seed, class, image) alone."""
    cells = foreground_cells(masks, (int(maps.shape[-2]), int(maps.shape[-1])))[:, 0]
    found = []
    for place, support in enumerate(supports):
        inside = (cells[place].flatten() >= 0.5).nonzero().flatten().tolist()
        draws = Draws("figure", CELLS_NAME, seed, support.class_id, support.image)
        chosen = draws.sample(inside, min(CELLS, len(inside)))
        found.append(maps[place].flatten(1)[:, list(chosen)].T.float().cpu())
    return found


def cells_of(
    model: FigureModel, supports: Sequence[Support], *, seed: int, progress: bool
) -> tuple[Floats, Ints, Ints]:
    """Cells as a prototype method embeds them (n, C), their classes (n,) and supports (n,), 0 .. ."""
    method: Any = model.method
    waiting = list(supports)

    def look(features: Features, masks: Tensor) -> list[Tensor]:
        chunk = [waiting.pop(0) for _ in range(len(masks))]
        return sampled_cells(method.embed(features)[EMBEDDING], masks, chunk, seed=seed)

    batches = model.over_supports(supports, look, f"cells of {model.label}", progress=progress)
    each = [cells for batch in batches for cells in batch]
    counts = [len(cells) for cells in each]
    labels = np.repeat([support.class_id for support in supports], counts)
    points = np.asarray(torch.cat(each).numpy(), dtype=np.float64)
    return points, labels, np.repeat(np.arange(len(supports)), counts)


def make_cells(context: FigureContext) -> None:
    """Makes a figure of cells for each fold, and one of the silhouettes of all folds."""
    records: list[Record] = []
    gains: dict[str, dict[int, tuple[Estimate, int]]] = {}
    groups: dict[str, dict[str, Estimate]] = {}

    def compares_prototypes(model: FigureModel) -> bool:
        return hasattr(model.recipe.method, "metric")

    def fits(model: FigureModel) -> bool:
        return compares_prototypes(model) or model.recipe.method.backbone.fixed

    needed = "checkpoint of a prototype method or with a frozen trunk"
    for fold, models in context.models_by_fold(CELLS_NAME, fits, needed):
        with context.attempt(f"{CELLS_NAME}, fold {fold}"):
            shown = [m for m in models if compares_prototypes(m)]
            for model in shown:
                model.load()
            shown = shown or [models[0].matcher()]
            panels: dict[str, dict[PointMetric, Embedding]] = {}
            for model in shown:
                supports = list(distinct_supports(model.episodes(1, context.options.episodes)))
                seed = context.options.seed
                points, labels, cell_of = cells_of(model, supports, seed=seed, progress=context.progress)
                embeddings = {
                    metric: embed(points, labels, metric, groups=cell_of, seed=seed)
                    for metric in _CELL_METRICS
                }
                panels[model.label] = embeddings
                about = {"method": model.label, "fold": fold, "supports": len(supports)}
                records += [about | embedding.record for embedding in embeddings.values()]
                gain = silhouette_gain(*(embeddings[metric].space for metric in _CELL_METRICS))
                gains.setdefault(model.label, {})[fold] = (gain, len(labels))
                groups[f"{model.label}\nfold {fold}"] = {
                    metric: embedding.space.silhouette for metric, embedding in embeddings.items()
                }
            _cells_of_fold(context, fold, panels, shown[0])
    if groups:
        title = f"{context.dataset}: foreground cells of supports,\nin the feature space"
        kinds: dict[str, str] = {metric: f"by {metric}" for metric in _CELL_METRICS}
        context.save(draw_silhouettes({title: groups}, kinds), "metric-silhouettes", records)
        for label, by_fold in gains.items():
            claim = f"fidelity separates better than cosine ({label})"
            quantity = "silhouette of the same cells by fidelity less that by cosine"
            context.claim(claim, context.dataset, quantity, by_fold)


def _cells_of_fold(
    context: FigureContext,
    fold: int,
    panels: Mapping[str, Mapping[PointMetric, Embedding]],
    model: FigureModel,
) -> None:
    """A figure with a row a network and a column a metric."""
    names = _novel_names(model)
    figure = new_figure(6.4, 3.0 * len(panels) + 0.6)
    axes = figure.subplots(len(panels), len(_CELL_METRICS), squeeze=False)
    for row, (label, embeddings) in zip(axes, panels.items(), strict=True):
        for place, (metric, embedding) in zip(row, embeddings.items(), strict=True):
            scatter(place, embedding, names, f"{label}: {metric}")
    legend_below(figure, len(names))
    figure.suptitle(f"{model.data.dataset} fold {fold}: foreground cells of supports, t-SNE", fontsize=9)
    records = [
        {"method": label, "metric": metric, "class": names[int(c)], "x": float(x), "y": float(y)}
        for label, embeddings in panels.items()
        for metric, embedding in embeddings.items()
        for c, (x, y) in zip(embedding.labels, embedding.flat, strict=True)
    ]
    context.save(figure, f"{CELLS_NAME}-fold{fold}", records)


def draw_silhouettes(
    panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], kinds: Mapping[str, str], columns: int = 2
) -> Figure:
    """Bars of silhouettes: a panel a title, in it groups of one bar for each of ``kinds``."""
    bars = max(map(len, panels.values())) * len(kinds)
    figure = new_figure(max(3.4, 3.0 + 0.4 * bars), 1.2 + 2.2 * len(panels))
    for (title, groups), axes in zip(
        panels.items(), figure.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True
    ):
        grouped_bars(axes, groups, kinds, scale=1, unit="silhouette")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(title, fontsize=9)
    legend_below(figure, columns)
    return figure


# ---- prototypes of SD-AANet's ablation


def in_table_iii(model: FigureModel) -> bool:
    """Whether it is a row of SD-AANet's Table III."""
    return model.variant in TABLE_III


def prototypes_of(model: FigureModel, supports: Sequence[Support], progress: bool) -> Tensor:
    """Prototypes (n, d) of supports, each encoded once."""
    method: Any = model.method
    found = model.over_supports(
        supports,
        lambda features, masks: method.support_prototypes(features, masks).float().cpu(),
        f"prototypes of {model.label}",
        progress=progress,
    )
    return torch.cat(found)


def make_prototypes(context: FigureContext) -> None:
    """Makes a figure of prototypes for each fold, and one of the silhouettes of all folds."""
    records: list[Record] = []
    by_fold: dict[int, dict[str, Embedding]] = {}
    needed = "checkpoint of SD-AANet's Table III (baseline, + SAAM, + SDPM, both)"
    for fold, models in context.models_by_fold(PROTOTYPES_NAME, in_table_iii, needed):
        variants = {model.variant: model for model in models}
        missing = [label_of(variant) for variant in TABLE_III if variant not in variants]
        if missing:
            context.problems.append(f"{PROTOTYPES_NAME}, fold {fold}: no checkpoint of {', '.join(missing)}")
        found: dict[str, Embedding] = {}
        for model in models:
            with context.attempt(f"{PROTOTYPES_NAME}, {model.title}"):
                found[model.variant] = _embedded_prototypes(context, model, records)
        if found:
            by_fold[fold] = found
            _prototypes_of_fold(context, fold, found, variants[next(iter(found))])
    if by_fold:
        panels = {
            f"{context.dataset}: support prototypes,\n{title}": {
                f"fold {fold}": {variant: getattr(e, space).silhouette for variant, e in found.items()}
                for fold, found in by_fold.items()
            }
            for title, space in (
                ("in the feature space, by cosine", "space"),
                ("in the plane of t-SNE", "plane"),
            )
        }
        kinds = {variant: label_of(variant) for variant in TABLE_III}
        figure = draw_silhouettes(panels, kinds, 4 if len(by_fold) > 1 else 2)
        context.save(figure, "prototype-silhouettes", records)
        _claim_compactness(context, by_fold)


def _embedded_prototypes(context: FigureContext, model: FigureModel, records: list[Record]) -> Embedding:
    drawn = distinct_supports(model.episodes(1, context.options.episodes))
    points = prototypes_of(model, list(drawn), context.progress).numpy()
    labels = np.array([support.class_id for support in drawn])
    found = embed(points, labels, _PROTOTYPE_METRIC, seed=context.options.seed)
    lengths = np.linalg.norm(points, axis=1)
    zeros = int((lengths == 0).sum())
    if zeros:
        context.remarks.append(
            f"{PROTOTYPES_NAME}, {model.title}: {zeros} of {len(points)} prototypes are zero; "
            "they have no direction and count as being at right angles to all others"
        )
    drawn_columns = {
        "supports_drawn": sum(drawn.values()),
        "zero_prototypes": zeros,
        "median_length": float(np.median(lengths)),
    }
    records.append(model.columns | drawn_columns | found.record)
    return found


def _prototypes_of_fold(
    context: FigureContext, fold: int, found: Mapping[str, Embedding], model: FigureModel
) -> None:
    """A figure with a panel a method, side by side."""
    drawn = distinct_supports(model.episodes(1, context.options.episodes))
    names = _novel_names(model)
    figure = new_figure(2.7 * len(found), 3.3)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (variant, embedding) in zip(panels, found.items(), strict=True):
        scatter(axes, embedding, names, label_of(variant))
    legend_below(figure, len(names))
    figure.suptitle(
        f"{model.data.dataset} fold {fold}, t-SNE on {_PROTOTYPE_METRIC} distances:\n"
        f"{len(drawn)} distinct support prototypes of {sum(drawn.values())} drawn",
        fontsize=9,
    )
    records = [
        {
            "method": label_of(variant),
            "class": names[support.class_id],
            "image": support.image,
            "times_drawn": times,
            "x": float(x),
            "y": float(y),
        }
        for variant, embedding in found.items()
        for (support, times), (x, y) in zip(drawn.items(), embedding.flat, strict=True)
    ]
    context.save(figure, f"{PROTOTYPES_NAME}-fold{fold}", records)


def _claim_compactness(context: FigureContext, by_fold: Mapping[int, Mapping[str, Embedding]]) -> None:
    for claim, less, more in _PROTOTYPE_CLAIMS:
        gains: ByFold = {
            fold: (silhouette_gain(found[less].space, found[more].space), len(found[more].labels))
            for fold, found in by_fold.items()
            if less in found and more in found
        }
        quantity = f"silhouette by {_PROTOTYPE_METRIC} of {label_of(more)} less that of {label_of(less)}"
        context.claim(claim, context.dataset, quantity, gains)
