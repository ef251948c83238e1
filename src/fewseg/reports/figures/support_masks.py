"""The masks behind v_s, v_pri and v_aux, and where in the foreground they lie: pictures and numbers.

Source: SCL (Zhang et al. 2021), Fig. 4: "v_pri aggregates the main information of the support image and v_aux
mainly collects edge information".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.methods.scl import SupportPathScorer
from fewseg.ops.masks import ForegroundRule, covered_and_missed
from fewseg.reports.figures.base import CheckpointFigure, GridRow, Record
from fewseg.reports.figures.drawing import bar_chart
from fewseg.reports.figures.intervals import mean_estimate, ratio_estimate
from fewseg.reports.figures.model import FigureModel, Support
from fewseg.reports.marked_pictures import spotlight
from fewseg.reports.numbers import Estimate
from fewseg.types import Features

SYMBOLS = {"foreground": "v_s", "primary": "v_pri", "auxiliary": "v_aux"}
"""The regions, and the vectors that are pooled over them."""
REACHES = (1, 2)
"""A cell lies on the edge when it is at most this many cells away from a cell outside the foreground."""
ALL, MOSTLY = "all supports", "supports where v_pri covers at least half"
COVERAGE = "share of the foreground"
ON_EDGE = {reach: f"share of its cells within {reach} of the boundary" for reach in REACHES}

T = TypeVar("T")


def support_regions(cells: Tensor, logits: Tensor, threshold: ForegroundRule = 0.5) -> Tensor:
    """The masks (n, 3, h, w), bool, that v_s, v_pri and v_aux are pooled over (SCL, Eq. 1, 4, 5 and 6)."""
    covered, missed = covered_and_missed(cells, logits.argmax(dim=1), threshold)
    least = 0.5 if threshold == "truncated" else threshold
    return torch.cat([cells >= least, covered.bool(), missed.bool()], dim=1).cpu()


def distance_to_boundary(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Chessboard distance from each foreground cell (h, w) to the nearest other cell; 0 for other cells.

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


def mostly_primary(counts: pd.DataFrame) -> pd.DataFrame:
    """The counts of the supports where v_pri covers half of the foreground or more.

    The paper calls them most cases; in the others v_aux covers the body of the object.
    """
    return counts[(counts.foreground > 0) & (2 * counts.primary >= counts.foreground)]


@dataclass(frozen=True, kw_only=True)
class RegionShares:
    """What the regions of many supports cover."""

    supports: int  # number of supports
    empty: Mapping[str, int]  # region to number of supports without it
    # quantity to region to its estimate: the mean share of the foreground that it covers, and the share of
    # its cells, over all supports, that lie near the boundary
    shares: Mapping[str, Mapping[str, Estimate]]
    # (reach, region) to that share of v_aux less the region's
    edge_gain: Mapping[tuple[int, str], Estimate]


def region_shares(counts: pd.DataFrame, *, seed: int = 0) -> RegionShares:
    """Summarises the counts of supports, one row each; supports without a foreground cell are left out."""
    counts = counts[counts.foreground > 0]
    if not len(counts):
        raise ValueError("no support has a foreground cell")
    parts = ("primary", "auxiliary")
    for name in parts:
        if not counts[name].any():
            raise ValueError(f"no support has a cell of {SYMBOLS[name]}: the first pass predicts all alike")
    # parts and wholes are summed first, so that supports weigh by their number of cells
    shares = {COVERAGE: {name: mean_estimate(counts[name] / counts.foreground, seed=seed) for name in parts}}
    gains = {}
    for reach, quantity in ON_EDGE.items():
        pairs = {name: (counts[f"{name}_within_{reach}"], counts[name]) for name in SYMBOLS}
        shares[quantity] = {name: ratio_estimate(*pair, seed=seed) for name, pair in pairs.items()}
        for name in ("foreground", "primary"):
            gains[reach, name] = ratio_estimate(*pairs["auxiliary"], less=pairs[name], seed=seed)
    empty = {name: int((counts[name] == 0).sum()) for name in parts}
    return RegionShares(supports=len(counts), empty=empty, shares=shares, edge_gain=gains)


def regions_of(model: FigureModel) -> dict[Support, Tensor]:
    """The three regions (3, h, w) of each support."""
    method: Any = model.method

    def look(features: Features, masks: Tensor) -> Tensor:
        seen = method.first_pass(features, masks)
        return support_regions(seen.cells, seen.first.logits, method.self_guided.threshold)

    regions = torch.cat(model.over_supports(list(model.supports), look, "support masks"))
    return dict(zip(model.supports, regions, strict=True))


class SCLFigure(CheckpointFigure[T]):
    """A figure of SCL's support path or cross-guided module."""

    checkpoint = "checkpoint of SCL"
    needs = "a checkpoint of SCL"

    def fits(self, model: FigureModel) -> bool:
        """Whether it is a checkpoint of SCL."""
        return issubclass(model.recipe.method.method, SupportPathScorer)


class SupportMasks(SCLFigure[dict[str, RegionShares]]):
    """A picture for each checkpoint of SCL, and one plot of the shares of all."""

    name = "support-masks"
    shows = "the masks behind v_s, v_pri and v_aux, and where they lie (SCL 4)"

    def measure(self, model: FigureModel) -> dict[str, RegionShares]:
        """Measures the shares of all supports and, if they have cells of v_aux, of most cases."""
        regions, rows = regions_of(model), []
        for support, masks in regions.items():
            h, w = model.content(support.image, masks.shape[1])
            rows.append(region_counts(masks[:, :h, :w].numpy()))
        counts = pd.DataFrame(rows)
        shares_of = {ALL: region_shares(counts, seed=self.options.seed)}
        mostly = mostly_primary(counts)
        if mostly.auxiliary.any():
            shares_of[MOSTLY] = region_shares(mostly, seed=self.options.seed)
        self._picture(model, regions, dict(zip(regions, rows, strict=True)))
        for chosen, shares in shares_of.items():
            self._note(model, chosen, shares)
        return shares_of

    def _note(self, model: FigureModel, chosen: str, shares: RegionShares) -> None:
        """Notes a row per quantity and region, and how much more of v_aux than of others is on the edge."""
        rows = [(COVERAGE, region, estimate) for region, estimate in shares.shares[COVERAGE].items()]
        for reach, quantity in ON_EDGE.items():
            rows += [(quantity, region, estimate) for region, estimate in shares.shares[quantity].items()]
            for name in ("foreground", "primary"):
                gain = shares.edge_gain[reach, name]
                rows.append((f"{quantity}: auxiliary less {name}", "auxiliary", gain))
                claim = f"v_aux lies on edges ({model.label})"
                less = f"at most {reach} from the boundary less that of {SYMBOLS[name]}'s, {chosen}"
                self.claim(model.fold, claim, f"share of v_aux's cells {less}", (gain, shares.supports))
        for quantity, region, estimate in rows:
            about = {**model.columns, "of": chosen, "quantity": quantity, "region": region}
            counted = {"supports": shares.supports, "supports_without_it": shares.empty.get(region)}
            self.records.append(about | asdict(estimate) | counted)

    def _picture(
        self,
        model: FigureModel,
        regions: Mapping[Support, Tensor],
        counts: Mapping[Support, Mapping[str, int]],
    ) -> None:
        draws = Draws("figure", self.name, self.options.seed, model.fold)
        chosen = draws.sample(list(regions), min(self.options.examples, len(regions)))
        rows: list[GridRow] = []
        for support in chosen:
            view = model.network_view(support.image)
            row = [(view, "")]
            for name, region in zip(SYMBOLS, regions[support], strict=True):
                marked = model.on_pixels(support.image, region) > 0.5
                share = counts[support][name] / max(counts[support]["foreground"], 1)
                row.append((spotlight(view, marked.astype("uint8")), f"{100 * share:.0f} %"))
            record: Record = {"class": support.class_id, "image": support.image, **counts[support]}
            rows.append((model.class_name(support.class_id), row, record))
        columns = ["support", *(f"mask of {symbol}" for symbol in SYMBOLS.values())]
        title = f"{model.label}, {model.data.dataset} fold {model.fold}: share of the foreground below each"
        self.save_grid(f"{self.name}-{model.variant}-fold{model.fold}", rows, columns, title)

    def draw_all(self, measured: Mapping[FigureModel, dict[str, RegionShares]]) -> None:
        """Draws the coverage of v_pri and v_aux, and the share of each region near the boundary."""
        titles = {COVERAGE: COVERAGE}
        for reach, quantity in ON_EDGE.items():
            titles[quantity] = f"share of its cells at most {reach}\nfrom the boundary"
        shown = {}
        for chosen in (ALL, MOSTLY):
            values = {model: value[chosen] for model, value in measured.items() if chosen in value}
            if values:
                for quantity, title in titles.items():
                    shown[f"{chosen}:\n{title}"] = {m.group: v.shares[quantity] for m, v in values.items()}
        size = (min(7.2 + 1.8 * len(measured), 21.0), 2.9 * (len(shown) // 3) + 0.4)
        title = f"{self.context.dataset}: masks of SCL's supports"
        figure = bar_chart(
            size, shown, SYMBOLS, columns=3, title=title, limits=(0, 105), title_size=8, legend_columns=3
        )
        self.context.save(figure, "support-mask-shares", self.records)
