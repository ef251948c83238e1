"""SCL's Fig. 4 with numbers: the masks of a few supports, and shares over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig, SupportPathScorer
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import Row
from fewseg.reports.figures.photographs import Panel, grid, network_view, on_pixels
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import new_figure
from fewseg.reports.figures.subjects import Opened, Shot, Subject, distinct_shots
from fewseg.reports.figures.support_masks import (
    REACHES,
    REGIONS,
    RegionShares,
    SupportRegions,
    mostly_primary,
    region_counts,
    region_shares,
    support_regions,
)
from fewseg.reports.marked_pictures import spotlight
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

NAME = "support-masks"
ALL, MOSTLY = "all supports", "supports where v_pri covers at least half"
_SYMBOLS = {"foreground": "v_s", "primary": "v_pri", "auxiliary": "v_aux"}


def fits(subject: Subject) -> bool:
    """Whether it has SCL's support path."""
    return isinstance(subject.recipe.method, SCLPFENetConfig | SCLCANetConfig)


def make(study: Study) -> None:
    """Makes a picture for each checkpoint of SCL, and one plot of the shares of all."""
    found: dict[str, dict[str, RegionShares]] = {ALL: {}, MOSTLY: {}}
    rows: list[Row] = []
    gains: Gains = {}
    dataset = ""
    for fold, subjects in study.wanted(NAME, fits, "checkpoint of SCL"):
        for subject in subjects:
            with study.attempt(f"{NAME}, {subject.label} fold {fold}"):
                opened = study.open(subject)
                shots = list(distinct_shots(opened.episodes(1, study.episodes)))
                regions = regions_of(opened, shots, study.progress)
                counts = [_counts(opened, s, r) for s, r in zip(shots, regions, strict=True)]
                chosen: dict[str, Sequence[Mapping[str, int]]] = {ALL: counts, MOSTLY: mostly_primary(counts)}
                for name, some in chosen.items():
                    if name == ALL or any(c["auxiliary"] for c in some):
                        shares = region_shares(some, seed=study.seed)
                        found[name][f"{subject.label}\nfold {fold}"] = shares
                        rows += _rows(subject, name, shares)
                        _note_gains(gains, subject, name, shares)
                dataset = opened.data.dataset
                _picture(study, opened, dict(zip(shots, regions, strict=True)))
    if rows:
        study.save(draw_shares(found, dataset), "support-mask-shares", rows)
    for (claim, quantity), by_fold in gains.items():
        study.claim(claim, dataset, quantity, by_fold)


def regions_of(opened: Opened, shots: list[Shot], progress: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The three regions (h, w) of each support."""
    method = opened.method
    assert isinstance(method, SupportPathScorer)

    def look(features: Features, masks: Tensor) -> SupportRegions:
        seen = method.first_pass(features, masks)
        return support_regions(seen.cells, seen.first.logits, method.self_guided.threshold)

    batches = opened.over_shots(shots, look, "support masks", progress=progress)
    return [
        (torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(c))
        for batch in batches
        for a, b, c in zip(batch.foreground, batch.primary, batch.auxiliary, strict=True)
    ]


def _counts(opened: Opened, shot: Shot, regions: tuple[Tensor, ...]) -> dict[str, int]:
    h, w = opened.content(shot.image, int(regions[0].shape[0]))
    return region_counts(*(region[:h, :w].numpy() for region in regions))


def _rows(subject: Subject, chosen: str, shares: RegionShares) -> list[Row]:
    def row(quantity: str, region: str, found: Estimate) -> Row:
        return {
            **subject.said,
            "of": chosen,
            "quantity": quantity,
            "region": region,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "supports": shares.supports,
            "supports_without_it": shares.empty.get(region),
        }

    rows = [row("share of the foreground", name, found) for name, found in shares.coverage.items()]
    for reach in REACHES:
        place = f"share of its cells within {reach} of the boundary"
        rows += [row(place, name, found) for name, found in shares.on_edge[reach].items()]
        for name, gain in shares.edge_gain[reach].items():
            rows.append(row(f"{place}: auxiliary less {name}", "auxiliary", gain))
    return rows


Gains = dict[tuple[str, str], dict[int, tuple[Estimate, int]]]


def _note_gains(gains: Gains, subject: Subject, chosen: str, shares: RegionShares) -> None:
    """Adds the gains of one checkpoint: (claim, quantity) to fold to the number."""
    for reach in REACHES:
        for name, gain in shares.edge_gain[reach].items():
            less = f"share of v_aux's cells at most {reach} from the boundary less that of {_SYMBOLS[name]}'s"
            key = (f"v_aux lies on edges ({subject.label})", f"{less}, {chosen}")
            gains.setdefault(key, {})[subject.fold] = (gain, shares.supports)


def _picture(study: Study, opened: Opened, regions: Mapping[Shot, tuple[Tensor, ...]]) -> None:
    shots = list(regions)
    draws = Draws("figure", NAME, study.seed, opened.subject.fold)
    chosen = draws.sample(shots, min(study.examples, len(shots)))
    rows: list[list[Panel]] = []
    numbers: list[Row] = []
    for shot in chosen:
        view = network_view(opened, shot.image)
        panels = [Panel(picture=view)]
        counts = _counts(opened, shot, regions[shot])
        for name, region in zip(REGIONS, regions[shot], strict=True):
            marked = on_pixels(opened, shot.image, region) > 0.5
            share = counts[name] / max(counts["foreground"], 1)
            panels.append(Panel(picture=spotlight(view, marked.astype("uint8")), note=f"{100 * share:.0f} %"))
        rows.append(panels)
        numbers.append({"class": shot.class_id, "image": shot.image, **counts})
    names = [opened.data.split.class_names[s.class_id] for s in chosen]
    columns = ["support", *(f"mask of {_SYMBOLS[name]}" for name in REGIONS)]
    subject = opened.subject
    title = f"{subject.label}, {opened.data.dataset} fold {subject.fold}: share of the foreground below each"
    name = f"{NAME}-{subject.stem}-fold{subject.fold}"
    study.save(grid(rows, columns, names, title), name, numbers, photographs=True)


def draw_shares(found: Mapping[str, Mapping[str, RegionShares]], dataset: str) -> Figure:
    """Coverage of v_pri and v_aux, and how near the boundary each region lies; whiskers are 95 %.

    Args:
        found: which supports (a row of the figure), to the checkpoint, to its shares.
        dataset: its name.
    """
    kept = {name: shares for name, shares in found.items() if shares}
    width = min(7.2 + 1.8 * max(map(len, kept.values())), 21.0)
    figure = new_figure(width, 2.9 * len(kept) + 0.4)
    parts = figure.subplots(len(kept), 1 + len(REACHES), squeeze=False)
    for row, (name, shares) in zip(parts, kept.items(), strict=True):
        grouped_bars(row[0], {k: v.coverage for k, v in shares.items()}, _SYMBOLS)
        row[0].set_title(f"{name}:\nshare of the foreground", fontsize=8)
        for axes, reach in zip(row[1:], REACHES, strict=True):
            grouped_bars(axes, {k: v.on_edge[reach] for k, v in shares.items()}, _SYMBOLS)
            axes.set_title(f"{name}:\nshare of its cells at most {reach}\nfrom the boundary", fontsize=8)
        for axes in row:
            axes.set_ylim(0, 105)
    figure.suptitle(f"{dataset}: masks of SCL's supports", fontsize=9)
    handles, labels = parts[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(REGIONS), fontsize=8)
    return figure
