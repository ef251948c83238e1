"""PMMs: mixtures of prototypes of foreground and background, which guide the query and classify it.

Source: PMMs (Yang et al., ECCV 2020; arXiv 2008.03898), Sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.canet import DenseComparison, IterativeTrunk
from fewseg.methods.fusion import AllFusion, AllVectors, CrossGuided, ScoreAverage
from fewseg.methods.layers import MidLevel
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.prototypical import dot_products
from fewseg.methods.registry import register_method
from fewseg.ops.similarity import products, unit_cells
from fewseg.types import IGNORE, Features, Guides, QueryMaps, check_above, check_at_least

_EMPTY = 1e-6
"""Cells that a component must hold in all, or it keeps its vector."""


@dataclass(frozen=True, kw_only=True)
class PMMsConfig(PairConfig):
    """PMMs' parts and sizes; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        components: K of the paper, prototypes of the foreground and as many of the background.
        kappa: concentration of a component.
        iterations: steps of expectation and maximisation.
        fusion: how K shots become one answer; the prototypes of all shots are the default.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d after the comparison and in the classifier.

    Raises:
        ValueError: a number is out of range.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3")
    components: int = 3
    kappa: float = 20.0
    iterations: int = 10
    fusion: AllFusion = field(default_factory=AllVectors)
    mid_dropout: float = 0.5
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "components", "iterations")
        check_above(self, 0, "kappa")


def far_apart(unit: Tensor, weights: Tensor, count: int) -> Tensor:
    """Start of a mixture (n, k, d): the unit cell (n, P, d) nearest to the mean, then those farthest from it.

    Cells of no weight (n, P) are not taken while there are others; of fewer cells than components some are
    taken twice.
    """
    rows = torch.arange(len(unit), device=unit.device)
    out = weights <= 0
    mean = (unit * weights.unsqueeze(2)).sum(dim=1, keepdim=True)
    near = products(unit, mean).squeeze(2).masked_fill(out, -torch.inf)
    chosen = [unit[rows, near.argmax(dim=1)]]
    for _ in range(count - 1):
        closest = products(unit, torch.stack(chosen, dim=1)).amax(dim=2).masked_fill(out, torch.inf)
        chosen.append(unit[rows, closest.argmin(dim=1)])
    return torch.stack(chosen, dim=1)


def expectation(unit: Tensor, vectors: Tensor, kappa: float) -> Tensor:
    """E (n, P, k): how much each unit cell (n, P, d) belongs to each component (n, k, d).

    Source: PMMs (Yang et al. 2020), Eq. 3.
    """
    return (kappa * products(unit, F.normalize(vectors, dim=2))).softmax(dim=2)


def maximisation(cells: Tensor, belongs: Tensor, vectors: Tensor) -> Tensor:
    """The mean (n, k, d) of the cells (n, P, d) by their share (n, P, k).

    An empty component keeps its vector.

    Source: PMMs (Yang et al. 2020), Eq. 4.
    """
    total = belongs.sum(dim=1).unsqueeze(2)
    means = belongs.transpose(1, 2) @ cells / total.clamp(min=_EMPTY)
    return torch.where(total > _EMPTY, means, vectors)


def mixture(cells: Tensor, weights: Tensor, count: int, kappa: float, iterations: int) -> Tensor:
    """Prototypes (n, k, d) of cells (n, P, d) that count by weights (n, P); zeros where no cell counts.

    Gradients reach the cells through the last mean alone.

    Source: PMMs (Yang et al. 2020), Sec. 3.1.
    """
    with torch.no_grad():
        unit = F.normalize(cells.float(), dim=2)
        vectors = far_apart(unit, weights, count)
        for step in range(iterations):
            belongs = expectation(unit, vectors, kappa) * weights.unsqueeze(2)
            if step < iterations - 1:
                vectors = maximisation(unit, belongs, vectors)
    means = maximisation(cells.float(), belongs, vectors)
    return means * (weights > 0).any(dim=1)[:, None, None]


def p_match(comparison: DenseComparison, maps: Tensor, vectors: Tensor, components: int) -> Tensor:
    """P-Match (n, d, h, w): the dense comparison with each foreground vector, summed over a shot's.

    Source: PMMs (Yang et al. 2020), Eq. 5; over several shots the mean.

    Args:
        comparison: of a map with one vector.
        maps: (n or 1, d, h, w) of the query.
        vectors: (n, V, d), ``components`` of each shot.
        components: vectors of one shot.
    """
    count = vectors.shape[1]
    maps = maps if len(maps) == 1 else maps.repeat_interleave(count, dim=0)
    each = comparison(maps, vectors.flatten(0, 1).unsqueeze(1)).unflatten(0, (-1, count))
    matched: Tensor = each.mean(dim=1) * components
    return matched


def p_conv(maps: Tensor, background: Tensor, foreground: Tensor, kappa: float) -> Tensor:
    """P-Conv (n, 2, h, w): the probabilities of the components, summed over background and foreground.

    Source: PMMs (Yang et al. 2020), Eq. 6-7; maps (n or 1, d, h, w), prototypes (n, V, d) of each.
    """
    both = torch.cat([background, foreground], dim=1)
    unit = unit_cells(maps).expand(len(both), -1, -1, -1)
    chance = (kappa * dot_products(unit, F.normalize(both, dim=2))).softmax(dim=1)
    probabilities: Tensor = chance.unflatten(1, (2, -1)).sum(dim=2)
    return probabilities


@register_method("pmms", PMMsConfig)
class PMMs(PairScorer):
    """Mixtures of foreground and background guide the query (P-Match) and score it (P-Conv).

    Deviations: the start of the mixtures is made of cells far apart, where the paper gives none; several
    shots have a mixture each; the maps of P-Conv enter at the first residual block of CANet's decoder, which
    does not iterate.
    """

    config: PMMsConfig
    fusions = (AllVectors(), ScoreAverage(), CrossGuided())

    def __init__(self, config: PMMsConfig) -> None:
        super().__init__(config)
        d, width = config.channels, self.backbone.width(config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout, kernel=3)
        self.comparison = DenseComparison(d, vectors=1, dropout=config.head_dropout)
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout)

    def prototypes(self, features: Features, masks: Tensor, components: int) -> tuple[Tensor, Tensor]:
        """The foreground's prototypes (n, components, d) and the background's, of each shot."""
        maps, config = self.mid.of(features), self.config
        cells = maps.flatten(2).transpose(1, 2)
        foreground = self.cells(masks, maps)
        background = self.cells(((masks != 1) & (masks != IGNORE)).to(masks.dtype), maps) * (1 - foreground)
        vectors, others = (
            mixture(cells, of.flatten(1).float(), components, config.kappa, config.iterations).to(maps.dtype)
            for of in (foreground, background)
        )
        return vectors, others

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The foreground's prototypes (n, k, d) and the background's, of each shot."""
        vectors, background = self.prototypes(features, masks, self.config.components)
        return Guides(maps={"vectors": vectors, "background": background})

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features))

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        config, vectors = self.config, guides["vectors"]
        matched = p_match(self.comparison, query.mid, vectors, config.components)
        logits: Tensor = self.trunk(matched, p_conv(query.mid, guides["background"], vectors, config.kappa))
        return logits
