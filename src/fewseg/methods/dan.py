"""DAN: attention to the support's object in which no few of its cells decide alone, at several levels.

Source: DAN (Wang et al., ECCV 2020), Sec. 3. Its text was not at hand: the idea is the paper's, the formulas
are this file's and bear no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.canet import IterativeTrunk
from fewseg.methods.fusion import AllFusion, AllVectors, CrossGuided, ScoreAverage
from fewseg.methods.layers import MidLevel
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.pgnet import GraphAttention, edge_weights
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.resize import resize
from fewseg.types import Features, Guides, QueryMaps


@dataclass(frozen=True, kw_only=True)
class DANConfig(PairConfig):
    """DAN's parts and sizes; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels that have a graph each, from low to high.
        democracy: in [0, 1], how much a support cell that many query cells attend to gives up; 0 is plain
            attention.
        fusion: how K shots become one answer; attention over the cells of all shots is the default.
        mid_dropout: Dropout2d after the mid-level convolutions.
        head_dropout: Dropout2d in the classifier.

    Raises:
        ValueError: no level is given, or ``democracy`` is out of range.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="resnet101"))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3", "layer4")
    democracy: float = 0.5
    fusion: AllFusion = field(default_factory=AllVectors)
    mid_dropout: float = 0.5
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mid_levels or not 0 <= self.democracy <= 1:
            raise ValueError(
                "mid_levels must be one or more levels and democracy in [0, 1], got "
                f"{self.mid_levels} and {self.democracy}"
            )


def democratic(weights: Tensor, power: float) -> Tensor:
    """Attention (n, Q, P) in which support cells of much attention give some of it to the others.

    Each weight is divided by the mean that all query cells give the same support cell, to a power, and each
    row is brought back to the sum of 1.
    """
    shares = weights.mean(dim=1, keepdim=True).clamp(min=1e-6)
    balanced = weights / shares.pow(power)
    return balanced / balanced.sum(dim=2, keepdim=True)


class DemocraticGraph(GraphAttention):
    """PGNet's graph with democratic weights."""

    def __init__(self, channels: int, power: float) -> None:
        super().__init__(channels)
        self.power = power

    def weights(self, queries: Tensor, keys: Tensor, inside: Tensor) -> Tensor:
        """The weights (n, Q, P) of the support's nodes."""
        return democratic(edge_weights(queries, keys, inside), self.power)


@register_method("dan", DANConfig)
class DAN(PairScorer):
    """A democratic graph at every level, joined from the highest to the lowest, and CANet's decoder.

    Deviations: the formula of the democracy and its power; how the levels are joined (concatenation and a 3x3
    convolution); the graph is PGNet's and the decoder CANet's, without iteration.
    """

    config: DANConfig
    fusions = (AllVectors(), ScoreAverage(), CrossGuided())

    def __init__(self, config: DANConfig) -> None:
        super().__init__(config)
        d, levels = config.channels, config.mid_levels
        self.mids = nn.ModuleDict(
            {
                level: MidLevel(self.backbone.width((level,)), d, (level,), config.mid_dropout, kernel=3)
                for level in levels
            }
        )
        self.graphs = nn.ModuleDict({level: DemocraticGraph(d, config.democracy) for level in levels})
        self.joins = nn.ModuleDict(
            {
                level: nn.Sequential(nn.Conv2d(2 * d, d, 3, padding=1), nn.ReLU(inplace=True))
                for level in levels[:-1]
            }
        )
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout)

    def _maps(self, features: Features) -> dict[str, Tensor]:
        return {level: mid(features[level]) for level, mid in self.mids.items()}

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The cells of each shot (n, h * w, d) and the object's share in each (n, h * w, 1), by level.

        The vector of a shot is the highest level's average over the mask; the decoder does not read it.
        """
        of_levels = {}
        for level, maps in self._maps(features).items():
            cells = self.cells(masks, maps)
            of_levels[f"nodes_{level}"] = maps.flatten(2).transpose(1, 2)
            of_levels[f"inside_{level}"] = cells.flatten(2).transpose(1, 2)
        return Guides(maps={"vectors": masked_average(maps, cells).unsqueeze(1), **of_levels})

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's map of each level."""
        maps = self._maps(features)
        return QueryMaps(mid=maps[self.config.mid_levels[0]], maps=maps)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        joined: Tensor | None = None
        for level in reversed(self.config.mid_levels):
            nodes = guides[f"nodes_{level}"]
            maps = query.maps[level].expand(len(nodes), -1, -1, -1)
            attended = self.graphs[level](maps, nodes, guides[f"inside_{level}"].squeeze(2))
            if joined is not None:
                joined = resize(joined, (int(attended.shape[-2]), int(attended.shape[-1])))
                attended = self.joins[level](torch.cat([attended, joined], dim=1))
            joined = attended
        logits: Tensor = self.trunk(joined)
        return logits
