"""HSNet: correlations of all blocks of a frozen backbone, squeezed to a mask by centre-pivot 4D convolutions.

Source: HSNet (Min et al., ICCV 2021; arXiv 2104.01538), Sec. 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.backbones.resnet import RESNETS
from fewseg.backbones.trunks import split_level
from fewseg.methods.fusion import CrossGuided, ScoreAverage, Vote, VotedFusion
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.pair_scorer import PairConfig, PairScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.resize import resize
from fewseg.ops.similarity import unit_cells
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps

_PAIR_BYTES = 1 << 28
"""Bytes of the correlations that are made at once where no gradient is needed."""


def blocks_of(name: str, stages: Sequence[str] = ("layer2", "layer3", "layer4")) -> tuple[str, ...]:
    """The levels of every block of some stages of a ResNet, shallow to deep, such as "layer2.0"."""
    _, counts, _ = RESNETS[name]
    return tuple(f"{stage}.{i}" for stage in stages for i in range(counts[int(stage[-1]) - 1]))


@dataclass(frozen=True, kw_only=True)
class HSNetConfig(PairConfig):
    """HSNet's parts and sizes; see ``PairConfig`` for ``small_objects``.

    Attributes:
        backbone: the frozen trunk, at the strides of its classification; every level is a block, and the
            blocks of a stage make one level of the pyramid.
        channels: width of the encoder's output and of the decoder; a multiple of 8.
        fusion: how K shots become one answer; the vote is the paper's.

    Raises:
        ValueError: a level of the backbone is no block.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(levels=blocks_of("resnet50"), output_stride=32)
    )
    channels: int = 128
    fusion: VotedFusion = field(default_factory=Vote)

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = [level for level in self.backbone.levels if split_level(level)[1] is None]
        if stages:
            raise ValueError(
                f"HSNet compares single blocks and the backbone gives {', '.join(stages)}: name blocks such "
                "as 'layer3.0' in the backbone's levels; other backbones have none"
            )
        if self.channels < 8 or self.channels % 8:
            raise ValueError(f"HSNet's channels must be a multiple of 8, got {self.channels}")


def correlation(query: Tensor, support: Tensor) -> Tensor:
    """The cosine of every query cell with every support cell, negatives cut: (n, h, w, h', w').

    Cells are of unit length; one query (1, C, h, w) may stand with n supports (n, C, h', w').

    Source: HSNet (Min et al. 2021), Eq. 2.
    """
    cosine = torch.matmul(query.flatten(2).transpose(1, 2), support.flatten(2))
    return F.relu(cosine, inplace=True).view(len(cosine), *query.shape[2:], *support.shape[2:])


class CentrePivotConv4d(nn.Module):
    """A 4D convolution whose kernel is zero but where the query's or the support's offset is the centre.

    It is the sum of a 2D convolution over the query's cells and one over the support's, (n, C, h, w, h', w')
    to (n, D, h, w, h'/s, w'/s). The first takes the support's cells as a batch; the second is a 3D
    convolution of a view, so that the large map is not copied, and leaves out what of the kernel meets
    padding alone.

    Source: HSNet (Min et al. 2021), Eq. 6.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.pad, self.stride = kernel // 2, stride
        self.query = nn.Conv2d(in_channels, channels, kernel)
        self.support = nn.Conv2d(in_channels, channels, kernel)

    def forward(self, maps: Tensor) -> Tensor:
        """Applies both to (n, C, h, w, h', w')."""
        pad, stride = self.pad, self.stride
        planes = maps[..., ::stride, ::stride].permute(0, 4, 5, 1, 2, 3)
        over_query = F.conv2d(planes.flatten(0, 2), self.query.weight, self.query.bias, padding=pad)
        reach = min(pad, max(maps.shape[4:]) - 1)
        inner = slice(pad - reach, pad + reach + 1)
        over_support = F.conv3d(
            maps.flatten(2, 3),
            self.support.weight[..., inner, inner].unsqueeze(2),
            self.support.bias,
            stride=(1, stride, stride),
            padding=(0, reach, reach),
        )
        summed: Tensor = over_support.unflatten(2, maps.shape[2:4])
        summed = summed + over_query.unflatten(0, planes.shape[:3]).permute(0, 3, 4, 5, 1, 2)
        return summed


def _sequence(widths: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """Three times convolution, group normalisation and ReLU."""
    layers: list[nn.Module] = []
    for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        norm = nn.GroupNorm(math.gcd(4, widths[i + 1]), widths[i + 1])
        layers += [CentrePivotConv4d(widths[i], widths[i + 1], kernel, stride), norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def support_strides(doublings: int) -> tuple[int, int, int]:
    """Strides over the support of the three convolutions of a level.

    The deepest level halves three times; one of twice its resolution a first time more, and so on, so that
    all levels end with support grids of the same size.
    """
    first, second = min(doublings, 1), min(max(doublings - 1, 0), 1)
    return 2 * 2**first, 2 * 2**second, 2


class PyramidEncoder(nn.Module):
    """Squeezes the support's cells of each level, and mixes the levels from coarse to fine.

    Source: HSNet (Min et al. 2021), Sec. 4.2. Strides, kernels and widths are those of ``support_strides``,
    3 (5 where the stride is 4), and an eighth, a half and all of ``channels``.
    """

    def __init__(self, blocks: Sequence[int], doublings: Sequence[int], channels: int) -> None:
        super().__init__()
        inner, squeezes = (channels // 8, channels // 2, channels), []
        for count, more in zip(blocks, doublings, strict=True):
            strides = support_strides(more)
            squeezes.append(_sequence((count, *inner), [stride + 1 for stride in strides], strides))
        self.squeeze = nn.ModuleList(squeezes)
        same = (channels,) * 4
        self.mix = nn.ModuleList(_sequence(same, (3, 3, 3), (1, 1, 1)) for _ in blocks[:-1])

    def forward(self, levels: Iterator[Tensor]) -> Tensor:
        """(n, D, h, w) at the finest level's query cells; levels (n, L, h, w, h', w') come deepest first."""
        mixed = self.squeeze[-1](next(levels))
        for place, level in zip(reversed(range(len(self.mix))), levels, strict=True):
            squeezed = self.squeeze[place](level)
            mixed = self.mix[place](squeezed + _at_query_size(mixed, squeezed))
        context: Tensor = mixed.mean(dim=(4, 5))
        return context


def _at_query_size(maps: Tensor, like: Tensor) -> Tensor:
    """Brings the query's cells of (n, D, h, w, h', w') to the size of those of a different level."""
    planes = maps.permute(0, 1, 4, 5, 2, 3)
    h, w = int(like.shape[2]), int(like.shape[3])
    return resize(planes.flatten(1, 3), (h, w)).view(*planes.shape[:4], h, w).permute(0, 1, 4, 5, 2, 3)


class ContextDecoder(nn.Module):
    """2D convolutions and one doubling of the resolution: (n, D, h, w) to logits (n, 2, 2h - 1, 2w - 1).

    Source: HSNet (Min et al. 2021), Sec. 4.3. The size keeps the corners of the cells on pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        d, half = channels, channels // 2

        def conv(into: int, out: int) -> list[nn.Module]:
            return [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(inplace=True)]

        self.coarse = nn.Sequential(*conv(d, d), *conv(d, half))
        self.fine = nn.Sequential(*conv(half, half), nn.Conv2d(half, 2, 3, padding=1))

    def forward(self, context: Tensor) -> Tensor:
        """Logits of the context."""
        maps = self.coarse(context)
        logits: Tensor = self.fine(resize(maps, (2 * maps.shape[-2] - 1, 2 * maps.shape[-1] - 1)))
        return logits


@register_method("hsnet", HSNetConfig)
class HSNet(PairScorer):
    """Compares every query cell with every support cell at every block, and learns to read the comparisons.

    Correlations are made pair by pair, as many at once as a fixed amount of memory holds.

    Deviations: kernels, strides and widths of the encoder follow a rule of our own (``PyramidEncoder``), as
    the paper's figures do not give them all; the votes of K shots are counted at the decoder's resolution,
    half an image's stride-8 cells, before the answer is brought to the image's size.
    """

    config: HSNetConfig
    fusions = (Vote(), ScoreAverage(), CrossGuided())

    def __init__(self, config: HSNetConfig) -> None:
        super().__init__(config)
        levels = sorted(config.backbone.levels, key=split_level)
        self.stages = {
            stage: list(blocks) for stage, blocks in groupby(levels, key=lambda level: split_level(level)[0])
        }
        strides = [self.backbone.strides[blocks[0]] for blocks in self.stages.values()]
        doublings = [round(math.log2(strides[-1] / stride)) for stride in strides]
        counts = [len(blocks) for blocks in self.stages.values()]
        self.encoder = PyramidEncoder(counts, doublings, config.channels)
        self.decoder = ContextDecoder(config.channels)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """Every block's map with its background set to zero and its cells of unit length (Eq. 1).

        The vector of a shot is the average of its deepest map over the mask; the decoder does not read it.
        """
        maps: dict[str, Tensor] = {}
        for blocks in self.stages.values():
            cells = self.cells(masks, features[blocks[0]])
            maps |= {level: unit_cells(features[level] * cells) for level in blocks}
        return Guides(maps={"vectors": masked_average(features[blocks[-1]], cells).unsqueeze(1), **maps})

    def encode_query(self, features: Features) -> QueryMaps:
        """Every block's map with cells of unit length."""
        maps = {level: unit_cells(features[level]) for blocks in self.stages.values() for level in blocks}
        return QueryMaps(mid=next(iter(maps.values()))[:, :0], maps=maps)

    def hypercorrelations(self, query: QueryMaps, guides: Guides) -> Iterator[Tensor]:
        """The pyramid (n, L, h, w, h', w') of n pairs, deepest stage first, one at a time (Eq. 2-3)."""
        for blocks in reversed(self.stages.values()):
            yield torch.stack([correlation(query.maps[level], guides[level]) for level in blocks], dim=1)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        levels = [level for blocks in self.stages.values() for level in blocks]
        cells = sum(query.maps[level][0, 0].numel() * guides[level][0, 0].numel() for level in levels)
        chunk = len(guides) if torch.is_grad_enabled() else max(1, _PAIR_BYTES // (4 * cells))
        logits = []
        for start in range(0, len(guides), chunk):
            pairs = slice(start, start + chunk)
            queries = query if len(query.mid) == 1 else query.select(pairs)
            logits.append(self.decoder(self.encoder(self.hypercorrelations(queries, guides.select(pairs)))))
        return torch.cat(logits)

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query; K shots are trained on the mean of their scores."""
        support = episodes.support
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        shots = torch.arange(len(guides), device=support.masks.device) // support.shots
        scores = self.score(self.encode_query(episodes.query).select(shots), guides)
        logits = scores.unflatten(0, (-1, support.shots)).mean(dim=1)
        return LossTerms(terms={"query": cross_entropy_full_size(logits, episodes.query_masks)})
