"""The masks behind v_s, v_pri and v_aux, and where in the foreground they lie.

Source: SCL (Zhang et al. 2021), Fig. 4: "v_pri aggregates the main information of the support image and v_aux
mainly collects edge information".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from fewseg.ops.masks import ForegroundRule, covered_and_missed
from fewseg.reports.figures.intervals import mean_estimate, ratio_difference, ratio_estimate
from fewseg.reports.numbers import Estimate

Mask = npt.NDArray[np.bool_]
REGIONS = ("foreground", "primary", "auxiliary")
"""The regions that v_s, v_pri and v_aux are pooled over."""
REACHES = (1, 2)
"""A cell lies on the edge when it is at most so many cells away from what is not foreground."""


@dataclass(frozen=True, kw_only=True)
class SupportRegions:
    """The regions of n supports on the feature grid, (n, h, w) each."""

    foreground: Mask
    primary: Mask
    auxiliary: Mask


def support_regions(cells: Tensor, logits: Tensor, threshold: ForegroundRule = 0.5) -> SupportRegions:
    """The masks that v_s, v_pri and v_aux are pooled over (SCL, Eq. 1, 4, 5 and 6).

    Args:
        cells: (n, 1, h, w) share of foreground.
        logits: (n, 2, h, w) of the first support pass.
        threshold: see ``covered_and_missed``.
    """
    covered, missed = (
        region[:, 0].bool().cpu().numpy()
        for region in covered_and_missed(cells, logits.argmax(dim=1), threshold)
    )
    least = 0.5 if threshold == "truncated" else threshold
    whole = (cells[:, 0] >= least).cpu().numpy()
    return SupportRegions(foreground=whole, primary=covered, auxiliary=missed)


def distance_to_boundary(foreground: Mask) -> npt.NDArray[np.int64]:
    """Steps of a chess king from each foreground cell (h, w) to the nearest other cell; 0 for those.

    What lies beyond the grid is unknown and no boundary; without any other cell all are farther away than
    the grid is wide.
    """
    if foreground.all():
        return np.full(foreground.shape, sum(foreground.shape), dtype=np.int64)
    return np.asarray(distance_transform_cdt(foreground, metric="chessboard"), dtype=np.int64)


def region_counts(foreground: Mask, primary: Mask, auxiliary: Mask) -> dict[str, int]:
    """Cells of each region of one support (h, w), and how many of them lie within each of ``REACHES``."""
    steps = distance_to_boundary(foreground)
    found = {}
    for name, region in zip(REGIONS, (foreground, primary, auxiliary), strict=True):
        found[name] = int(region.sum())
        for reach in REACHES:
            found[f"{name}_within_{reach}"] = int((region & (steps >= 1) & (steps <= reach)).sum())
    return found


def mostly_primary(counts: Sequence[Mapping[str, int]]) -> list[Mapping[str, int]]:
    """The counts of the supports of which v_pri covers half of the foreground or more.

    They are what the paper calls most cases; of the others v_aux holds the body of the object.
    """
    return [c for c in counts if c["foreground"] > 0 and 2 * c["primary"] >= c["foreground"]]


@dataclass(frozen=True, kw_only=True)
class RegionShares:
    """What the regions of many supports cover.

    Attributes:
        supports: how many.
        coverage: region to the mean share of the foreground that it covers; "foreground" itself is not there.
        empty: region to how many supports have none of it.
        on_edge: reach to region to the share of its cells, over all supports, that lie so near the boundary.
        edge_gain: reach to that share of v_aux less that of all foreground, and less that of v_pri.
    """

    supports: int
    coverage: Mapping[str, Estimate]
    empty: Mapping[str, int]
    on_edge: Mapping[int, Mapping[str, Estimate]]
    edge_gain: Mapping[int, Mapping[str, Estimate]]


def region_shares(counts: Sequence[Mapping[str, int]], *, seed: int = 0) -> RegionShares:
    """Sums up the counts of supports; supports without a foreground cell are left out.

    Intervals are over supports. Of an edge share parts and wholes are summed over the supports first, so
    that a support with three cells does not weigh like one with three hundred.

    Raises:
        ValueError: no support has foreground, or no cell of any support is in a region.
    """
    kept = [c for c in counts if c["foreground"] > 0]
    if not kept:
        raise ValueError("no support has a foreground cell")
    for name, symbol in (("primary", "v_pri"), ("auxiliary", "v_aux")):
        if not any(c[name] for c in kept):
            raise ValueError(f"no support has a cell of {symbol}: the first pass marks all of them alike")
    column = {name: np.array([c[name] for c in kept], dtype=np.float64) for name in kept[0]}
    whole = column["foreground"]
    on_edge, gain = {}, {}
    for reach in REACHES:
        pairs = {name: (column[f"{name}_within_{reach}"], column[name]) for name in REGIONS}
        on_edge[reach] = {name: ratio_estimate(*pair, seed=seed) for name, pair in pairs.items()}
        gain[reach] = {
            name: ratio_difference(pairs["auxiliary"], pairs[name], seed=seed)
            for name in ("foreground", "primary")
        }
    return RegionShares(
        supports=len(kept),
        coverage={name: mean_estimate(column[name] / whole, seed=seed) for name in REGIONS[1:]},
        empty={name: int((column[name] == 0).sum()) for name in REGIONS[1:]},
        on_edge=on_edge,
        edge_gain=gain,
    )
