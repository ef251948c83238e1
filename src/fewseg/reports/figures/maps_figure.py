"""SD-AANet's Fig. 11 (affinity attention on queries) and Fig. 12 (likeness to the prototype on supports).

Beside the pictures of a few episodes stands, over all of them, how well the maps order the cells of the
target before the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.episodes import EpisodeSpec
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.sdaanet import SDAANet, SDAANetConfig, SupervisedAttention, gated
from fewseg.ops.masks import foreground_cells
from fewseg.ops.progress import tracked
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import Cell, Row
from fewseg.reports.figures.intervals import mean_estimate
from fewseg.reports.figures.maps import Contrast, contrast, prototype_similarity
from fewseg.reports.figures.photographs import (
    Panel,
    add_scale,
    grid,
    network_view,
    on_pixels,
    overlay,
    read,
    shown_support,
    unit_range,
)
from fewseg.reports.figures.prototypes_figure import STEMS
from fewseg.reports.figures.qualitative_figure import drawn_episodes
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import new_figure
from fewseg.reports.figures.subjects import NAMES, Opened, Shot, Subject, distinct_shots
from fewseg.reports.marked_pictures import spotlight
from fewseg.reports.numbers import Estimate
from fewseg.types import IGNORE, Features, Guides

ATTENTION, SIMILARITY = "attention", "similarity"

Cells = dict[Any, Tensor]
"""A support, or a support and a query: the map (h, w)."""


def has_attention(subject: Subject) -> bool:
    """Whether it has SAAM."""
    config = subject.recipe.method
    return isinstance(config, SDAANetConfig) and isinstance(config.attention, SupervisedAttention)


def has_prototypes(subject: Subject) -> bool:
    """Whether it is a row of SD-AANet's Table III."""
    return subject.stem in STEMS


def make_attention(study: Study) -> None:
    """Makes the attention's pictures for each fold, and a plot of how well it orders cells."""
    _make(study, ATTENTION, has_attention, "checkpoint of SD-AANet with SAAM", attention_maps)


def make_similarity(study: Study) -> None:
    """Makes the pictures of likeness for each fold, and a plot of how well it orders cells."""
    _make(study, SIMILARITY, has_prototypes, "checkpoint of SD-AANet's Table III", similarity_maps)


def similarity_maps(opened: Opened, specs: Sequence[EpisodeSpec], progress: bool) -> Cells:
    """Likeness (h, w) of each different support's cells to its prototype."""
    shots = list(distinct_shots([(0, spec) for spec in specs]))
    method = opened.method
    assert isinstance(method, PairScorer)

    def look(features: Features, masks: Tensor) -> Tensor:
        if isinstance(method, SDAANet):
            pooled = method.pool(features, masks)
            maps = pooled.mid * gated(pooled.values)[..., None, None]
            return prototype_similarity(maps.float(), pooled.prototypes.float()).cpu()
        maps = method.mid_support.of(features)  # type: ignore[operator, union-attr]
        prototypes = method.encode_shots(features, masks)["vectors"][:, 0]
        return prototype_similarity(maps.float(), prototypes.float()).cpu()

    found = torch.cat(opened.over_shots(shots, look, f"likeness, {opened.subject.label}", progress=progress))
    return dict(zip(shots, found, strict=True))


def attention_maps(opened: Opened, specs: Sequence[EpisodeSpec], progress: bool) -> Cells:
    """SAAM's attention (h, w) of each different (support, query)."""
    method = opened.method
    assert isinstance(method, SDAANet)
    shots = list(distinct_shots([(0, spec) for spec in specs]))
    made = opened.over_shots(shots, method.encode_shots, "supports", progress=progress)
    each = [batch.without_keys().select([i]) for batch in made for i in range(len(batch))]
    guides = dict(zip(shots, each, strict=True))
    by_query: dict[str, list[Shot]] = {}
    for spec in specs:
        wanted = by_query.setdefault(spec.query, [])
        shot = Shot(spec.class_id, spec.supports[0])
        if shot not in wanted:
            wanted.append(shot)
    opened.store.ensure(list(by_query), [0], progress=progress)
    images = opened.evaluator(progress=progress).images
    found: dict[tuple[Shot, str], Tensor] = {}
    device = images.device.type
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=opened.precision == "bf16"):
        for query, wanted in tracked(progress, f"attention, {opened.subject.label}", by_query.items()):
            maps = method.encode_query(images.features([query]))
            several = Guides.stack([guides[shot] for shot in wanted])
            for shot, one in zip(wanted, method.attention_map(maps, several)[:, 0], strict=True):
                found[shot, query] = one.float().cpu()
    return found


def _place(kind: str, spec: EpisodeSpec) -> tuple[object, str]:
    """The key of an episode's map, and the image that it lies on."""
    shot = Shot(spec.class_id, spec.supports[0])
    return ((shot, spec.query), spec.query) if kind == ATTENTION else (shot, shot.image)


def _make(
    study: Study,
    kind: str,
    fits: Callable[[Subject], bool],
    what: str,
    maps_of: Callable[[Opened, Sequence[EpisodeSpec], bool], Cells],
) -> None:
    rows: list[Row] = []
    groups: dict[str, dict[str, Estimate]] = {}
    dataset = ""
    for fold, subjects in study.wanted(kind, fits, what):
        shown: list[tuple[Opened, Cells]] = []
        for subject in sorted(subjects, key=lambda s: STEMS.index(s.stem) if s.stem in STEMS else 0):
            with study.attempt(f"{kind}, {subject.label} fold {fold}"):
                opened = study.open(subject)
                dataset = opened.data.dataset
                specs = [spec for _, spec in opened.episodes(1, study.episodes)]
                maps = maps_of(opened, specs, study.progress)
                shown.append((opened, maps))
                row, order = _contrast_row(opened, kind, specs, maps, study.progress)
                rows.append(row)
                groups.setdefault(f"fold {fold}", {})[subject.stem] = order
        if shown:
            with study.attempt(f"{kind}, fold {fold}"):
                _pictures(study, kind, fold, shown)
    if groups:
        study.save(draw_order(groups, kind, dataset), f"{kind}-order", rows)


def _contrast_row(
    opened: Opened, kind: str, specs: Sequence[EpisodeSpec], maps: Cells, progress: bool
) -> tuple[Row, Estimate]:
    """Mean contrast over the different maps."""
    found: dict[object, Contrast] = {}
    for spec in tracked(progress, f"{kind}: cells in order", specs):
        key, image = _place(kind, spec)
        if key not in found:
            one = contrast(maps[key], *_truth_cells(opened, image, spec.class_id, maps[key]))
            if one is not None:
                found[key] = one
    means = {
        name: mean_estimate([getattr(c, name) for c in found.values()])
        for name in ("inside", "outside", "order")
    }
    row: dict[str, Cell] = {**opened.subject.said, "maps": len(found)}
    for name, mean in means.items():
        row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return row, means["order"]


def _truth_cells(opened: Opened, image: str, class_id: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and counted cells of an image, on the grid of a map (h, w)."""
    size = (int(like.shape[0]), int(like.shape[1]))
    labels = opened.store.labels([image])
    foreground = foreground_cells((labels == class_id).to(torch.uint8), size)[0, 0] >= 0.5
    ignored = foreground_cells((labels == IGNORE).to(torch.uint8), size)[0, 0] >= 0.5
    return foreground, ~ignored | foreground


def _pictures(study: Study, kind: str, fold: int, shown: Sequence[tuple[Opened, Cells]]) -> None:
    first, like = shown[0]
    episodes = drawn_episodes(first.episodes(1, study.episodes), study.examples, kind, study.seed, fold)
    rows: list[list[Panel]] = []
    names: list[str] = []
    arrays: dict[str, Any] = {}
    data: list[Row] = []
    for number, (seed, spec) in enumerate(episodes):
        key, image = _place(kind, spec)
        view = network_view(first, image)
        target, _ = _truth_cells(first, image, spec.class_id, like[key])
        truth = on_pixels(first, image, target) > 0.5
        panels = [Panel(picture=shown_support(first, Shot(spec.class_id, spec.supports[0])))]
        if kind == ATTENTION:
            panels.append(Panel(picture=spotlight(*read(first, spec.query, spec.class_id))))
        for opened, maps in shown:
            values = on_pixels(opened, image, maps[key])
            scaled = unit_range(values) if kind == ATTENTION else values.clip(0, 1)
            panels.append(Panel(picture=overlay(view, scaled, truth)))
            arrays[f"{number} {opened.subject.stem}"] = maps[key].numpy()
        rows.append(panels)
        names.append(first.data.split.class_names[spec.class_id])
        data.append(
            {
                "number": number,
                "seed": seed,
                "episode": spec.index,
                "class": spec.class_id,
                "support": spec.supports[0],
                "query": spec.query,
            }
        )
    columns = ["support", *(["truth"] if kind == ATTENTION else []), *(one.subject.label for one, _ in shown)]
    figure = grid(rows, columns, names, f"{first.data.dataset} fold {fold}: {_TITLES[kind]}")
    add_scale(figure, _SCALES[kind])
    name = f"{kind}-fold{fold}"
    study.save(figure, name, data, photographs=True)
    study.save_arrays(name, photographs=True, **arrays)


_TITLES = {
    ATTENTION: "SAAM's attention on the query; white: the target's outline",
    SIMILARITY: "cosine of the support's cells to its prototype; white: the mask's outline",
}
_SCALES = {ATTENTION: "attention, from the least to the most of the image", SIMILARITY: "cosine"}


def draw_order(groups: Mapping[str, Mapping[str, Estimate]], kind: str, dataset: str) -> Figure:
    """How often a cell of the target has more than another cell, by fold.

    The attention's sign is free: nothing supervises the query's map but the decoder that reads it. Far below
    a half it tells the target as well as far above.
    """
    figure = new_figure(3.0 + 1.3 * len(groups), 3.2)
    axes = figure.subplots()
    grouped_bars(axes, groups, {stem: NAMES[stem] for stem in STEMS}, unit="% of cell pairs in order")
    axes.axhline(50, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylim(0, 100)
    free = " (or less: its sign is free)" if kind == ATTENTION else ""
    title = f"{dataset}, {kind}: a cell of the\ntarget has more{free} than another"
    axes.set_title(title, fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return figure
