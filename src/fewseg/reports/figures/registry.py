"""Every figure by its name, with what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fewseg.reports.figures import (
    failures_figure,
    maps_figure,
    metric_figure,
    prototypes_figure,
    qualitative_figure,
    shot_weights_figure,
    sizes_figure,
    support_masks_figure,
)
from fewseg.reports.figures.study import Study


@dataclass(frozen=True, kw_only=True)
class FigureKind:
    """A figure of the papers.

    Attributes:
        shows: what it shows, and where it is printed.
        needs: what it is made from.
        make: makes it for every fold, and notes what is missing.
    """

    shows: str
    needs: str
    make: Callable[[Study], None]


FIGURES: Mapping[str, FigureKind] = {
    qualitative_figure.NAME: FigureKind(
        shows="support, query, truth and predictions (SCL 6, SRPNet 5-6, SD-AANet 8)",
        needs="any checkpoint",
        make=qualitative_figure.make,
    ),
    support_masks_figure.NAME: FigureKind(
        shows="the masks behind v_s, v_pri and v_aux, and where they lie (SCL 4)",
        needs="a checkpoint of SCL",
        make=support_masks_figure.make,
    ),
    metric_figure.NAME: FigureKind(
        shows="support features under cosine and fidelity (SRPNet 4)",
        needs="a checkpoint of SRPNet, the matcher, or any checkpoint with a frozen trunk",
        make=metric_figure.make,
    ),
    prototypes_figure.NAME: FigureKind(
        shows="support prototypes and how compact they are (SD-AANet 9)",
        needs="checkpoints of SD-AANet's Table III",
        make=prototypes_figure.make,
    ),
    sizes_figure.NAME: FigureKind(
        shows="mIoU by the size of the target (SD-AANet 10)", needs="1-shot results", make=sizes_figure.make
    ),
    maps_figure.ATTENTION: FigureKind(
        shows="SAAM's attention on queries (SD-AANet 11)",
        needs="a checkpoint of SD-AANet with SAAM",
        make=maps_figure.make_attention,
    ),
    maps_figure.SIMILARITY: FigureKind(
        shows="likeness of a support's cells to its prototype (SD-AANet 12)",
        needs="checkpoints of SD-AANet's Table III",
        make=maps_figure.make_similarity,
    ),
    failures_figure.NAME: FigureKind(
        shows="failures by rule, how often and a few of each (SRPNet 7, SD-AANet 13)",
        needs="any checkpoint; 1-shot results for what counts can tell",
        make=failures_figure.make,
    ),
    shot_weights_figure.NAME: FigureKind(
        shows="the cross-guided module's weights against the true IoU of each shot (SCL Eq. 16)",
        needs="a checkpoint of SCL",
        make=shot_weights_figure.make,
    ),
}
