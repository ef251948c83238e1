"""Cosine similarity of cells, and 1x1 convolutions by filters that belong to no layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise(maps: Tensor, filters: Tensor) -> Tensor:
    """Multiplies every cell of (n, C, h, w) by a matrix (D, C): (n, D, h, w), channels last on a CPU.

    On a CPU every row of cells stands as an image of its own: torch leaves 1x1 convolutions of fewer than 16
    float32 images to a slow path where it has one thread, and a float32 matrix product may be several times
    slower than a convolution there.
    """
    weight = filters[..., None, None]
    if maps.device.type != "cpu":
        return F.conv2d(maps, weight)
    n, channels, h, w = maps.shape
    cells = maps.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    rows = F.conv2d(cells.reshape(n * h, 1, w, channels).permute(0, 3, 1, 2), weight)
    return rows.permute(0, 2, 3, 1).reshape(n, h, w, -1).permute(0, 3, 1, 2)


COSINE_EPS = 1e-7
MINMAX_EPS = 1e-7


def foreground_keys(features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features (n, P, C) of the cells with foreground, padded, and their validity (n, P)."""
    inside = cells.flatten(1) > 0
    count = int(inside.sum(dim=1).max())
    order = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    flat = features.flatten(2).transpose(1, 2)
    keys = flat.gather(1, order.unsqueeze(-1).expand(-1, -1, flat.shape[-1]))
    valid = inside.gather(1, order)
    return F.normalize(keys, dim=-1, eps=COSINE_EPS) * valid.unsqueeze(-1).to(keys.dtype), valid


def unit_cells(features: Tensor) -> Tensor:
    """(n, C, h, w) with every cell of unit length, zeros staying zeros."""
    return F.normalize(features, dim=1, eps=COSINE_EPS)


def best_match(query: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """For each query cell, the largest cosine (n, h, w) to any valid key; zeros for an item without one.

    Cells and keys are of unit length; one query (1, C, h, w) may stand for n sets of keys.

    Source: PFENet (Tian et al. 2020), Eq. 3-4.
    """
    n, (h, w) = keys.shape[0], query.shape[-2:]
    if keys.shape[1] == 0:
        return query.new_zeros(n, h, w)
    cosine = cosines(query, keys)
    # The question spares a CPU a large copy; a GPU would wait for the answer, and a graph cannot ask.
    if valid.is_cuda or torch.compiler.is_compiling() or not bool(valid.all()):
        cosine = cosine.masked_fill(~valid.unsqueeze(1), float("-inf"))
    best = cosine.amax(dim=2)
    return torch.where(valid.any(dim=1, keepdim=True), best, torch.zeros_like(best)).view(n, h, w)


def cosines(unit: Tensor, keys: Tensor) -> Tensor:
    """Products (n, h * w, P) of every cell with every key, both of unit length.

    One query under n sets of keys is a 1x1 convolution whose filters are the keys: on a CPU that runs at the
    rate of the other convolutions, where a float32 matrix product may be several times slower.
    """
    n, p, _ = keys.shape
    if unit.shape[0] == 1 and unit.device.type == "cpu":
        maps = pointwise(unit, keys.flatten(0, 1))
        return maps.permute(0, 2, 3, 1).reshape(-1, n, p).transpose(0, 1)
    return torch.matmul(unit.flatten(2).transpose(1, 2), keys.transpose(1, 2))


def products(cells: Tensor, vectors: Tensor) -> Tensor:
    """Products (n, P, k) of cells (n, P, C) with a few vectors (n, k, C).

    The vectors stand on the left: on a CPU the other order takes ten times as long where the cells are a
    transposed view of a map (n, C, P).
    """
    return torch.bmm(vectors, cells.transpose(1, 2)).transpose(1, 2)


def minmax(maps: Tensor) -> Tensor:
    """Normalises each (h, w) map of (n, h, w) to [0, 1]; a constant map becomes zeros.

    Source: PFENet (Tian et al. 2020), Eq. 5, eps 1e-7.
    """
    low = maps.amin(dim=(1, 2), keepdim=True)
    high = maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + MINMAX_EPS)
