"""PGNet: every query cell attends to the cells of the support's object, on a pyramid of grids.

Source: PGNet (Zhang et al., ICCV 2019), Sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.methods.canet import IterativeTrunk
from fewseg.methods.fusion import AllFusion, AllVectors, CrossGuided, ScoreAverage
from fewseg.methods.layers import MidLevel, bin_size
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.resize import resize
from fewseg.types import Features, Guides, QueryMaps


@dataclass(frozen=True, kw_only=True)
class PGNetConfig(PairConfig):
    """PGNet's parts and sizes; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        scales: grids of the query, see ``PyramidConfig``; each has a graph of its own.
        fusion: how K shots become one answer; attention over the cells of all shots is the default.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d in the classifier.

    Raises:
        ValueError: no scale is given.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3")
    scales: tuple[float, ...] = (1.0, 0.5, 0.25)
    fusion: AllFusion = field(default_factory=AllVectors)
    mid_dropout: float = 0.5
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or any(not scale > 0 for scale in self.scales):
            raise ValueError(f"scales must be one or more numbers above 0, got {self.scales}")


def edge_weights(queries: Tensor, keys: Tensor, inside: Tensor) -> Tensor:
    """The weights (n, Q, P) of the support's nodes for each query node, of sum 1; see ``attended``."""
    edges = queries @ keys.transpose(1, 2) / keys.shape[2] ** 0.5
    edges = edges + inside.clamp(min=1e-6).log().unsqueeze(1)
    weights: Tensor = edges.masked_fill((inside <= 0).unsqueeze(1), -1e4).softmax(dim=2)
    return weights


def attended(weights: Tensor, values: Tensor, inside: Tensor) -> Tensor:
    """The sum of the support's values by attention, for each query node: (n, Q, d); zeros without support.

    Source: PGNet (Zhang et al. 2019), the weights of the edges and the attended sum of Sec. 3.2.

    Args:
        weights: (n, Q, P), of each node of the support for each of the query, see ``edge_weights``.
        values: (n, P, d), the support's nodes, to be summed.
        inside: (n, P), the share of the object in each; a node of share 0 has no edge.
    """
    context: Tensor = (weights @ values) * (inside > 0).any(dim=1)[:, None, None]
    return context


class GraphAttention(nn.Module):
    """One graph: the query's nodes attend to the support's, and are joined with what they found.

    Source: PGNet (Zhang et al. 2019), Sec. 3.2, Fig. 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        d = channels
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.join = nn.Sequential(nn.Conv2d(2 * d, d, 1), nn.ReLU(inplace=True))

    def weights(self, queries: Tensor, keys: Tensor, inside: Tensor) -> Tensor:
        """The weights (n, Q, P) of the support's nodes."""
        return edge_weights(queries, keys, inside)

    def forward(self, maps: Tensor, nodes: Tensor, inside: Tensor) -> Tensor:
        """(n, d, h, w) of maps (n, d, h, w) under the support's nodes (n, P, d) and shares (n, P)."""
        cells = maps.flatten(2).transpose(1, 2)
        inside = inside.to(maps.dtype)
        weights = self.weights(self.query(cells), self.key(nodes), inside)
        context = attended(weights, self.value(nodes), inside)
        context = context.transpose(1, 2).view_as(maps).to(maps.dtype)
        joined: Tensor = self.join(torch.cat([maps, context], dim=1))
        return joined


@register_method("pgnet", PGNetConfig)
class PGNet(PairScorer):
    """Graph attention between the cells of query and support at several grids, and CANet's decoder.

    Deviations: the graphs of the pyramid are added at the largest grid; edges are scaled dot products with
    the share of the object in each support cell; the decoder is CANet's, without iteration.
    """

    config: PGNetConfig
    fusions = (AllVectors(), ScoreAverage(), CrossGuided())

    def __init__(self, config: PGNetConfig) -> None:
        super().__init__(config)
        d, width = config.channels, self.backbone.width(config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout, kernel=3)
        self.graphs = nn.ModuleList(GraphAttention(d) for _ in config.scales)
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The cells of each shot (n, h * w, d) and the object's share in each (n, h * w, 1).

        The vector of a shot is its average over the mask; the decoder does not read it.
        """
        maps = self.mid.of(features)
        cells = self.cells(masks, maps)
        nodes, inside = maps.flatten(2).transpose(1, 2), cells.flatten(2).transpose(1, 2)
        vectors = masked_average(maps, cells).unsqueeze(1)
        return Guides(maps={"vectors": vectors, "nodes": nodes, "inside": inside})

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features))

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        nodes, inside = guides["nodes"], guides["inside"].squeeze(2)
        maps = query.mid.expand(len(nodes), -1, -1, -1)
        outputs = []
        for scale, graph in zip(self.config.scales, self.graphs, strict=True):
            size = bin_size(scale, query.size, "nearest")
            grid = maps if size == query.size else F.adaptive_avg_pool2d(maps, size)
            outputs.append(resize(graph(grid, nodes, inside), query.size))
        logits: Tensor = self.trunk(torch.stack(outputs).sum(dim=0))
        return logits
