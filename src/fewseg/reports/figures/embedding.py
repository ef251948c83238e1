"""t-SNE of points whose distances are known, and silhouettes before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from fewseg.reports.figures.data_files import Cell, Row
from fewseg.reports.figures.intervals import Floats
from fewseg.reports.figures.silhouette import Ints, MetricName, Separation, distances, separation
from fewseg.reports.figures.style import colour, marker

_PERPLEXITY = 30.0  # scikit-learn's default


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Labelled points in two dimensions, and how well their classes part.

    Attributes:
        metric: that the distances are of.
        flat: (n, 2), t-SNE's; without unit.
        labels: (n,) classes.
        space: separation in the feature space under the metric.
        plane: separation in ``flat`` under the Euclidean distance.
    """

    metric: MetricName
    flat: Floats
    labels: Ints
    space: Separation
    plane: Separation


def embed(
    points: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: MetricName,
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Embedding:
    """Embeds n points (n, d) by t-SNE on their distances.

    Args:
        points: (n, d), three at least.
        labels: (n,) classes, two different ones at least.
        metric: of the distances.
        groups: (n,) points that belong together, such as cells of one image; each by default.
        seed: of t-SNE's start.

    Raises:
        ValueError: there are fewer points or classes.
    """
    from sklearn.manifold import TSNE

    classes = np.asarray(labels)
    if len(classes) < 3:
        raise ValueError(f"t-SNE needs 3 points at least, got {len(classes)}: evaluate more episodes")
    apart = distances(points, metric)
    perplexity = min(_PERPLEXITY, (len(classes) - 1) / 3)
    flat = TSNE(metric="precomputed", init="random", random_state=seed, perplexity=perplexity)
    found = np.asarray(flat.fit_transform(apart), dtype=np.float64)
    together = None if groups is None else np.asarray(groups)
    return Embedding(
        metric=metric,
        flat=found,
        labels=classes,
        space=separation(apart, classes, together),
        plane=separation(distances(found, "euclidean"), classes, together),
    )


def separation_row(found: Embedding, **said: Cell) -> Row:
    """The numbers of an embedding as a row of a table."""
    row: dict[str, Cell] = {**said, "metric": found.metric, "points": len(found.labels)}
    for space, name in ((found.space, "feature_space"), (found.plane, "tsne_plane")):
        row[f"silhouette_{name}"] = space.silhouette.value
        row[f"silhouette_{name}_low"] = space.silhouette.low
        row[f"silhouette_{name}_high"] = space.silhouette.high
        row[f"distance_within_{name}"] = space.within
        row[f"distance_between_{name}"] = space.between
    return row


def scatter(axes: Axes, found: Embedding, names: dict[int, str], title: str) -> None:
    """Draws an embedding: a colour and a marker for each class, the silhouettes below the title."""
    for i, class_id in enumerate(sorted(names)):
        own = found.flat[found.labels == class_id]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=12,
            marker=marker(i),
            facecolor=colour(i),
            edgecolor="black",
            linewidth=0.25,
            label=names[class_id],
        )
    space, plane = found.space.silhouette.value, found.plane.silhouette.value
    score = f"silhouette {space:.3f} by {found.metric}, {plane:.3f} in the plane"
    axes.set_title(f"{title}\n{score}", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
