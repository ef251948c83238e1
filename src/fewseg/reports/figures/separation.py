"""How well classes separate: t-SNE and silhouettes of support cells (SRPNet 4) and prototypes (SD-AANet 9).

Cells: a point is a foreground cell of a support; a few are drawn from each support. Every network is shown
under both metrics, which separates the effect of the metric from that of training with it. Without a
prototype method the features are those of the training-free matcher on a frozen trunk.

Prototypes: the paper draws 5 000 supports per fold. Many of them are the same image of the same class and so
have the same prototype: points are the distinct prototypes, and the data state how often each was drawn.

Intervals are those of a delete-one-group jackknife (Efron & Tibshirani 1993, ch. 11); a group holds the
points of one image. A bootstrap would draw images twice, which adds pairs of close points to the mean
distance within a class: the silhouettes of all resamples would be too high. The jackknife's variance is right
where classes separate, and up to twice too large where they do not (Efron & Stein 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.prototypical import EMBEDDING
from fewseg.ops.masks import foreground_cells
from fewseg.reports.figures.base import CheckpointFigure, Record, with_prefix
from fewseg.reports.figures.drawing import COLOURS, MARKERS, Groups, bar_chart, legend_below, panels
from fewseg.reports.figures.intervals import Floats, with_jackknife
from fewseg.reports.figures.model import TABLE_III, FigureModel, Support, in_table_iii, label_of
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

CELLS = 3
"""Number of cells drawn from a support."""

Ints = npt.NDArray[Any]
PointMetric = Literal["cosine", "fidelity", "euclidean"]

_CELL_METRICS: tuple[PointMetric, PointMetric] = ("cosine", "fidelity")
_PERPLEXITY = 30.0  # scikit-learn's default
_PROTOTYPE_CLAIMS = (
    ("SDPM makes prototypes more compact", "sdaanet_baseline", "sdaanet_sdpm"),
    ("SDPM makes prototypes more compact, with SAAM", "sdaanet_saam", "sdaanet"),
    ("SAAM makes prototypes more discriminative", "sdaanet_baseline", "sdaanet_saam"),
)


def distances(points: npt.ArrayLike, metric: PointMetric) -> Floats:
    """Distances of n points: (n, d) to (n, n).

    "cosine" is 1 - cos, in [0, 2]; "fidelity" 1 - cos^2, in [0, 1] (SRPNet, Ding et al. 2022, Eq. 5-6, turned
    into a distance); "euclidean" the length of the difference. A zero vector is orthogonal to all others.
    """
    from sklearn.metrics import pairwise_distances

    of_cosine = "cosine" if metric == "fidelity" else metric
    apart: Floats = pairwise_distances(np.asarray(points, dtype=np.float64), metric=of_cosine)
    return 1.0 - np.square(1.0 - apart) if metric == "fidelity" else apart


def silhouette(apart: Floats, labels: Ints) -> float:
    """Mean silhouette, in [-1, 1], of points with distances (n, n) and classes (n,).

    That of a point is (b - a) / max(a, b), a being its mean distance to its own class and b that to the
    nearest other class; of a point alone in its class it is 0.

    Source: Rousseeuw (1987), as scikit-learn computes it.
    """
    classes, one_hot = _memberships(labels)
    if one_hot.shape[1] < 2:
        raise ValueError("a silhouette needs points of at least two classes")
    return _mean_silhouette(apart @ one_hot, one_hot.sum(axis=0), classes)


def _memberships(labels: Ints) -> tuple[Ints, Floats]:
    """The class index of each point (n,), and its one-hot encoding (n, classes)."""
    _, classes = np.unique(labels, return_inverse=True)
    return classes, np.eye(len(_))[classes]


def _mean_silhouette(sums: Floats, sizes: Floats, classes: Ints) -> float:
    """The mean silhouette by the summed distances of points to classes (m, classes) and the class sizes."""
    points = np.arange(len(classes))
    others = sizes[classes] - 1
    inside = np.divide(sums[points, classes], others, out=np.zeros(len(classes)), where=others > 0)
    means = np.divide(sums, sizes, out=np.full_like(sums, np.inf), where=sizes > 0)
    means[points, classes] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    defined = (others > 0) & (larger > 0)
    return float(np.divide(outside - inside, larger, out=np.zeros(len(classes)), where=defined).mean())


def silhouettes_without(apart: Floats, labels: Ints, groups: Ints) -> Floats:
    """The mean silhouette without each group (n,), 0 .., in turn; NaN where one class is left."""
    classes, one_hot = _memberships(labels)
    sums, sizes = apart @ one_hot, one_hot.sum(axis=0)
    silhouettes = np.full(int(groups.max()) + 1, np.nan)
    for group in range(len(silhouettes)):
        removed = groups == group
        kept_sizes = sizes - one_hot[removed].sum(axis=0)
        if np.count_nonzero(kept_sizes) > 1:
            kept_sums = sums[~removed] - apart[np.ix_(~removed, removed)] @ one_hot[removed]
            silhouettes[group] = _mean_silhouette(kept_sums, kept_sizes, classes[~removed])
    return silhouettes


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well classes separate in one space."""

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
        """The numbers as columns of a table."""
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


def scatter_chart(
    size: tuple[float, float], rows: Sequence[Mapping[str, Embedding]], model: FigureModel, title: str
) -> Figure:
    """Draws embeddings, with a colour and a marker per novel class, and the silhouettes below each title."""
    figure, axes = panels(*size, len(rows), len(rows[0]), title=title)
    titled = [item for row in rows for item in row.items()]
    for ax, (name, embedding) in zip(axes.flat, titled, strict=True):
        for i, class_id in enumerate(sorted(model.data.split.novel)):
            points = embedding.flat[embedding.labels == class_id]
            ax.scatter(
                points[:, 0],
                points[:, 1],
                s=12,
                marker=MARKERS[i % len(MARKERS)],
                facecolor=COLOURS[i % len(COLOURS)],
                edgecolor="black",
                linewidth=0.25,
                label=model.class_name(class_id),
            )
        space, plane = embedding.space.silhouette.value, embedding.plane.silhouette.value
        score = f"silhouette {space:.3f} by {embedding.metric}, {plane:.3f} in the plane"
        ax.set_title(f"{name}\n{score}", fontsize=7)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_aspect("equal", adjustable="datalim")
    legend_below(figure, len(model.data.split.novel))
    return figure


def sampled_cells(maps: Tensor, masks: Tensor, supports: Sequence[Support], *, seed: int) -> list[Tensor]:
    """Draws a few foreground cells of each of n supports; the draw depends on (seed, class, image) only."""
    cells = foreground_cells(masks, (int(maps.shape[-2]), int(maps.shape[-1])))[:, 0]
    sampled = []
    for i, support in enumerate(supports):
        inside = (cells[i].flatten() >= 0.5).nonzero().flatten().tolist()
        draws = Draws("figure", MetricCells.name, seed, support.class_id, support.image)
        chosen = draws.sample(inside, min(CELLS, len(inside)))
        sampled.append(maps[i].flatten(1)[:, list(chosen)].T.float().cpu())
    return sampled


def cells_of(model: FigureModel) -> tuple[Floats, Ints, Ints]:
    """Cells as a prototype method embeds them (n, C), their classes (n,) and supports (n,), 0 .. ."""
    method: Any = model.method
    supports = list(model.supports)
    waiting = iter(supports)

    def look(features: Features, masks: Tensor) -> list[Tensor]:
        chunk = [next(waiting) for _ in range(len(masks))]
        return sampled_cells(method.embed(features)[EMBEDDING], masks, chunk, seed=model.options.seed)

    batches = model.over_supports(supports, look, f"cells of {model.label}")
    per_support = [cells for batch in batches for cells in batch]
    counts = [len(cells) for cells in per_support]
    labels = np.repeat([support.class_id for support in supports], counts)
    points = np.asarray(torch.cat(per_support).numpy(), dtype=np.float64)
    return points, labels, np.repeat(np.arange(len(supports)), counts)


class MetricCells(CheckpointFigure[dict[PointMetric, Embedding]]):
    """Cells under both metrics: a figure for each fold, and the silhouettes of all folds."""

    name = "metric-tsne"
    shows = "support features under cosine and fidelity (SRPNet 4)"
    needs = "a checkpoint of SRPNet, the matcher, or any checkpoint with a frozen trunk"
    checkpoint = "checkpoint of a prototype method or with a frozen trunk"

    def fits(self, model: FigureModel) -> bool:
        """Whether it is a prototype method, or has a frozen trunk that the matcher can use."""
        return hasattr(model.recipe.method, "metric") or model.recipe.method.backbone.fixed

    def chosen(self, fold: int, models: Sequence[FigureModel]) -> Sequence[FigureModel]:
        """The prototype methods, or else the matcher."""
        return [m for m in models if hasattr(m.recipe.method, "metric")] or [models[0].matcher()]

    def measure(self, model: FigureModel) -> dict[PointMetric, Embedding]:
        """Embeds the same cells under each metric."""
        points, labels, groups = cells_of(model)
        seed = self.options.seed
        embeddings = {m: embed(points, labels, m, groups=groups, seed=seed) for m in _CELL_METRICS}
        about = {"method": model.label, "fold": model.fold, "supports": len(model.supports)}
        self.records += [about | embedding.record for embedding in embeddings.values()]
        claim = f"fidelity separates better than cosine ({model.label})"
        quantity = "silhouette of the same cells by fidelity less that by cosine"
        gain = silhouette_gain(embeddings["cosine"].space, embeddings["fidelity"].space)
        self.claim(model.fold, claim, quantity, (gain, len(labels)))
        return embeddings

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, dict[PointMetric, Embedding]]) -> None:
        """Draws one row per network and one column per metric."""
        rows = [
            {f"{model.label}: {metric}": embedding for metric, embedding in embeddings.items()}
            for model, embeddings in measured.items()
        ]
        title = f"{self.context.dataset} fold {fold}: foreground cells of supports, t-SNE"
        figure = scatter_chart((6.4, 3.0 * len(rows) + 0.6), rows, next(iter(measured)), title)
        records = [
            {"method": m.label, "metric": metric, "class": m.class_name(int(c)), "x": float(x), "y": float(y)}
            for m, embeddings in measured.items()
            for metric, embedding in embeddings.items()
            for c, (x, y) in zip(embedding.labels, embedding.flat, strict=True)
        ]
        self.context.save(figure, f"{self.name}-fold{fold}", records)

    def draw_all(self, measured: Mapping[FigureModel, dict[PointMetric, Embedding]]) -> None:
        """Draws the silhouettes."""
        groups: Groups = {
            m.group: {str(k): v.space.silhouette for k, v in value.items()} for m, value in measured.items()
        }
        title = f"{self.context.dataset}: foreground cells of supports,\nin the feature space"
        figure = draw_silhouettes({title: groups}, {metric: f"by {metric}" for metric in _CELL_METRICS})
        self.context.save(figure, "metric-silhouettes", self.records)


def draw_silhouettes(charts: Mapping[str, Groups], kinds: Mapping[str, str], columns: int = 2) -> Figure:
    """Bars of silhouettes: a panel per title, with groups of one bar for each of ``kinds``."""
    bars = max(map(len, charts.values())) * len(kinds)
    size = (max(3.4, 3.0 + 0.4 * bars), 1.2 + 2.2 * len(charts))
    return bar_chart(size, charts, kinds, scale=1, unit="silhouette", line=0, legend_columns=columns)


class Prototypes(CheckpointFigure[Embedding]):
    """Prototypes of SD-AANet's ablation: a figure for each fold, and the silhouettes of all folds."""

    name = "prototype-tsne"
    shows = "support prototypes and how compact they are (SD-AANet 9)"
    needs = "checkpoints of SD-AANet's Table III"
    checkpoint = "checkpoint of SD-AANet's Table III (baseline, + SAAM, + SDPM, both)"
    fits = staticmethod(in_table_iii)

    def chosen(self, fold: int, models: Sequence[FigureModel]) -> Sequence[FigureModel]:
        """All; notes the variants of the table that are missing."""
        variants = {model.variant for model in models}
        missing = [label_of(variant) for variant in TABLE_III if variant not in variants]
        if missing:
            self.context.problems.append(f"{self.name}, fold {fold}: no checkpoint of {', '.join(missing)}")
        return models

    def measure(self, model: FigureModel) -> Embedding:
        """Encodes each support once, and embeds the prototypes by cosine, as in SD-AANet's Eq. 13."""
        method: Any = model.method
        batches = model.over_supports(
            list(model.supports),
            lambda features, masks: method.support_prototypes(features, masks).float().cpu(),
            f"prototypes of {model.label}",
        )
        points = torch.cat(batches).numpy()
        labels = [support.class_id for support in model.supports]
        embedding = embed(points, labels, "cosine", seed=self.options.seed)
        lengths = np.linalg.norm(points, axis=1)
        zeros = int((lengths == 0).sum())
        if zeros:
            self.context.remarks.append(
                f"{self.name}, {model.title}: {zeros} of {len(points)} prototypes are zero; "
                "they have no direction and count as orthogonal to all others"
            )
        drawn: Record = {"supports_drawn": sum(model.supports.values()), "zero_prototypes": zeros}
        drawn["median_length"] = float(np.median(lengths))
        self.records.append(model.columns | drawn | embedding.record)
        return embedding

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, Embedding]) -> None:
        """Draws one panel per method; notes what each part adds to compactness."""
        first = next(iter(measured))
        drawn = first.supports
        title = (
            f"{self.context.dataset} fold {fold}, t-SNE on cosine distances:\n"
            f"{len(drawn)} distinct support prototypes of {sum(drawn.values())} drawn"
        )
        row = {model.label: embedding for model, embedding in measured.items()}
        figure = scatter_chart((2.7 * len(measured), 3.3), [row], first, title)
        records = [
            {
                "method": label,
                "class": first.class_name(support.class_id),
                "image": support.image,
                "times_drawn": times,
                "x": float(x),
                "y": float(y),
            }
            for label, embedding in row.items()
            for (support, times), (x, y) in zip(drawn.items(), embedding.flat, strict=True)
        ]
        self.context.save(figure, f"{self.name}-fold{fold}", records)
        by_variant = {model.variant: embedding for model, embedding in measured.items()}
        for claim, less, more in _PROTOTYPE_CLAIMS:
            if less in by_variant and more in by_variant:
                quantity = f"silhouette by cosine of {label_of(more)} less that of {label_of(less)}"
                gain = silhouette_gain(by_variant[less].space, by_variant[more].space)
                self.claim(fold, claim, quantity, (gain, len(by_variant[more].labels)))

    def draw_all(self, measured: Mapping[FigureModel, Embedding]) -> None:
        """Draws the silhouettes in both spaces."""
        spaces = {"space": "in the feature space, by cosine", "plane": "in the plane of t-SNE"}
        charts: dict[str, dict[str, dict[str, Estimate]]] = {}
        for space, title in spaces.items():
            groups = charts[f"{self.context.dataset}: support prototypes,\n{title}"] = {}
            for model, embedding in measured.items():
                silhouette = getattr(embedding, space).silhouette
                groups.setdefault(f"fold {model.fold}", {})[model.variant] = silhouette
        kinds = {variant: label_of(variant) for variant in TABLE_III}
        figure = draw_silhouettes(charts, kinds, 4 if len(groups) > 1 else 2)
        self.context.save(figure, "prototype-silhouettes", self.records)
