"""Decoder parts shared by methods: mid-level feature, prior map, guide merge, PFENet's pyramid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.ops.masks import SmallObjects, foreground_cells
from fewseg.ops.resize import resize
from fewseg.ops.similarity import best_match, foreground_keys, minmax, pointwise, unit_cells
from fewseg.types import Features, Guides, QueryMaps


def plus(total: Tensor, other: Tensor) -> Tensor:
    """``total + other``, written into ``total``, which nobody else holds, where no gradient is needed."""
    return total + other if torch.is_grad_enabled() else total.add_(other)


class MidLevel(nn.Sequential):
    """concat of backbone levels -> convolution to d channels, ReLU, Dropout2d.

    Source: PFENet (Tian et al. 2020), Sec. 4, with a 1x1 convolution, query and support having one each;
    CANet (Zhang et al. 2019), Sec. 3, with a 3x3 one of dilation 2 and a bias, shared by both.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        levels: tuple[str, ...],
        dropout: float,
        *,
        kernel: Literal[1, 3] = 1,
    ) -> None:
        wide = kernel == 3
        conv = nn.Conv2d(in_channels, channels, kernel, padding=2 * wide, dilation=1 + wide, bias=wide)
        super().__init__(conv, nn.ReLU(inplace=True), nn.Dropout2d(dropout))
        self.levels = levels

    def of(self, features: Features) -> Tensor:
        """Returns (n, d, h, w)."""
        maps = torch.cat([features[level] for level in self.levels], dim=1)
        out: Tensor = self(maps)
        return out


Rounding = Literal["down", "nearest"]
"""How many cells a fraction of a map's side is."""


def bin_size(scale: float, size: tuple[int, int], rounding: Rounding = "down") -> tuple[int, int]:
    """Cells of one pyramid scale: above 1 a side in cells, a float up to 1 a fraction of the map's side.

    Source: the released code of PFENet and SCL, which truncates (0.125 of 60 cells is 7); "nearest" is what
    fewseg did before.
    """
    if isinstance(scale, float) and scale <= 1.0:
        cells = [scale * side if rounding == "down" else round(scale * side) for side in size]
        return max(1, int(cells[0])), max(1, int(cells[1]))
    return int(scale), int(scale)


class GuideMerge(nn.Module):
    """At each scale b: 1x1 convolution of concat(map_b, expanded vectors, prior_b), then ReLU.

    Source: PFENet (Tian et al. 2020), Eq. 6, with one support vector; SCL (Zhang et al. 2021), Eq. 2 and
    11, with two. The weight is that of the convolution over the concatenation, but an expanded vector is
    constant over cells: its share is one matrix product an image instead of one a cell.
    """

    def __init__(
        self,
        channels: int,
        *,
        vectors: int,
        prior_channels: int,
        scales: Sequence[float],
        rounding: Rounding = "down",
    ) -> None:
        super().__init__()
        if not scales or any(scale <= 0 or (scale > 1 and scale % 1) for scale in scales):
            raise ValueError(
                "scales must be one or more fractions of a map's side in (0, 1] or whole numbers of cells, "
                f"got {tuple(scales)}"
            )
        self.channels, self.vectors = channels, vectors
        self.scales, self.rounding = tuple(scales), rounding
        width = channels * (1 + vectors) + prior_channels
        convs = [nn.Conv2d(width, channels, 1, bias=False) for _ in self.scales]
        self.convs: Iterable[nn.Conv2d] = nn.ModuleList(convs)  # type: ignore[assignment]

    def forward(self, maps: Tensor, vectors: Tensor, prior: Tensor) -> list[Tensor]:
        """One (n, d, h_b, w_b) a scale: maps (n or 1, d, h, w), vectors (n, V, d), prior (n, P, h, w)."""
        d = self.channels
        guide = vectors.flatten(1)
        merged = []
        for scale, conv in zip(self.scales, self.convs, strict=True):
            size = bin_size(scale, (maps.shape[-2], maps.shape[-1]), self.rounding)
            weight, width = conv.weight, guide.shape[1]
            on_map, on_guide, on_prior = weight.split([d, width, weight.shape[1] - d - width], dim=1)
            pooled = maps if size == tuple(maps.shape[-2:]) else F.adaptive_avg_pool2d(maps, size)
            out = F.conv2d(pooled, on_map) + F.linear(guide, on_guide.flatten(1))[..., None, None]
            if on_prior.shape[1]:
                out = plus(out, F.conv2d(resize(prior, size), on_prior))
            merged.append(F.relu_(out))
        return merged


Rerun = Callable[[str, Tensor], Tensor]
"""(level, map of the level below) -> map of the level: one stage of the backbone."""


@dataclass(frozen=True, kw_only=True)
class PriorMap:
    """For each query cell, the best cosine match among the support's foreground cells, min-max normalised.

    Source: PFENet (Tian et al. 2020), Eq. 2-5.
    """

    kind: Literal["prior"] = "prior"
    level: str = "layer4"  # backbone level whose features are compared ("layer4" in the paper).
    # level below it whose map is masked before the stage runs again on the support ("layer3" in the
    # paper); None masks only the output, which costs no second pass and suits a trunk without
    # layer4 (``level="layer3", masked_input=None``).
    masked_input: str | None = "layer3"
    channels: ClassVar[int] = 1

    @property
    def levels(self) -> tuple[str, ...]:
        """Backbone levels that are read."""
        return (self.level,) if self.masked_input is None else (self.masked_input, self.level)

    def keys(
        self, features: Features, masks: Tensor, rerun: Rerun, small_objects: SmallObjects = "touched"
    ) -> tuple[Tensor, Tensor]:
        """Unit features (n, 1, P, C) of the foreground cells of n shots and their validity (n, 1, P)."""

        def cells(maps: Tensor) -> Tensor:
            size = (int(maps.shape[-2]), int(maps.shape[-1]))
            return foreground_cells(masks, size, maps.dtype, small_objects=small_objects)

        if self.masked_input is None:
            maps = features[self.level]
        else:
            below = features[self.masked_input]
            maps = rerun(self.level, below * cells(below))
        keys, valid = foreground_keys(maps, cells(maps))
        return keys.unsqueeze(1), valid.unsqueeze(1)

    def query_map(self, features: Features) -> Tensor:
        """The query's map that is compared, its cells of unit length: (n, C, h, w)."""
        return unit_cells(features[self.level])

    def compare(self, query: Tensor, keys: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        """The prior map (n, 1, h, w) in [0, 1]: mean over the J joined shots of their best-match maps.

        ``query`` (n or 1, C, h', w') is from ``query_map``; keys are (n, J, P, C), valid (n, J, P).
        """
        joined = keys.shape[1]
        maps = [minmax(best_match(query, keys[:, j], valid[:, j])) for j in range(joined)]
        return resize(torch.stack(maps, dim=1).mean(dim=1, keepdim=True), size)


@dataclass(frozen=True, kw_only=True)
class NoPrior:
    """No prior map: zero channels everywhere."""

    kind: Literal["none"] = "none"
    channels: ClassVar[int] = 0
    levels: ClassVar[tuple[str, ...]] = ()

    def keys(
        self, features: Features, masks: Tensor, rerun: Rerun, small_objects: SmallObjects = "touched"
    ) -> tuple[Tensor, Tensor]:
        """Empty keys: (n, 1, 0, 0) and (n, 1, 0)."""
        del features, rerun, small_objects
        n = masks.shape[0]
        empty = torch.zeros(n, 1, 0, 0, device=masks.device)
        return empty, torch.zeros(n, 1, 0, dtype=torch.bool, device=masks.device)

    def query_map(self, features: Features) -> Tensor:
        """An empty map (n, 0, 1, 1)."""
        first = next(iter(features.maps.values()))
        return first.new_zeros(len(features), 0, 1, 1)

    def compare(self, query: Tensor, keys: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        """A map of zero channels: (n, 0, h, w)."""
        del valid
        return query.new_zeros(keys.shape[0], 0, *size)


PriorConfig = PriorMap | NoPrior


@dataclass(frozen=True, kw_only=True)
class PyramidOutput:
    """Logits (n, 2, h, w), inner logits (n, 2, h_b, w_b) a scale, and enriched maps (n, d, h, w)."""

    logits: Tensor
    inner: tuple[Tensor, ...]
    levels: tuple[Tensor, ...]


def _conv(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.ReLU(inplace=True)]


def _classifier(channels: int, dropout: float) -> nn.Sequential:
    head = nn.Conv2d(channels, 2, 1)
    return nn.Sequential(*_conv(channels, channels, 3), nn.Dropout2d(dropout), head)


class PyramidTrunk(nn.Module):
    """Everything after the merge, shared by query and support.

    At each scale: 1x1 convolution of concat(merged, previous scale) added to merged; two 3x3 convolutions
    as a residual; an inner classifier. All scales at full size are concatenated, reduced by a 1x1
    convolution, refined by a residual of two 3x3 convolutions and classified. A scale reaches the next one
    by way of the full size, as PFENet's own code has it (its paper does not say).

    Source: PFENet (Tian et al. 2020), Sec. 3.3, Eq. 7-9.
    """

    def __init__(self, channels: int, *, scales: int, dropout: float = 0.1) -> None:
        super().__init__()
        d = channels
        self.top_down = nn.ModuleList(nn.Sequential(*_conv(2 * d, d, 1)) for _ in range(scales - 1))
        self.refine = nn.ModuleList(nn.Sequential(*_conv(d, d, 3), *_conv(d, d, 3)) for _ in range(scales))
        self.inner = nn.ModuleList(_classifier(d, dropout) for _ in range(scales))
        self.reduce = nn.Sequential(*_conv(scales * d, d, 1))
        self.residual = nn.Sequential(*_conv(d, d, 3), *_conv(d, d, 3))
        self.classifier = _classifier(d, dropout)

    def forward(
        self,
        merged: Sequence[Tensor],
        size: tuple[int, int],
        *,
        deep: bool,
        previous: Sequence[Tensor] | None = None,
    ) -> PyramidOutput:
        """Decodes merged maps, one (n, d, h_b, w_b) a scale; ``deep`` adds the inner classifiers' logits.

        The top-down step takes the levels of this pass, or the ``previous`` ones (SCL's released second
        pass).
        """
        levels: list[Tensor] = []
        inner: list[Tensor] = []
        reduced: list[Tensor] = []
        above = levels if previous is None else previous
        for b, maps in enumerate(merged):
            if b > 0:
                carried = resize(above[b - 1], (maps.shape[-2], maps.shape[-1]))
                maps = plus(self.top_down[b - 1](torch.cat([maps, carried], dim=1)), maps)
            maps = plus(self.refine[b](maps), maps)
            if deep:
                inner.append(self.inner[b](maps))
            levels.append(resize(maps, size))
            reduced.append(self._reduced(b, levels[b]))
        trunk = F.relu_(functools.reduce(plus, reduced))
        trunk = plus(self.residual(trunk), trunk)
        return PyramidOutput(logits=self.classifier(trunk), inner=tuple(inner), levels=tuple(levels))

    def _reduced(self, b: int, maps: Tensor) -> Tensor:
        """What scale b adds to the 1x1 convolution over all scales, (n, d, h, w) before its ReLU.

        Resized first: the other order is cheaper and the same but for rounding, which is then beyond what the
        released tensors allow.
        """
        d, conv = maps.shape[1], self.reduce[0]
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight[:, b * d : (b + 1) * d]
        return pointwise(maps, weight.flatten(1))


class GuidedQuery(nn.Module):
    """Encodes a query once and merges it with any number of guides.

    Source: PFENet (Tian et al. 2020), Sec. 3; SCL's query FPM (Zhang et al. 2021, Eq. 11) with V = 2.
    """

    def __init__(
        self,
        mid: MidLevel,
        *,
        channels: int,
        vectors: int,
        prior: PriorConfig,
        scales: Sequence[float],
        rounding: Rounding = "down",
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.mid = mid
        self.prior = prior
        planes = prior.channels + extra_channels
        self.merge = GuideMerge(
            channels, vectors=vectors, prior_channels=planes, scales=scales, rounding=rounding
        )

    def encode(self, features: Features) -> QueryMaps:
        """The query's mid-level feature, and the map that its prior compares."""
        return QueryMaps(mid=self.mid.of(features), prior=self.prior.query_map(features))

    def prior_map(self, query: QueryMaps, guides: Guides) -> Tensor:
        """(n, 1, h, w) in [0, 1]; zero channels without a prior."""
        size = (query.mid.shape[-2], query.mid.shape[-1])
        return self.prior.compare(query.prior, guides.keys, guides.valid, size).to(query.mid.dtype)

    def forward(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> list[Tensor]:
        """Merged maps (n, d, h_b, w_b), one a scale; one query may stand with every guide."""
        planes = self.prior_map(query, guides) if prior is None else prior
        merged: list[Tensor] = self.merge(query.mid, guides["vectors"], planes)
        return merged
