"""The masks behind v_s, v_pri and v_aux, and where in the foreground they lie: pictures and numbers.

Source: SCL (Zhang et al. 2021), Fig. 4: "v_pri aggregates the main information of the support image and v_aux
mainly collects edge information".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.scl import SupportPathScorer
from fewseg.ops.masks import ForegroundRule, covered_and_missed
from fewseg.reports.figures.context import FigureContext, Record
from fewseg.reports.figures.drawing import Noted, grid, grouped_bars, new_figure
from fewseg.reports.figures.intervals import mean_estimate, ratio_difference, ratio_estimate
from fewseg.reports.figures.model import FigureModel, Support, distinct_supports
from fewseg.reports.marked_pictures import spotlight
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

NAME = "support-masks"
SYMBOLS = {"foreground": "v_s", "primary": "v_pri", "auxiliary": "v_aux"}
"""The regions, and the vectors that are pooled over them."""
REACHES = (1, 2)
"""A cell lies on the edge when it is at most so many cells away from what is not foreground."""
ALL, MOSTLY = "all supports", "supports where v_pri covers at least half"


def is_scl(model: FigureModel) -> bool:
    """Whether it has SCL's support path and cross-guided module."""
    return issubclass(model.recipe.method.method, SupportPathScorer)


def support_regions(cells: Tensor, logits: Tensor, threshold: ForegroundRule = 0.5) -> Tensor:
    """The masks (n, 3, h, w), bool, that v_s, v_pri and v_aux are pooled over (SCL, Eq. 1, 4, 5 and 6)."""
    covered, missed = covered_and_missed(cells, logits.argmax(dim=1), threshold)
    least = 0.5 if threshold == "truncated" else threshold
    return torch.cat([cells >= least, covered.bool(), missed.bool()], dim=1).cpu()


def distance_to_boundary(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Chessboard distance from each foreground cell (h, w) to the nearest other cell; 0 for those.

    What lies beyond the grid is unknown and no boundary; without any other cell all are farther away than
    the grid is wide.
    """
    if foreground.all():
        return np.full(foreground.shape, sum(foreground.shape), dtype=np.int64)
    return np.asarray(distance_transform_cdt(foreground, metric="chessboard"), dtype=np.int64)


def region_counts(regions: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Cells of each region (3, h, w) of one support, and how many of them lie within each of ``REACHES``."""
    distance = distance_to_boundary(regions[0])
    counts = {}
    for name, region in zip(SYMBOLS, regions, strict=True):
        counts[name] = int(region.sum())
        for reach in REACHES:
            counts[f"{name}_within_{reach}"] = int((region & (distance >= 1) & (distance <= reach)).sum())
    return counts


def mostly_primary(counts: Sequence[Mapping[str, int]]) -> list[Mapping[str, int]]:
    """The counts of the supports of which v_pri covers half of the foreground or more.

    They are what the paper calls most cases; of the others v_aux holds the body of the object.
    """
    return [c for c in counts if c["foreground"] > 0 and 2 * c["primary"] >= c["foreground"]]


@dataclass(frozen=True, kw_only=True)
class RegionShares:
    """What the regions of many supports cover."""

    supports: int  # how many
    # region to the mean share of the foreground that it covers, without "foreground" itself
    coverage: Mapping[str, Estimate]
    empty: Mapping[str, int]  # region to how many supports have none of it
    # reach to region to the share of its cells, over all supports, that lie so near the boundary
    on_edge: Mapping[int, Mapping[str, Estimate]]
    # reach to that share of v_aux less that of all foreground, and less that of v_pri
    edge_gain: Mapping[int, Mapping[str, Estimate]]


def region_shares(counts: Sequence[Mapping[str, int]], *, seed: int = 0) -> RegionShares:
    """Sums up the counts of supports; supports without a foreground cell are left out."""
    kept = [c for c in counts if c["foreground"] > 0]
    if not kept:
        raise ValueError("no support has a foreground cell")
    parts = ("primary", "auxiliary")
    for name in parts:
        if not any(c[name] for c in kept):
            raise ValueError(f"no support has a cell of {SYMBOLS[name]}: the first pass predicts all alike")
    # parts and wholes are summed first: a support of three cells does not weigh like one of three hundred
    column = {name: np.array([c[name] for c in kept], dtype=np.float64) for name in kept[0]}
    on_edge, gain = {}, {}
    for reach in REACHES:
        pairs = {name: (column[f"{name}_within_{reach}"], column[name]) for name in SYMBOLS}
        on_edge[reach] = {name: ratio_estimate(*pair, seed=seed) for name, pair in pairs.items()}
        gain[reach] = {
            name: ratio_difference(pairs["auxiliary"], pairs[name], seed=seed)
            for name in ("foreground", "primary")
        }
    return RegionShares(
        supports=len(kept),
        coverage={name: mean_estimate(column[name] / column["foreground"], seed=seed) for name in parts},
        empty={name: int((column[name] == 0).sum()) for name in parts},
        on_edge=on_edge,
        edge_gain=gain,
    )


def make(context: FigureContext) -> None:
    """Makes a picture for each checkpoint of SCL, and one plot of the shares of all."""
    shares: dict[str, dict[str, RegionShares]] = {ALL: {}, MOSTLY: {}}
    records: list[Record] = []
    gains: dict[tuple[str, str], dict[int, tuple[Estimate, int]]] = {}
    for _, models in context.models_by_fold(NAME, is_scl, "checkpoint of SCL"):
        for model in models:
            with context.attempt(f"{NAME}, {model.title}"):
                supports = list(distinct_supports(model.episodes(1, context.options.episodes)))
                regions = regions_of(model, supports, context.progress)
                counts = {support: _counts(model, support, regions[support]) for support in supports}
                chosen: dict[str, Sequence[Mapping[str, int]]] = {
                    ALL: list(counts.values()),
                    MOSTLY: mostly_primary(list(counts.values())),
                }
                for name, some in chosen.items():
                    if name == ALL or any(c["auxiliary"] for c in some):
                        found = region_shares(some, seed=context.options.seed)
                        shares[name][f"{model.label}\nfold {model.fold}"] = found
                        records += _records(model, name, found)
                        for key, gain in _gains(model, name, found).items():
                            gains.setdefault(key, {})[model.fold] = (gain, found.supports)
                _picture(context, model, regions, counts)
    if records:
        context.save(draw_shares(shares, context.dataset), "support-mask-shares", records)
    for (claim, quantity), by_fold in gains.items():
        context.claim(claim, context.dataset, quantity, by_fold)


def regions_of(model: FigureModel, supports: Sequence[Support], progress: bool) -> dict[Support, Tensor]:
    """The three regions (3, h, w) of each support."""
    method = model.method
    assert isinstance(method, SupportPathScorer)

    def look(features: Features, masks: Tensor) -> Tensor:
        seen = method.first_pass(features, masks)
        return support_regions(seen.cells, seen.first.logits, method.self_guided.threshold)

    found = torch.cat(model.over_supports(supports, look, "support masks", progress=progress))
    return dict(zip(supports, found, strict=True))


def _counts(model: FigureModel, support: Support, regions: Tensor) -> dict[str, int]:
    h, w = model.content(support.image, regions.shape[1])
    return region_counts(regions[:, :h, :w].numpy())


def _records(model: FigureModel, chosen: str, shares: RegionShares) -> list[Record]:
    def record(quantity: str, region: str, estimate: Estimate) -> Record:
        return {
            **model.columns,
            "of": chosen,
            "quantity": quantity,
            "region": region,
            **asdict(estimate),
            "supports": shares.supports,
            "supports_without_it": shares.empty.get(region),
        }

    records = [record("share of the foreground", name, found) for name, found in shares.coverage.items()]
    for reach in REACHES:
        place = f"share of its cells within {reach} of the boundary"
        records += [record(place, name, found) for name, found in shares.on_edge[reach].items()]
        for name, gain in shares.edge_gain[reach].items():
            records.append(record(f"{place}: auxiliary less {name}", "auxiliary", gain))
    return records


def _gains(model: FigureModel, chosen: str, shares: RegionShares) -> dict[tuple[str, str], Estimate]:
    """(claim, quantity) to the gain of one checkpoint."""
    claim = f"v_aux lies on edges ({model.label})"
    return {
        (
            claim,
            f"share of v_aux's cells at most {reach} from the boundary less that of {SYMBOLS[name]}'s, "
            f"{chosen}",
        ): gain
        for reach in REACHES
        for name, gain in shares.edge_gain[reach].items()
    }


def _picture(
    context: FigureContext,
    model: FigureModel,
    regions: Mapping[Support, Tensor],
    counts: Mapping[Support, Mapping[str, int]],
) -> None:
    supports = list(regions)
    draws = Draws("figure", NAME, context.options.seed, model.fold)
    chosen = draws.sample(supports, min(context.options.examples, len(supports)))
    rows: list[list[Noted]] = []
    for support in chosen:
        view = model.network_view(support.image)
        row = [(view, "")]
        for name, region in zip(SYMBOLS, regions[support], strict=True):
            marked = model.on_pixels(support.image, region) > 0.5
            share = counts[support][name] / max(counts[support]["foreground"], 1)
            row.append((spotlight(view, marked.astype("uint8")), f"{100 * share:.0f} %"))
        rows.append(row)
    records = [{"class": s.class_id, "image": s.image, **counts[s]} for s in chosen]
    names = [model.data.split.class_names[s.class_id] for s in chosen]
    columns = ["support", *(f"mask of {symbol}" for symbol in SYMBOLS.values())]
    title = f"{model.label}, {model.data.dataset} fold {model.fold}: share of the foreground below each"
    name = f"{NAME}-{model.variant}-fold{model.fold}"
    context.save(grid(rows, columns, names, title), name, records, photographs=True)


def draw_shares(shares: Mapping[str, Mapping[str, RegionShares]], dataset: str) -> Figure:
    """Coverage of v_pri and v_aux, and how near the boundary each region lies; whiskers are 95 %."""
    kept = {name: of_models for name, of_models in shares.items() if of_models}
    width = min(7.2 + 1.8 * max(map(len, kept.values())), 21.0)
    figure = new_figure(width, 2.9 * len(kept) + 0.4)
    panels = figure.subplots(len(kept), 1 + len(REACHES), squeeze=False)
    for row, (name, of_models) in zip(panels, kept.items(), strict=True):
        grouped_bars(row[0], {k: v.coverage for k, v in of_models.items()}, SYMBOLS)
        row[0].set_title(f"{name}:\nshare of the foreground", fontsize=8)
        for axes, reach in zip(row[1:], REACHES, strict=True):
            grouped_bars(axes, {k: v.on_edge[reach] for k, v in of_models.items()}, SYMBOLS)
            axes.set_title(f"{name}:\nshare of its cells at most {reach}\nfrom the boundary", fontsize=8)
        for axes in row:
            axes.set_ylim(0, 105)
    figure.suptitle(f"{dataset}: masks of SCL's supports", fontsize=9)
    handles = panels[0][-1].get_legend_handles_labels()  # the first panel has no v_s
    figure.legend(*handles, loc="outside lower center", ncols=len(SYMBOLS), fontsize=8)
    return figure
