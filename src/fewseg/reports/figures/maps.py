"""SD-AANet's Fig. 11 (affinity attention on queries) and Fig. 12 (similarity to the prototype on supports).

Beside the pictures of a few episodes stands, over all of them, how well the maps order the cells of the
target before the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.episodes import EpisodeSpec
from fewseg.ops.masks import foreground_cells
from fewseg.ops.progress import tracked
from fewseg.ops.similarity import COSINE_EPS
from fewseg.reports.figures.context import FigureContext, Record, with_prefix
from fewseg.reports.figures.drawing import (
    Noted,
    add_scale,
    grid,
    grouped_bars,
    new_figure,
    overlay,
    unit_range,
)
from fewseg.reports.figures.intervals import mean_estimate
from fewseg.reports.figures.model import (
    TABLE_III,
    FigureModel,
    Support,
    distinct_supports,
    example_episodes,
    label_of,
)
from fewseg.reports.figures.separation import in_table_iii
from fewseg.reports.numbers import Estimate
from fewseg.types import IGNORE, Features, Guides

ATTENTION, SIMILARITY = "attention", "similarity"

Maps = dict[Any, Tensor]
"""A support (similarity), or a support and a query (attention), to the map (h, w)."""


def prototype_similarity(maps: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine (n, h, w) of every cell of a support's map (n, d, h, w) with its own prototype (n, d).

    Source: SD-AANet (Zhao et al. 2022), Eq. 13.
    """
    unit = F.normalize(maps, dim=1, eps=COSINE_EPS)
    directions = F.normalize(prototypes, dim=1, eps=COSINE_EPS)[..., None, None]
    return (unit * directions).sum(dim=1)  # no product of matrices: autocast would round it


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How a map separates the target's cells from the others."""

    inside: float  # mean over the target's cells
    outside: float  # mean over the other cells
    # probability that a cell of the target has more than another cell (area under the ROC curve)
    order: float


def contrast(values: Tensor, foreground: Tensor, counted: Tensor) -> Contrast | None:
    """Compares a map (h, w) inside and outside the target; None without a cell on either side."""
    from sklearn.metrics import roc_auc_score

    inside, outside = values[foreground & counted], values[~foreground & counted]
    if not len(inside) or not len(outside):
        return None
    truth = [1] * len(inside) + [0] * len(outside)
    order = roc_auc_score(truth, torch.cat([inside, outside]).double().numpy())
    return Contrast(inside=float(inside.mean()), outside=float(outside.mean()), order=float(order))


def similarity_maps(model: FigureModel, specs: Sequence[EpisodeSpec], progress: bool) -> Maps:
    """Similarity (h, w) of each distinct support's cells to its prototype."""
    supports = list(distinct_supports([(0, spec) for spec in specs]))
    method: Any = model.method

    def look(features: Features, masks: Tensor) -> Tensor:
        maps, prototypes = method.support_maps(features, masks)
        return prototype_similarity(maps.float(), prototypes.float()).cpu()

    found = model.over_supports(supports, look, f"similarity, {model.label}", progress=progress)
    return dict(zip(supports, torch.cat(found), strict=True))


def attention_maps(model: FigureModel, specs: Sequence[EpisodeSpec], progress: bool) -> Maps:
    """SAAM's attention (h, w) of each distinct (support, query)."""
    method: Any = model.method
    supports = list(distinct_supports([(0, spec) for spec in specs]))
    made = model.over_supports(supports, method.encode_shots, "supports", progress=progress)
    each = [batch.without_keys().select([i]) for batch in made for i in range(len(batch))]
    guides = dict(zip(supports, each, strict=True))
    by_query: dict[str, dict[Support, None]] = {}
    for spec in specs:
        by_query.setdefault(spec.query, {})[Support.first_of(spec)] = None
    model.store.ensure(list(by_query), [0], progress=progress)
    images = model.evaluator(progress=progress).images
    found: Maps = {}
    with model.inference():
        for query, wanted in tracked(progress, f"attention, {model.label}", by_query.items()):
            maps = method.encode_query(images.features([query]))
            several = Guides.stack([guides[support] for support in wanted])
            for support, one in zip(wanted, method.attention_map(maps, several)[:, 0], strict=True):
                found[support, query] = one.float().cpu()
    return found


@dataclass(frozen=True, kw_only=True)
class MapFigure:
    """What the two figures of maps differ in."""

    name: str
    fits: Callable[[FigureModel], bool]
    needed: str
    maps_of: Callable[[FigureModel, Sequence[EpisodeSpec], bool], Maps]
    title: str
    scale: str
    key: Callable[[EpisodeSpec], tuple[object, str]]
    """(episode) -> the key of its map, and the image that it lies on."""


def _has_attention(model: FigureModel) -> bool:
    attention = getattr(model.recipe.method, "attention", None)
    return getattr(attention, "channels", 0) > 0


_ATTENTION = MapFigure(
    name=ATTENTION,
    fits=_has_attention,
    needed="checkpoint of SD-AANet with SAAM",
    maps_of=attention_maps,
    title="SAAM's attention on the query; white: the target's outline",
    scale="attention, from the least to the most of the image",
    key=lambda spec: ((Support.first_of(spec), spec.query), spec.query),
)
_SIMILARITY = MapFigure(
    name=SIMILARITY,
    fits=in_table_iii,
    needed="checkpoint of SD-AANet's Table III",
    maps_of=similarity_maps,
    title="cosine of the support's cells to its prototype; white: the mask's outline",
    scale="cosine",
    key=lambda spec: (Support.first_of(spec), Support.first_of(spec).image),
)


def _make(figure: MapFigure, context: FigureContext) -> None:
    """Makes the maps' pictures for each fold, and a plot of how well they order cells."""
    records: list[Record] = []
    groups: dict[str, dict[str, Estimate]] = {}
    for fold, models in context.models_by_fold(figure.name, figure.fits, figure.needed):
        shown: list[tuple[FigureModel, Maps]] = []
        for model in models:
            with context.attempt(f"{figure.name}, {model.title}"):
                specs = [spec for _, spec in model.episodes(1, context.options.episodes)]
                maps = figure.maps_of(model, specs, context.progress)
                shown.append((model, maps))
                record, order = _contrast_record(figure, model, specs, maps, context.progress)
                records.append(record)
                groups.setdefault(f"fold {fold}", {})[model.variant] = order
        if shown:
            with context.attempt(f"{figure.name}, fold {fold}"):
                _pictures(context, figure, fold, shown)
    if groups:
        context.save(draw_order(groups, figure.name, context.dataset), f"{figure.name}-order", records)


def _contrast_record(
    figure: MapFigure, model: FigureModel, specs: Sequence[EpisodeSpec], maps: Maps, progress: bool
) -> tuple[Record, Estimate]:
    """Mean contrast over the distinct maps, and its order."""
    found: dict[object, Contrast] = {}
    for spec in tracked(progress, f"{figure.name}: cells in order", specs):
        key, image = figure.key(spec)
        if key not in found:
            one = contrast(maps[key], *_truth_cells(model, image, spec.class_id, maps[key]))
            if one is not None:
                found[key] = one
    record: Record = {**model.columns, "maps": len(found)}
    for name in ("inside", "outside", "order"):
        mean = mean_estimate([getattr(one, name) for one in found.values()])
        record |= with_prefix(name, mean)
    return record, mean


def _truth_cells(model: FigureModel, image: str, class_id: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and counted cells of an image, on the grid of a map (h, w)."""
    size = (int(like.shape[0]), int(like.shape[1]))
    labels = model.store.labels([image])
    foreground = foreground_cells((labels == class_id).to(torch.uint8), size)[0, 0] >= 0.5
    ignored = foreground_cells((labels == IGNORE).to(torch.uint8), size)[0, 0] >= 0.5
    return foreground, ~ignored | foreground


def _pictures(
    context: FigureContext, figure: MapFigure, fold: int, shown: Sequence[tuple[FigureModel, Maps]]
) -> None:
    (first, like), options = shown[0], context.options
    episodes = example_episodes(
        first.episodes(1, options.episodes), options.examples, figure.name, options.seed, fold
    )
    with_query = figure.name == ATTENTION
    rows: list[list[Noted]] = []
    arrays: dict[str, Any] = {}
    records: list[Record] = []
    for number, (seed, spec) in enumerate(episodes):
        key, image = figure.key(spec)
        view = first.network_view(image)
        target, _ = _truth_cells(first, image, spec.class_id, like[key])
        truth = first.on_pixels(image, target) > 0.5
        pictures = [first.marked(spec.supports[0], spec.class_id)]
        if with_query:
            pictures.append(first.marked(spec.query, spec.class_id))
        for model, maps in shown:
            values = model.on_pixels(image, maps[key])
            scaled = unit_range(values) if with_query else values.clip(0, 1)
            pictures.append(overlay(view, scaled, truth))
            arrays[f"{number} {model.variant}"] = maps[key].numpy()
        rows.append([(picture, "") for picture in pictures])
        about = {"number": number, "seed": seed, "episode": spec.index, "class": spec.class_id}
        records.append(about | {"support": spec.supports[0], "query": spec.query})
    columns = ["support", *(["truth"] if with_query else []), *(model.label for model, _ in shown)]
    names = [first.data.split.class_names[spec.class_id] for _, spec in episodes]
    drawn = grid(rows, columns, names, f"{first.data.dataset} fold {fold}: {figure.title}")
    add_scale(drawn, figure.scale)
    context.save(drawn, f"{figure.name}-fold{fold}", records, photographs=True, **arrays)


def draw_order(groups: Mapping[str, Mapping[str, Estimate]], name: str, dataset: str) -> Figure:
    """How often a cell of the target has more than another cell, by fold.

    The attention's sign is free: nothing supervises the query's map but the decoder that reads it. Far below
    a half it separates the target as well as far above.
    """
    figure = new_figure(3.0 + 1.3 * len(groups), 3.2)
    axes = figure.subplots()
    grouped_bars(
        axes, groups, {variant: label_of(variant) for variant in TABLE_III}, unit="% of cell pairs in order"
    )
    axes.axhline(50, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylim(0, 100)
    free = " (or less: its sign is free)" if name == ATTENTION else ""
    axes.set_title(f"{dataset}, {name}: a cell of the\ntarget has more{free} than another", fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return figure


make_attention = functools.partial(_make, _ATTENTION)
make_similarity = functools.partial(_make, _SIMILARITY)
