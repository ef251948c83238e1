"""SD-AANet's maps as numbers: affinity attention, and how like a support's cells are to its prototype."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.ops.similarity import COSINE_EPS


def prototype_similarity(maps: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of every cell of a support's feature map with the support's own prototype.

    Source: SD-AANet (Zhao et al. 2022), Eq. 13.

    Args:
        maps: (n, d, h, w) the map that the prototype was pooled from: behind the gate, where there is one.
        prototypes: (n, d).

    Returns:
        (n, h, w) in [-1, 1]; 0 for a zero prototype.
    """
    unit = F.normalize(maps, dim=1, eps=COSINE_EPS)
    directions = F.normalize(prototypes, dim=1, eps=COSINE_EPS)[..., None, None]
    return (unit * directions).sum(dim=1)  # no product of matrices: autocast would round it


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How a map tells the target's cells from the others.

    Attributes:
        inside: mean over the target's cells.
        outside: mean over the other cells.
        order: probability that a cell of the target has more than another cell (area under the ROC curve).
    """

    inside: float
    outside: float
    order: float


def contrast(values: Tensor, foreground: Tensor, counted: Tensor) -> Contrast | None:
    """Compares a map (h, w) inside and outside the target.

    Args:
        values: (h, w).
        foreground: (h, w) bool.
        counted: (h, w) bool; cells of the padding or of ignored pixels are none.

    Returns:
        None where there is no cell inside or none outside.
    """
    from sklearn.metrics import roc_auc_score

    inside, outside = values[foreground & counted], values[~foreground & counted]
    if not len(inside) or not len(outside):
        return None
    truth = [1] * len(inside) + [0] * len(outside)
    order = roc_auc_score(truth, torch.cat([inside, outside]).double().numpy())
    return Contrast(inside=float(inside.mean()), outside=float(outside.mean()), order=float(order))
