"""Completes what a person has painted: strokes, dots and boxes become a full mask.

Each pixel gets a belief in every class from its likeness to painted pixels, in colour and in a network's
maps, and from a model's prediction. A random walker with priors (Grady, CVPR 2005) spreads beliefs and
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
"""Values of ``Hints.kind``: 0 guessed, 1 painted, ``PAINTED + j`` in a box around an object of class j."""

Floats = NDArray[np.float32]
Places = NDArray[np.bool_]

_LONGEST = 512  # pixels of the longer side that everything is computed at
_COARSEST = 5000  # most pixels at which the walker is solved directly
_STEPS = 8  # of conjugate gradients at each finer size
_CHROMA = 2.0
_LINES = (2.0, 5.0)  # pixels: scales of local contrast, which shows thin objects
_DEEP, _DEEP_SHARE = 8, 0.5  # principal components of the network's maps, and their weight
_REACH, _SMOOTHNESS, _STRIDE = 16, 1e-3, 4  # of the guided filter of these maps
# All below were chosen on coffee_leaf and crackforest of benchmarks/page_prompts.py.
_EDGE, _FLOOR = 4.0, 1e-3  # fall of weights between neighbours with their difference, least weight
_WIDTH = 0.07  # of likeness, as a share of the values' variance
_UNLIKE = 0.02  # likeness to a class without painted pixels
_LEAST = 0.2  # least likeness to a painted background, as a share of that
_PRIOR, _FIXED = 0.005, 1e2  # weights of a pixel's belief, and of its paint, against its neighbours
_DOUBT = 0.1  # added to a model's chances and to earlier beliefs
_SURE = 0.8  # least belief in a class where a pixel counts as an example of it
_SAMPLES, _CENTROIDS = 400, 12  # pixels of a class that are sampled, and their k-means centroids
_ROUNDS, _BOX_ROUNDS = 2, 3  # of comparing pixels with those classified before
_LEAST_OF_BOX = 0.1
_AROUND = 0.1  # of a box's side: width of the ring around it that is background


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What is known about an image's pixels.

    Attributes:
        labels: (H, W) uint8 class numbers, 0 background. Of a painted pixel the painted class, 255 for "leave
            it out"; of others the earlier prediction, 255 for none.
        kind: (H, W) uint8: 0 guessed, 1 painted, 1 + j in a box around an object of class j.
    """

    labels: Mask
    kind: Mask


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Features of an image's pixels and weights between neighbours; computed once per image.

    Attributes:
        size: (H, W) of the image.
        values: (h, w, C) of the reduced image: colours, contrast, main components of the network's maps.
        links: at this size and at each halving of it, the weights (h, w - 1) and (h - 1, w) between
            neighbours.
    """

    size: tuple[int, int]
    values: Floats
    links: tuple[tuple[Floats, Floats], ...]


def canvas(pixels: Tensor, encoded: EncodedImage | None = None) -> Canvas:
    """Prepares an image, at 512 pixels at most.

    Args:
        pixels: (3, H, W) uint8 RGB, upright.
        encoded: the same image, encoded by a model.
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

    Painted pixels keep their class, also 255. Others get the most probable class among the background and the
    classes in ``hints`` or ``chances``.

    Args:
        image: the prepared image.
        hints: at the image's size.
        chances: (N, h, w) a model's probabilities in [0, 1] of classes 1 .. N, at any resolution, or None.

    Raises:
        DataError: the hints' size differs from the image's.
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
    painted = [np.flatnonzero(mask) for mask in seeds]
    sure = free & (beliefs > _SURE * beliefs.sum(axis=0))
    guessed = [np.flatnonzero(mask & (k == 0 or not len(painted[k]))) for k, mask in enumerate(sure)]
    for k, (inside, _) in boxes.items():
        region = inside & free
        if region.any():
            likeness = _alike(image, painted, guessed)[0]
            guessed[k] = np.flatnonzero(region & (likeness <= np.median(likeness[region])))
    for _ in range(_BOX_ROUNDS if boxes else _ROUNDS):
        target = np.where(free, _alike(image, painted, guessed) * beliefs, seeds)
        target /= target.sum(axis=0)
        probabilities = _walk(image, target, strength)
        best = probabilities.argmax(axis=0)
        for k in range(len(names)):
            region = free & (best == k) & (boxes[k][0] if k in boxes else True)
            if k == 0 or (k in boxes and region.sum() > _LEAST_OF_BOX * boxes[k][0].sum()):
                guessed[k] = np.flatnonzero(region)
    labels: Mask = np.empty(image.size, dtype=np.uint8)
    for rows, strip in strips(torch.from_numpy(probabilities), image.size):
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
    indices = (number[labels[down, across]] * h + down * h // image.size[0]) * w + across * w // image.size[1]
    return np.bincount(indices, minlength=len(names) * h * w).reshape(-1, h, w).astype(np.float32)


def _beliefs(image: Canvas, hints: Hints, chances: Floats | None, names: list[int]) -> Floats:
    """(K, h, w) how far a model and an earlier prediction support each class; 1 where nothing is known."""
    size = image.values.shape[:2]
    beliefs = np.ones((len(names), *size), dtype=np.float32)
    if chances is not None:
        probabilities = to_size(torch.from_numpy(chances), size).numpy()
        beliefs[[names.index(j) for j in range(1, len(chances) + 1)]] = probabilities + _DOUBT
        beliefs[0] = np.maximum(0, 1 - probabilities.sum(axis=0)) + _DOUBT
    believed = (hints.kind != PAINTED) & (hints.labels != IGNORE)
    if believed.any():
        counts = _counted(image, hints.labels, believed, names)
        total = counts.sum(axis=0)
        beliefs *= np.where(total > 0, counts / np.maximum(1, total) + _DOUBT, 1)
    return beliefs


def _boxes(image: Canvas, hints: Hints, names: list[int]) -> dict[int, tuple[Places, Places]]:
    """Index in ``names`` of each boxed class to the pixels inside its boxes and those around them."""
    h, w = image.values.shape[:2]
    rows, columns = (np.arange(small) * full // small for small, full in zip((h, w), image.size, strict=True))
    small = hints.kind[np.ix_(rows, columns)]
    boxes = {}
    for k, j in enumerate(names):
        inside = small == PAINTED + j
        if j and inside.any():
            reach = max(4, round(_AROUND * float(np.sqrt(inside.sum()))))
            wide = ndimage.maximum_filter(inside, 2 * reach + 1)
            boxes[k] = inside, wide & (small < PAINTED + 1)
    return boxes


def _alike(image: Canvas, *shown: Sequence[NDArray[np.intp]]) -> Floats:
    """(K, h, w) in (0, 1] the likeness of each pixel to the painted and guessed ones of each class."""
    h, w, channels = image.values.shape
    values = image.values.reshape(-1, channels)
    squares = np.einsum("pc,pc->p", values, values)
    likeness = np.full((len(shown[0]), h * w), _UNLIKE, dtype=np.float32)
    for k, groups in enumerate(zip(*shown, strict=True)):
        centroids = [_kmeans(values[group[_evenly(len(group), _SAMPLES)]]) for group in groups if len(group)]
        if centroids:
            near = _nearest(np.concatenate(centroids), values)
            likeness[k] = np.exp((near + squares) / (-2 * _WIDTH))
    least = np.where(np.arange(len(likeness)) == 0, _LEAST * _UNLIKE, 1e-4)
    return np.maximum(likeness, least[:, None].astype(np.float32)).reshape(-1, h, w)


def _nearest(centroids: Floats, values: Floats) -> Floats:
    """(P,) the squared distance of values (P, C) to the nearest centroid, less their squared length."""
    distances = (centroids * np.float32(-2)) @ values.T
    distances += (centroids**2).sum(axis=1)[:, None]
    nearest: Floats = distances.min(axis=0)
    return nearest


def _evenly(length: int, most: int) -> NDArray[np.intp]:
    """At most so many evenly spaced indices of a sequence."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.intp)


def _kmeans(samples: Floats) -> Floats:
    """The centroids of some samples: k-means from evenly spaced ones."""
    centroids = samples[_evenly(len(samples), _CENTROIDS)]
    for _ in range(3):
        nearest = ((samples[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
        centroids = np.stack(
            [samples[nearest == g].mean(axis=0) for g in range(len(centroids)) if (nearest == g).any()]
        )
    return centroids


def _walk(image: Canvas, target: Floats, strength: Floats) -> Floats:
    """(K, h, w): each pixel is the mean of its neighbours and, by its strength, of its target."""
    levels = [(target[1:] * strength, strength)]
    for _ in image.links[1:]:
        rhs, strength = levels[-1]
        levels.append((_halved(rhs.T).T, _halved(strength.T).T))
    solution = _solved(image.links[-1], *levels[-1])
    for links, (rhs, strength) in zip(image.links[-2::-1], levels[-2::-1], strict=True):
        h, w = strength.shape
        solution = np.repeat(np.repeat(solution, 2, axis=1), 2, axis=2)[:, :h, :w]
        solution = _improved(solution, links, rhs, strength)
    return np.concatenate([1 - solution.sum(axis=0, keepdims=True), solution])


def _halved(values: Floats) -> Floats:
    """Sums of 2 x 2 pixels of (h, w, ...); the last row and column of odd sides count twice."""
    h, w = values.shape[:2]
    even = values
    if h % 2 or w % 2:
        even = np.pad(values, ((0, h % 2), (0, w % 2), *[(0, 0)] * (values.ndim - 2)), mode="edge")
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _links(values: Floats) -> tuple[Floats, Floats]:
    """Weights (h, w - 1) and (h - 1, w) between neighbours, as in GrabCut (Rother et al., 2004)."""
    differences = [np.square(np.diff(values, axis=axis)).sum(axis=2) for axis in (1, 0)]
    mean = 1.0
    if values.size > values.shape[2]:
        mean = max(1e-6, float(np.concatenate([difference.ravel() for difference in differences]).mean()))
    across, down = (np.exp(-_EDGE / 2 * difference / mean) + np.float32(_FLOOR) for difference in differences)
    return across, down


def _degree(links: tuple[Floats, Floats], strength: Floats) -> Floats:
    across, down = links
    total = strength.copy()
    total[:, 1:] += across
    total[:, :-1] += across
    total[1:] += down
    total[:-1] += down
    return total


def _solved(links: tuple[Floats, Floats], rhs: Floats, strength: Floats) -> Floats:
    """The exact solution of the walker's linear system."""
    h, w = strength.shape
    indices = np.arange(h * w).reshape(h, w)
    a = np.concatenate([indices[:, :-1].ravel(), indices[:-1].ravel()])
    b = np.concatenate([indices[:, 1:].ravel(), indices[1:].ravel()])
    weights = np.concatenate([weight.ravel() for weight in links]).astype(np.float64)
    adjacency = sparse.coo_array((weights, (a, b)), shape=(h * w, h * w))
    system = sparse.diags_array(_degree(links, strength).ravel().astype(np.float64)) - adjacency - adjacency.T
    solver = splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}, diag_pivot_thresh=0.0
    )
    solution: NDArray[np.float64] = solver.solve(rhs.reshape(len(rhs), -1).T.astype(np.float64))
    return solution.T.reshape(rhs.shape).astype(np.float32)


_TINY = np.float32(1e-20)


def _improved(solution: Floats, links: tuple[Floats, Floats], rhs: Floats, strength: Floats) -> Floats:
    """Some steps of conjugate gradients, scaled by the diagonal."""
    across, down = links
    degree = _degree(links, strength)

    def system(x: Floats) -> Floats:
        out: Floats = degree * x
        out[:, :, 1:] -= across * x[:, :, :-1]
        out[:, :, :-1] -= across * x[:, :, 1:]
        out[:, 1:] -= down * x[:, :-1]
        out[:, :-1] -= down * x[:, 1:]
        return out

    def dot(a: Floats, b: Floats) -> Floats:
        products: Floats = np.einsum("khw,khw->k", a, b)[:, None, None]
        return products

    residual: Floats = rhs - system(solution)
    scaled: Floats = residual / degree
    direction: Floats = scaled
    norm = dot(residual, scaled)
    for _ in range(_STEPS):
        applied = system(direction)
        step: Floats = norm / (dot(direction, applied) + _TINY)
        solution = solution + step * direction
        residual = residual - step * applied
        scaled = residual / degree
        norm, previous = dot(residual, scaled), norm
        beta: Floats = norm / (previous + _TINY)
        direction = scaled + beta * direction
    return solution


def _scaled(values: Floats) -> Floats:
    """Values (h, w, C) of mean 0, whose variances sum to 1."""
    values = values - values.mean(axis=(0, 1))
    return values / np.float32(max(float(np.sqrt(np.square(values).sum(axis=2).mean())), 1e-3))


def _components(encoded: EncodedImage) -> Tensor:
    """(8, h, w) principal components of a network's maps of an image."""
    levels = [level.float() for name, level in encoded.features.maps.items() if name not in (GUIDE, IMAGE)]
    size = sorted(tuple(level.shape[-2:]) for level in levels)[len(levels) // 2]
    cells = torch.cat(
        [F.interpolate(F.normalize(level), size=size, mode="bilinear") for level in levels], dim=1
    )
    flat = cells.permute(0, 2, 3, 1).flatten(0, 2).cpu()
    flat = flat - flat.mean(dim=0)
    _, axes = torch.linalg.eigh(flat.T @ flat)
    components = (flat @ axes[:, -_DEEP:]).view(len(cells), *size, -1).permute(0, 3, 1, 2)
    side = encoded.windows[0].box.size
    wide = F.interpolate(components, size=(side, side), mode="bilinear", align_corners=True)
    return join_views(wide, encoded.windows, encoded.size)
