"""Fitted head: a small head that is fitted to the cells of the support images, on frozen features.

Not from a paper: what interactive tools such as ilastik do, on the maps of an ImageNet network.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.backbones.trunks import IMAGE
from fewseg.methods.base import (
    ABSENT,
    FewShotSegmenter,
    MethodConfig,
    sets_of_queries,
    warn_of_absent,
    without_absent,
)
from fewseg.methods.fusion import JointFit
from fewseg.methods.registry import register_method
from fewseg.ops.filters import filter_channels, pixel_filters
from fewseg.ops.resize import resize
from fewseg.types import IGNORE, EncodedShots, Features, State, check_above, check_at_least

_FILTERS = "filters"
_STRIDE = 2  # of the filtered image; every pixel would cost four times as much and gives 0 to 2 points
_SEED = 0
_ALPHA = 20.0  # the matcher's
_CONSTANT = 1e-3  # of the channels' mean deviation


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """One weight a channel and class: logistic regression."""

    kind: Literal["linear"] = "linear"
    widths: ClassVar[tuple[int, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class PerceptronHead:
    """One hidden layer of rectified units between the features and the classes.

    Attributes:
        units: of the hidden layer.
    """

    kind: Literal["perceptron"] = "perceptron"
    units: int = 32  # 64 score the same on the five sets of benchmarks/domains.py and take twice as long

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        return (self.units,)


@dataclass(frozen=True, kw_only=True)
class FittedConfig(MethodConfig):
    """What the head sees, what it is and how it is fitted.

    Attributes:
        backbone: the frozen trunk.
        levels: levels that the head sees, each brought to the largest grid; "image" for colours and edges at
            every second pixel.
        head: linear, or with a hidden layer.
        decay: factor of half the sum of the squared weights on standardised features, beside the mean
            cross-entropy of a pixel.
        cells: places that are drawn from the supports, all together; half of them evenly from the classes.
        steps: quasi-Newton steps at most.
        matcher: divided by the number of shots, how many times the matcher's score, 20 times the cosine of a
            cell with a class's mean on levels of unit length, is added to the head's, which is then fitted
            to all classes alike, as that score is. What one image teaches a head is little to rely on.
        fusion: how K shots become one answer; there is one way.

    Raises:
        ValueError: a level is not the backbone's, or a number is out of range.
    """

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(levels=(IMAGE, "stem", "layer1", "layer2", "layer3"))
    )
    levels: tuple[str, ...] = (IMAGE, "stem", "layer1", "layer2", "layer3")
    head: LinearHead | PerceptronHead = field(default_factory=PerceptronHead)
    decay: float = 1e-2
    cells: int = 6000
    steps: int = 30  # 60 score the same on leaves and on vessels
    matcher: float = field(default=0.0, metadata={"before": 0.0})
    fusion: JointFit = field(default_factory=JointFit)

    def __post_init__(self) -> None:
        self.backbone.check_gives(self.levels)
        check_above(self, 0, "decay")
        check_at_least(self, 1, "cells", "steps")
        check_at_least(self, 0, "matcher")


@dataclass(frozen=True, kw_only=True)
class FittedState(State):
    """The heads of B support sets: a value that serves any number of queries, threads and users.

    Attributes:
        weights: of each layer, (B, out, in); the first takes features as they come from the backbone.
        biases: of each layer, (B, out).
        prototypes: (B, 1 + N, C), weights of the matcher's score on levels of unit length; none where it is
            not added.
        present: (B, 1 + N), whether any support pixel is of the class (the background, way 1, ..). A class
            that none shows wins nowhere.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    prototypes: tuple[Tensor, ...]
    present: Tensor


@register_method("fitted", FittedConfig)
class Fitted(FewShotSegmenter):
    """Fits a head to the annotated pixels and applies it to every pixel of the queries.

    Any number of ways is one head with a class each. Ignored pixels take no part; an image without a class
    is background of it. Fitting is deterministic and in float32.
    """

    config: FittedConfig
    fusions = (JointFit(),)
    compares_background = True
    fits_head = True

    def embed(self, features: Features) -> Features:
        """The levels that the head sees, with the filtered image in the image's place."""
        if IMAGE not in features.maps:
            return features
        maps = {level: features[level] for level in self.config.levels if level != IMAGE}
        if IMAGE in self.config.levels:
            filtered = pixel_filters(features[IMAGE])[..., ::_STRIDE, ::_STRIDE]
            maps = {_FILTERS: filtered, **maps}
        return Features(maps=maps, image_size=features.image_size)

    def maps(self, features: Features) -> list[Tensor]:
        """The maps (n, C, h, w) that the head sees, in order."""
        embedded = self.embed(features)
        names = [_FILTERS if level == IMAGE else level for level in self.config.levels]
        return [embedded[name].float() for name in names]

    @property
    def width(self) -> int:
        """Channels that the head sees."""
        channels = self.backbone.channels
        return sum(filter_channels() if level == IMAGE else channels[level] for level in self.config.levels)

    def encode_support(self, support: EncodedShots) -> FittedState:
        """Fits a head to each of B support sets.

        Raises:
            ValueError: a map has values that are not finite.
        """
        self.check_support(support)
        known = torch.stack([(support.masks == c).flatten(1).any(dim=1) for c in range(1 + support.ways)], 1)
        warn_of_absent(known)
        with (
            torch.inference_mode(False),  # the maps of images that are only looked at take part in a fit
            torch.enable_grad(),
            torch.autocast(support.masks.device.type, enabled=False),
        ):
            all_maps, heads, prototypes = self.maps(support.features), [], []
            for b, masks in enumerate(support.masks):
                first = b * support.shots
                maps = [level[first : first + len(masks)] for level in all_maps]
                kept = given_once(maps, masks)
                places = draw_places(masks[kept], support.ways, self.config.cells)
                places = replace(places, shots=torch.tensor(kept, device=masks.device)[places.shots])
                values = values_at(maps, places, masks.shape[-2:])
                if not bool(values.isfinite().all()):
                    raise ValueError("a support image has features that are not finite: is the image valid?")
                if self.config.matcher:
                    places = of_all_classes_alike(places)
                    unit = values_at([_unit(level) for level in maps], places, masks.shape[-2:])
                    labels = F.one_hot(places.labels, 1 + support.ways).to(unit.dtype)
                    factor = self.config.matcher / len(kept) * _ALPHA / len(maps) ** 0.5
                    prototypes.append(factor * F.normalize(labels.T @ unit, dim=1))
                heads.append(self._fit(values, places, known[b].clone()))
        weights, biases = (
            tuple(torch.stack(layer) for layer in zip(*(head[kind] for head in heads), strict=True))
            for kind in (0, 1)
        )
        scored = (torch.stack(prototypes),) if prototypes else ()
        return FittedState(weights=weights, biases=biases, prototypes=scored, present=known)

    def _fit(self, values: Tensor, places: Places, present: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of the layers with the least decayed cross-entropy on values (P, C)."""
        shares = places.shares.double() / places.shares.sum().clamp(min=1e-12)
        mean = shares.float() @ values
        scale = (shares.float() @ (values - mean).square()).sqrt()
        scale = scale.clamp(min=_CONSTANT * float(scale.mean()) + 1e-12)  # a channel of rounding errors
        inputs = (values - mean) / scale
        weights, biases = _start((self.width, *self.config.head.widths, len(present)), inputs.device)
        absent = torch.where(present, 0.0, ABSENT)
        optimiser = _LBFGS(
            [value.requires_grad_() for value in (*weights, *biases)],
            max_iter=self.config.steps,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            logits = F.linear(inputs, weights[0], biases[0])
            for weight, bias in zip(weights[1:], biases[1:], strict=True):
                logits = F.linear(F.relu(logits), weight, bias)
            # sums in float64: the line search compares values that differ in their last digits
            misfit = F.cross_entropy((logits + absent).double(), places.labels, reduction="none") @ shares
            total: Tensor = misfit + self.config.decay / 2 * sum(w.double().square().sum() for w in weights)
            total.backward()
            return total

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        weights, biases = ([value.detach() for value in values] for values in (weights, biases))
        first = weights[0] / scale
        return [first, *weights[1:]], [biases[0] - first @ mean, *biases[1:]]

    def segment(self, query: Features, state: FittedState) -> Tensor:
        """Applies the head of its support set to every cell of each query.

        The first layer is applied to each map on its own grid and its sums are brought from grid to grid to
        the largest, which costs less than joining the maps there; of sides 8k + 1 it is the same.
        """
        with torch.autocast(state.present.device.type, enabled=False):
            maps = self.maps(query)
            sets, last = sets_of_queries(state.present, len(query)), len(state.present) - 1
            logits = [self._logits([m[i] for m in maps], state, min(i, last)) for i in range(len(query))]
            return resize(without_absent(torch.stack(logits), state.present[sets]), query.image_size)

    def _logits(self, maps: Sequence[Tensor], state: FittedState, b: int) -> Tensor:
        """(1 + N, h, w) of one image's maps (C, h, w) by the head of set b, on the largest grid."""
        logits = _summed(state.weights[0][b], maps) + state.biases[0][b][:, None, None]
        for weight, bias in zip(state.weights[1:], state.biases[1:], strict=True):
            logits = torch.tensordot(weight[b], F.relu(logits), dims=1) + bias[b][:, None, None]
        for prototypes in state.prototypes:
            logits = logits + _summed(prototypes[b], [_unit(level[None])[0] for level in maps])
        return logits


@dataclass(frozen=True, kw_only=True)
class Places:
    """Pixels (P,) of K support images, drawn with replacement.

    Attributes:
        shots: the image of each.
        rows, columns: where in it.
        labels: their class, 0 .. N.
        shares: weights that undo how they were drawn: the weighted sum over the places estimates the mean
            over all annotated pixels.
    """

    shots: Tensor
    rows: Tensor
    columns: Tensor
    labels: Tensor
    shares: Tensor


def given_once(maps: Sequence[Tensor], masks: Tensor) -> list[int]:
    """The numbers of K images without repeats: an image with several classes is given for each of them.

    Args:
        maps: (K, C, h, w) of each level.
        masks: (K, H, W).
    """
    kept: list[int] = []
    for k in range(len(masks)):
        alike = (j for j in kept if torch.equal(masks[j], masks[k]))
        if not any(all(torch.equal(level[j], level[k]) for level in maps) for j in alike):
            kept.append(k)
    return kept


def draw_places(masks: Tensor, ways: int, count: int) -> Places:
    """Draws annotated pixels, half of them from all alike and half from each class alike.

    Every image gets the same share of the places whatever its place among the others.

    Args:
        masks: (K, H, W) in {0, 1 .. N, 255}.
        ways: N.
        count: P, rounded up to a multiple of the images that have annotated pixels.
    """
    known = masks != IGNORE
    pixels = torch.bincount(masks[known].long(), minlength=1 + ways).double()
    classes, annotated = int((pixels > 0).sum()), known.flatten(1).any(dim=1).nonzero().flatten().tolist()
    if not annotated:
        empty = torch.zeros(0, dtype=torch.long, device=masks.device)
        return Places(shots=empty, rows=empty, columns=empty, labels=empty, shares=empty.float())
    per_image = -(-count // len(annotated))
    draws = []
    for k in annotated:
        positions = known[k].flatten().nonzero().flatten()
        labels = masks[k].flatten()[positions].long()
        chance = 0.5 / pixels.sum() + 0.5 / (classes * pixels[labels])
        generator = torch.Generator().manual_seed(_SEED)
        cumulative = chance.cpu().cumsum(0)
        uniform = torch.rand(per_image, generator=generator, dtype=torch.float64) * cumulative[-1]
        drawn = torch.searchsorted(cumulative, uniform).clamp(max=len(positions) - 1).to(masks.device)
        shares = chance.sum() / (chance[drawn] * per_image * pixels.sum())
        draws.append((torch.full_like(drawn, k), positions[drawn], labels[drawn], shares))
    shots, place, labels, shares = (torch.cat(parts) for parts in zip(*draws, strict=True))
    width = int(masks.shape[-1])
    return Places(
        shots=shots, rows=place // width, columns=place % width, labels=labels, shares=shares.float()
    )


def of_all_classes_alike(places: Places) -> Places:
    """Places with weights by which each class counts the same."""
    counts = torch.bincount(places.labels).clamp(min=1)
    return replace(places, shares=1 / counts[places.labels].float())


def _unit(maps: Tensor) -> Tensor:
    """Maps (n, C, h, w) of unit length at each cell."""
    return F.normalize(maps, dim=1)


def _summed(weights: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """(out, h, w): weights (out, C) applied to maps (C_l, h, w), each on its own grid, on the largest one."""
    sums: dict[tuple[int, int], Tensor] = {}
    for weight, level in zip(weights.split([len(level) for level in maps], dim=1), maps, strict=True):
        size = (int(level.shape[-2]), int(level.shape[-1]))
        product = torch.tensordot(weight, level, dims=1)
        sums[size] = sums[size] + product if size in sums else product
    first, *larger = sorted(sums)
    total = sums[first]
    for size in larger:
        total = resize(total[None], size)[0] + sums[size]
    return total


def values_at(maps: Sequence[Tensor], places: Places, size: Sequence[int]) -> Tensor:
    """Values (P, C) of the maps (K, C_l, h, w) of K images at places, as if resized to ``size`` (H, W)."""
    values = []
    for level in maps:
        height, width = (int(side) for side in level.shape[-2:])
        rows, down = _between(places.rows, int(size[0]), height)
        columns, across = _between(places.columns, int(size[1]), width)
        corners = (places.shots[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        shares = down[:, :, None] * across[:, None, :]
        cells = level.permute(0, 2, 3, 1).flatten(0, 2)
        values.append(
            F.embedding_bag(corners.flatten(1), cells, per_sample_weights=shares.flatten(1), mode="sum")
        )
    return torch.cat(values, dim=1)


def _between(pixels: Tensor, side: int, cells: int) -> tuple[Tensor, Tensor]:
    """The two cells that each of the pixels (P,) of a side lies between, and their shares: both (P, 2)."""
    at = pixels.float() * ((cells - 1) / max(1, side - 1))
    first = at.long().clamp(max=max(0, cells - 2))
    share = at - first
    return torch.stack([first, (first + 1).clamp(max=cells - 1)], 1), torch.stack([1 - share, share], 1)


class _LBFGS(torch.optim.LBFGS):
    """torch's, without what its wrappers for torch.compile import, which takes two seconds."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.LBFGS.zero_grad)


def _start(widths: Sequence[int], device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of layers to begin with: of one layer zeros, of several drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = [torch.randn(out, into, generator=generator) / into**0.5 for into, out in pairwise(widths)]
    weights = [(weight if len(drawn) > 1 else 0 * weight).to(device) for weight in drawn]
    return weights, [torch.zeros(len(weight), device=device) for weight in weights]
