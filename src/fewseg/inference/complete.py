"""Completes what a person has painted: strokes, dots and boxes become a whole mask.

Each pixel gets a belief in every class from how alike it is to painted ones, in colour and in a network's
maps, and from what a model thinks of it. A random walker with priors (Grady, CVPR 2005) spreads beliefs and
strokes between neighbours, hardly across edges; it is solved from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from fewseg.annotations.values import Mask
from fewseg.backbones.trunks import IMAGE
from fewseg.inference.model import GUIDE, EncodedImage, join_views, to_size
from fewseg.inference.segmentation import strips
from fewseg.ops.guided import guided_filter
from fewseg.types import IGNORE, DataError

PAINTED = 1
"""Of ``Hints.kind``: 0 is guessed, 1 painted, and ``PAINTED + j`` within a box around a thing of class j."""

Floats = NDArray[np.float32]
Places = NDArray[np.bool_]

_LONGEST = 512  # pixels of the longer side at which all is computed
_COARSEST = 5000  # pixels at which the walker is solved directly
_STEPS = 8  # of conjugate gradients at every finer size
_CHROMA = 2.0
_LINES = (2.0, 5.0)  # pixels: scales of local contrast, which shows thin things
_DEEP, _DEEP_SHARE = 8, 0.5  # principal components of the network's maps, and their weight
_REACH, _SMOOTHNESS, _STRIDE = 16, 1e-3, 4  # of the guided filter of these maps
# All below were chosen on coffee_leaf and crackforest of benchmarks/page_prompts.py.
_EDGE, _FLOOR = 4.0, 1e-3  # how weights between neighbours fall with their difference, and their least
_WIDTH = 0.07  # of the values' variance: over which likeness falls
_UNLIKE = 0.02  # likeness to a class that nobody has shown
_LEAST = 0.2  # of it, to a background that somebody has
_PRIOR, _FIXED = 0.005, 1e2  # weight of a pixel's own belief, and of what is painted, against its neighbours
_DOUBT = 0.1  # of a model, and of what was believed
_SURE = 0.8  # least share of a class where it shows what the class is like
_SAMPLES, _KINDS = 400, 12  # pixels of a class that are looked at, and kinds that they are summed up by
_ROUNDS, _BOX_ROUNDS = 2, 3  # of looking at what was found
_LEAST_OF_BOX = 0.1
_AROUND = 0.1  # of a box's side: width of the ring around it that is background


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What is known of an image's pixels.

    Attributes:
        labels: (H, W) uint8 class numbers, 0 background. Of a painted pixel what was painted, 255 for "leave
            it out"; of others what was believed before, 255 for nothing.
        kind: (H, W) uint8: 0 guessed, 1 painted, 1 + j in a box around a thing of class j.
    """

    labels: Mask
    kind: Mask


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What tells the pixels of an image apart; made once an image.

    Attributes:
        size: (H, W) of the image.
        values: (h, w, C) of the image made smaller: colours, contrast, main components of the network's maps.
        links: of this size and of each half of the one before, the weights (h, w - 1) and (h - 1, w) between
            neighbours.
    """

    size: tuple[int, int]
    values: Floats
    links: tuple[tuple[Floats, Floats], ...]


def canvas(pixels: Tensor, encoded: EncodedImage | None = None) -> Canvas:
    """Looks at an image, at 512 pixels.

    Args:
        pixels: (3, H, W) uint8 RGB, upright.
        encoded: the same image as a model sees it.
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = min(1.0, _LONGEST / max(image.size))
    w, h = (max(1, round(side * scale)) for side in image.size)
    small = np.asarray(image.convert("YCbCr").resize((w, h), Image.Resampling.BOX), dtype=np.float32)
    smooth = ndimage.gaussian_filter(small, (0.7, 0.7, 0)) * np.array([1, _CHROMA, _CHROMA], dtype=np.float32)
    lines = [smooth[..., 0] - ndimage.gaussian_filter(smooth[..., 0], sigma) for sigma in _LINES]
    values = level = _scaled(np.concatenate([smooth, np.stack(lines, axis=2)], axis=2))
    links = [_links(level)]
    while level[..., 0].size > _COARSEST and min(level.shape[:2]) > 1:
        level = _halved(level) / np.float32(4)
        links.append(_links(level))
    if encoded is not None:
        colours = torch.from_numpy(np.asarray(image.resize((w, h), Image.Resampling.BOX)).copy())
        guide = colours.permute(2, 0, 1)[None].float() / 255
        sharp = guided_filter(_components(encoded)[None], guide, _REACH, _SMOOTHNESS, _STRIDE)
        deep = _scaled(sharp[0].permute(1, 2, 0).numpy())
        values = np.concatenate([values, np.float32(_DEEP_SHARE) * deep], axis=2)
    return Canvas(size=(image.height, image.width), values=values, links=tuple(links))


def complete(image: Canvas, hints: Hints, chances: Floats | None = None) -> Mask:
    """Completes painted pixels and boxes to a mask (H, W) uint8 of class numbers.

    Painted pixels keep their class, also 255. Others get the most probable one of the background and of the
    classes that are painted, boxed, believed or in ``chances``.

    Args:
        image: what it shows.
        hints: of the image's size.
        chances: (N, h, w) in [0, 1] of classes 1 .. N, by a model, at any resolution; None without one.

    Raises:
        DataError: the hints are of another size than the image.
    """
    if hints.labels.shape != image.size or hints.kind.shape != image.size:
        raise DataError(f"hints must be of the image's size {image.size}, got {hints.labels.shape}")
    names = _names(hints, 0 if chances is None else len(chances))
    if len(names) == 1:
        return np.where(hints.kind == PAINTED, hints.labels, np.uint8(0))
    seeds = _counted(image, hints.labels, (hints.kind == PAINTED) & (hints.labels != IGNORE), names)
    fixed = seeds.any(axis=0)
    beliefs = _beliefs(image, hints, chances, names)
    boxes = _boxes(image, hints, names)
    for k, (inside, around) in boxes.items():
        seeds[0, around & ~fixed] = 1
        beliefs[k, ~inside] *= 1.0 if seeds[k, ~inside].any() else _DOUBT
    seeds /= np.maximum(1, seeds.sum(axis=0))
    free = ~seeds.any(axis=0)
    strength = np.where(free, np.float32(_PRIOR), np.float32(_FIXED))
    painted = [np.flatnonzero(own) for own in seeds]
    sure = free & (beliefs > _SURE * beliefs.sum(axis=0))
    guessed = [
        np.flatnonzero(own) if k == 0 or not len(painted[k]) else painted[k][:0] for k, own in enumerate(sure)
    ]
    for k, (inside, _) in boxes.items():
        own = inside & free
        if own.any():
            like = _alike(image, painted, guessed)[0]
            guessed[k] = np.flatnonzero(own & (like <= np.median(like[own])))
    for _ in range(_BOX_ROUNDS if boxes else _ROUNDS):
        target = np.where(free, _alike(image, painted, guessed) * beliefs, seeds)
        target /= target.sum(axis=0)
        found = _walk(image, target, strength)
        best = found.argmax(axis=0)
        for k in range(len(names)):
            own = free & (best == k) & (boxes[k][0] if k in boxes else True)
            if k == 0 or (k in boxes and own.sum() > _LEAST_OF_BOX * boxes[k][0].sum()):
                guessed[k] = np.flatnonzero(own)
    labels: Mask = np.empty(image.size, dtype=np.uint8)
    for rows, strip in strips(torch.from_numpy(found), image.size):
        labels[rows] = np.asarray(names, dtype=np.uint8)[strip.numpy().argmax(axis=0)]
    labels[hints.kind == PAINTED] = hints.labels[hints.kind == PAINTED]
    return labels


def _names(hints: Hints, classes: int) -> list[int]:
    """The class numbers that take part, the background first."""
    painted = np.bincount(hints.labels.ravel(), minlength=256).nonzero()[0].tolist()
    boxed = (np.bincount(hints.kind.ravel(), minlength=256).nonzero()[0] - PAINTED).tolist()
    return sorted({0, *range(1, classes + 1), *painted, *(j for j in boxed if j > 0)} - {IGNORE})


def _counted(image: Canvas, labels: Mask, where: Places, names: list[int]) -> Floats:
    """(K, h, w) how many of an image's pixels have each class within each pixel of the canvas."""
    number = np.zeros(256, dtype=np.intp)
    number[names] = np.arange(len(names))
    h, w = image.values.shape[:2]
    down, across = np.nonzero(where)
    place = (number[labels[down, across]] * h + down * h // image.size[0]) * w + across * w // image.size[1]
    return np.bincount(place, minlength=len(names) * h * w).reshape(-1, h, w).astype(np.float32)


def _beliefs(image: Canvas, hints: Hints, chances: Floats | None, names: list[int]) -> Floats:
    """(K, h, w) how far a model, and what was believed before, are for each class; 1 for nothing known."""
    size = image.values.shape[:2]
    found = np.ones((len(names), *size), dtype=np.float32)
    if chances is not None:
        known = to_size(torch.from_numpy(chances), size).numpy()
        found[[names.index(j) for j in range(1, len(chances) + 1)]] = known + _DOUBT
        found[0] = np.maximum(0, 1 - known.sum(axis=0)) + _DOUBT
    believed = (hints.kind != PAINTED) & (hints.labels != IGNORE)
    if believed.any():
        before = _counted(image, hints.labels, believed, names)
        total = before.sum(axis=0)
        found *= np.where(total > 0, before / np.maximum(1, total) + _DOUBT, 1)
    return found


def _boxes(image: Canvas, hints: Hints, names: list[int]) -> dict[int, tuple[Places, Places]]:
    """Of each boxed class, by its place in ``names``: the pixels inside and those around."""
    h, w = image.values.shape[:2]
    rows, columns = (np.arange(small) * full // small for small, full in zip((h, w), image.size, strict=True))
    small = hints.kind[np.ix_(rows, columns)]
    found = {}
    for k, j in enumerate(names):
        inside = small == PAINTED + j
        if j and inside.any():
            reach = max(4, round(_AROUND * float(np.sqrt(inside.sum()))))
            wide = ndimage.maximum_filter(inside, 2 * reach + 1)
            found[k] = inside, wide & (small < PAINTED + 1)
    return found


def _alike(image: Canvas, *shown: Sequence[NDArray[np.intp]]) -> Floats:
    """(K, h, w) in (0, 1] how alike each pixel is to those of each class that are painted or guessed."""
    h, w, channels = image.values.shape
    values = image.values.reshape(-1, channels)
    squares = np.einsum("pc,pc->p", values, values)
    found = np.full((len(shown[0]), h * w), _UNLIKE, dtype=np.float32)
    for k, groups in enumerate(zip(*shown, strict=True)):
        kinds = [_kinds(values[own[_evenly(len(own), _SAMPLES)]]) for own in groups if len(own)]
        if kinds:
            near = _nearest(np.concatenate(kinds), values)
            found[k] = np.exp((near + squares) / (-2 * _WIDTH))
    least = np.where(np.arange(len(found)) == 0, _LEAST * _UNLIKE, 1e-4)
    return np.maximum(found, least[:, None].astype(np.float32)).reshape(-1, h, w)


def _nearest(kinds: Floats, values: Floats) -> Floats:
    """(P,) the squared distance of values (P, C) to the nearest kind, less their own square."""
    away = (kinds * np.float32(-2)) @ values.T
    away += (kinds**2).sum(axis=1)[:, None]
    found: Floats = away.min(axis=0)
    return found


def _evenly(length: int, most: int) -> NDArray[np.intp]:
    """At most so many places of a sequence."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.intp)


def _kinds(samples: Floats) -> Floats:
    """Means of some groups of samples: k-means from evenly spaced ones."""
    kinds = samples[_evenly(len(samples), _KINDS)]
    for _ in range(3):
        nearest = ((samples[:, None] - kinds) ** 2).sum(axis=2).argmin(axis=1)
        kinds = np.stack(
            [samples[nearest == g].mean(axis=0) for g in range(len(kinds)) if (nearest == g).any()]
        )
    return kinds


def _walk(image: Canvas, target: Floats, strength: Floats) -> Floats:
    """(K, h, w): each pixel is the mean of its neighbours and, by its strength, of its target."""
    levels = [(target[1:] * strength, strength)]
    for _ in image.links[1:]:
        pulled, own = levels[-1]
        levels.append((_halved(pulled.T).T, _halved(own.T).T))
    found = _solved(image.links[-1], *levels[-1])
    for links, (pulled, own) in zip(image.links[-2::-1], levels[-2::-1], strict=True):
        h, w = own.shape
        found = np.repeat(np.repeat(found, 2, axis=1), 2, axis=2)[:, :h, :w]
        found = _improved(found, links, pulled, own)
    return np.concatenate([1 - found.sum(axis=0, keepdims=True), found])


def _halved(values: Floats) -> Floats:
    """Sums of 2 x 2 pixels of (h, w, ...); the last row and column of odd sides count twice."""
    h, w = values.shape[:2]
    even = values
    if h % 2 or w % 2:
        even = np.pad(values, ((0, h % 2), (0, w % 2), *[(0, 0)] * (values.ndim - 2)), mode="edge")
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _links(values: Floats) -> tuple[Floats, Floats]:
    """Weights (h, w - 1) and (h - 1, w) between neighbours, as in GrabCut (Rother et al., 2004)."""
    apart = [np.square(np.diff(values, axis=axis)).sum(axis=2) for axis in (1, 0)]
    usual = (
        max(1e-6, float(np.concatenate([each.ravel() for each in apart]).mean()))
        if values.size > values.shape[2]
        else 1.0
    )
    across, down = (np.exp(-_EDGE / 2 * each / usual) + np.float32(_FLOOR) for each in apart)
    return across, down


def _degree(links: tuple[Floats, Floats], own: Floats) -> Floats:
    across, down = links
    total = own.copy()
    total[:, 1:] += across
    total[:, :-1] += across
    total[1:] += down
    total[:-1] += down
    return total


def _solved(links: tuple[Floats, Floats], pulled: Floats, own: Floats) -> Floats:
    """The exact solution."""
    h, w = own.shape
    places = np.arange(h * w).reshape(h, w)
    a = np.concatenate([places[:, :-1].ravel(), places[:-1].ravel()])
    b = np.concatenate([places[:, 1:].ravel(), places[1:].ravel()])
    weights = np.concatenate([each.ravel() for each in links]).astype(np.float64)
    one = sparse.coo_array((weights, (a, b)), shape=(h * w, h * w))
    system = sparse.diags_array(_degree(links, own).ravel().astype(np.float64)) - one - one.T
    solver = splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}, diag_pivot_thresh=0.0
    )
    found: NDArray[np.float64] = solver.solve(pulled.reshape(len(pulled), -1).T.astype(np.float64))
    return found.T.reshape(pulled.shape).astype(np.float32)


_TINY = np.float32(1e-20)


def _improved(found: Floats, links: tuple[Floats, Floats], pulled: Floats, own: Floats) -> Floats:
    """Some steps of conjugate gradients, scaled by the diagonal."""
    across, down = links
    degree = _degree(links, own)

    def system(x: Floats) -> Floats:
        out: Floats = degree * x
        out[:, :, 1:] -= across * x[:, :, :-1]
        out[:, :, :-1] -= across * x[:, :, 1:]
        out[:, 1:] -= down * x[:, :-1]
        out[:, :-1] -= down * x[:, 1:]
        return out

    def dot(a: Floats, b: Floats) -> Floats:
        found: Floats = np.einsum("khw,khw->k", a, b)[:, None, None]
        return found

    left: Floats = pulled - system(found)
    scaled: Floats = left / degree
    way: Floats = scaled
    size = dot(left, scaled)
    for _ in range(_STEPS):
        ahead = system(way)
        step: Floats = size / (dot(way, ahead) + _TINY)
        found = found + step * way
        left = left - step * ahead
        scaled = left / degree
        size, before = dot(left, scaled), size
        turn: Floats = size / (before + _TINY)
        way = scaled + turn * way
    return found


def _scaled(values: Floats) -> Floats:
    """Values (h, w, C) of mean 0, whose variances sum to 1."""
    values = values - values.mean(axis=(0, 1))
    return values / np.float32(max(float(np.sqrt(np.square(values).sum(axis=2).mean())), 1e-3))


def _components(encoded: EncodedImage) -> Tensor:
    """(8, h, w) principal components of the maps that the network gives of an image."""
    maps = [own.float() for name, own in encoded.features.maps.items() if name not in (GUIDE, IMAGE)]
    size = sorted(tuple(own.shape[-2:]) for own in maps)[len(maps) // 2]
    cells = torch.cat([F.interpolate(F.normalize(own), size=size, mode="bilinear") for own in maps], dim=1)
    flat = cells.permute(0, 2, 3, 1).flatten(0, 2).cpu()
    flat = flat - flat.mean(dim=0)
    _, axes = torch.linalg.eigh(flat.T @ flat)
    found = (flat @ axes[:, -_DEEP:]).view(len(cells), *size, -1).permute(0, 3, 1, 2)
    side = encoded.windows[0].box.size
    wide = F.interpolate(found, size=(side, side), mode="bilinear", align_corners=True)
    return join_views(wide, encoded.windows, encoded.size)
