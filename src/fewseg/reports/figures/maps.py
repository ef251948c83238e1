"""SD-AANet's Fig. 11 (affinity attention on queries) and Fig. 12 (similarity to the prototype on supports).

Besides pictures of a few episodes, it measures over all episodes how well the maps rank the cells of the
target above the others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.episodes import EpisodeSpec
from fewseg.ops.masks import foreground_cells
from fewseg.ops.progress import tracked
from fewseg.ops.similarity import COSINE_EPS
from fewseg.reports.figures.base import CheckpointFigure, GridRow, Record, with_prefix
from fewseg.reports.figures.drawing import Groups, bar_chart, overlay, unit_range
from fewseg.reports.figures.intervals import mean_estimate
from fewseg.reports.figures.model import (
    TABLE_III,
    FigureModel,
    Support,
    distinct_supports,
    episode_record,
    in_table_iii,
    label_of,
)
from fewseg.reports.numbers import Estimate
from fewseg.types import IGNORE, Features, Guides

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
    """How well a map separates the target's cells from the others."""

    inside: float  # mean over the target's cells
    outside: float  # mean over the other cells
    # probability that the value of a target's cell is above that of another cell (area under the ROC curve)
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


def similarity_maps(model: FigureModel, specs: Sequence[EpisodeSpec]) -> Maps:
    """Similarity (h, w) of each distinct support's cells to its prototype."""
    supports = list(distinct_supports(specs))
    method: Any = model.method

    def look(features: Features, masks: Tensor) -> Tensor:
        maps, prototypes = method.support_maps(features, masks)
        return prototype_similarity(maps.float(), prototypes.float()).cpu()

    similarities = model.over_supports(supports, look, f"similarity, {model.label}")
    return dict(zip(supports, torch.cat(similarities), strict=True))


def attention_maps(model: FigureModel, specs: Sequence[EpisodeSpec]) -> Maps:
    """SAAM's attention (h, w) of each distinct (support, query)."""
    method: Any = model.method
    supports = list(distinct_supports(specs))
    batches = model.over_supports(supports, method.encode_shots, "supports")
    encoded = [batch.without_keys().select([i]) for batch in batches for i in range(len(batch))]
    guides = dict(zip(supports, encoded, strict=True))
    by_query: dict[str, dict[Support, None]] = {}
    for spec in specs:
        by_query.setdefault(spec.query, {})[Support.first_of(spec)] = None
    model.store.ensure(list(by_query), [0], progress=model.progress)
    images = model.evaluator().images
    attention: Maps = {}
    with model.inference():
        for query, of_query in tracked(model.progress, f"attention, {model.label}", by_query.items()):
            maps = method.encode_query(images.features([query]))
            stacked = Guides.stack([guides[support] for support in of_query])
            for support, values in zip(of_query, method.attention_map(maps, stacked)[:, 0], strict=True):
                attention[support, query] = values.float().cpu()
    return attention


def has_attention(model: FigureModel) -> bool:
    """Whether it is SD-AANet with SAAM."""
    return getattr(getattr(model.recipe.method, "attention", None), "channels", 0) > 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The kept maps of a checkpoint, and how well all of its maps rank cells."""

    maps: Maps  # the maps in the pictures
    order: Estimate  # mean of ``Contrast.order``


class MapFigure(CheckpointFigure[Measured]):
    """Pictures of the maps for each fold, and a plot of how well they rank cells."""

    title: ClassVar[str]
    scale: ClassVar[str]
    note: ClassVar[str] = ""
    on_query: ClassVar[bool]

    @abstractmethod
    def maps_of(self, model: FigureModel, specs: Sequence[EpisodeSpec]) -> Maps:
        """The maps of some episodes."""

    def key(self, spec: EpisodeSpec) -> tuple[object, str]:
        """The key of an episode's map, and the image that the map belongs to."""
        support = Support.first_of(spec)
        return ((support, spec.query), spec.query) if self.on_query else (support, support.image)

    def measure(self, model: FigureModel) -> Measured:
        """Mean contrast over the distinct maps, and its order."""
        specs = [spec for _, spec in model.episodes()]
        maps = self.maps_of(model, specs)
        contrasts: dict[object, Contrast] = {}
        for spec in tracked(model.progress, f"{self.name}: cells in order", specs):
            key, image = self.key(spec)
            if key not in contrasts:
                value = contrast(maps[key], *_truth_cells(model, image, spec.class_id, maps[key]))
                if value is not None:
                    contrasts[key] = value
        record: Record = {**model.columns, "maps": len(contrasts)}
        for name in ("inside", "outside", "order"):
            mean = mean_estimate([getattr(value, name) for value in contrasts.values()])
            record |= with_prefix(name, mean)
        self.records.append(record)
        shown = [self.key(spec)[0] for _, spec in model.examples(self.name)]
        return Measured(maps={key: maps[key] for key in shown}, order=mean)

    def draw_fold(self, fold: int, measured: Mapping[FigureModel, Measured]) -> None:
        """Lays the maps of a few episodes over their images."""
        first = next(iter(measured))
        rows: list[GridRow] = []
        arrays = {}
        for number, (seed, spec) in enumerate(first.examples(self.name)):
            key, image = self.key(spec)
            view = first.network_view(image)
            target, _ = _truth_cells(first, image, spec.class_id, measured[first].maps[key])
            truth = first.on_pixels(image, target) > 0.5
            pictures = [first.marked(id, spec.class_id) for id in (spec.supports[0], spec.query)]
            pictures = pictures[: 1 + self.on_query]
            for model, result in measured.items():
                values = model.on_pixels(image, result.maps[key])
                scaled = unit_range(values) if self.on_query else values.clip(0, 1)
                pictures.append(overlay(view, scaled, truth))
                arrays[f"{number} {model.variant}"] = result.maps[key].numpy()
            record = {"number": number, **episode_record(seed, spec)}
            rows.append((first.class_name(spec.class_id), [(picture, "") for picture in pictures], record))
        columns = ["support", *(["truth"] if self.on_query else []), *(model.label for model in measured)]
        title = f"{self.context.dataset} fold {fold}: {self.title}"
        self.save_grid(f"{self.name}-fold{fold}", rows, columns, title, scale=self.scale, arrays=arrays)

    def draw_all(self, measured: Mapping[FigureModel, Measured]) -> None:
        """Draws how often a cell of the target has a larger value than another cell, by fold."""
        groups: dict[str, dict[str, Estimate]] = {}
        for model, result in measured.items():
            groups.setdefault(f"fold {model.fold}", {})[model.variant] = result.order
        figure = self.draw_order(groups, self.context.dataset)
        self.context.save(figure, f"{self.name}-order", self.records)

    @classmethod
    def draw_order(cls, groups: Groups, dataset: str) -> Figure:
        """Bars of the order, one for each variant of Table III."""
        heading = f"{dataset}, {cls.name}: a cell of the\ntarget has more{cls.note} than another"
        return bar_chart(
            (3.0 + 1.3 * len(groups), 3.2),
            {heading: groups},
            {variant: label_of(variant) for variant in TABLE_III},
            unit="% of cell pairs in order",
            line=50,
            limits=(0, 100),
            legend_size=7,
        )


class Attention(MapFigure):
    """SAAM's attention.

    Its sign is arbitrary, as only the decoder supervises it: an order far below one half separates the target
    as well as one far above.
    """

    name = "attention"
    shows = "SAAM's attention on queries (SD-AANet 11)"
    needs = "a checkpoint of SD-AANet with SAAM"
    checkpoint = "checkpoint of SD-AANet with SAAM"
    title = "SAAM's attention on the query; white: the target's outline"
    scale = "attention, from the least to the most of the image"
    note = " (or less: its sign is free)"
    on_query = True
    fits = staticmethod(has_attention)
    maps_of = staticmethod(attention_maps)


class Similarity(MapFigure):
    """The similarity of a support's cells to its prototype."""

    name = "similarity"
    shows = "similarity of a support's cells to its prototype (SD-AANet 12)"
    needs = "checkpoints of SD-AANet's Table III"
    checkpoint = "checkpoint of SD-AANet's Table III"
    title = "cosine of the support's cells to its prototype; white: the mask's outline"
    scale = "cosine"
    on_query = False
    fits = staticmethod(in_table_iii)
    maps_of = staticmethod(similarity_maps)


def _truth_cells(model: FigureModel, image: str, class_id: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and counted cells of an image, on the grid of a map (h, w)."""
    size = (int(like.shape[0]), int(like.shape[1]))
    labels = model.store.labels([image])
    foreground = foreground_cells((labels == class_id).to(torch.uint8), size)[0, 0] >= 0.5
    ignored = foreground_cells((labels == IGNORE).to(torch.uint8), size)[0, 0] >= 0.5
    return foreground, ~ignored | foreground
