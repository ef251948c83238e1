"""PFENet's training-free prior map, and the null object in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.ops.masks import foreground_cells
from fewseg.ops.resize import resize
from fewseg.ops.similarity import best_match, foreground_keys, minmax, unit_cells
from fewseg.types import Features

Rerun = Callable[[str, Tensor], Tensor]
"""(level, map of the level below) -> map of the level: one stage of the backbone."""


@dataclass(frozen=True, kw_only=True)
class PriorMap:
    """For each query cell, the best cosine match among the support's foreground cells, min-max normalised.

    Source: PFENet (Tian et al. 2020), Eq. 2-5.

    Attributes:
        level: backbone level whose features are compared ("layer4" in the paper).
        masked_input: level below it whose map is masked before the stage runs again on the support
            ("layer3" in the paper); None masks only the output, which costs no second pass and suits
            a trunk without layer4 (``level="layer3", masked_input=None``).
    """

    kind: Literal["prior"] = "prior"
    level: str = "layer4"
    masked_input: str | None = "layer3"

    @property
    def channels(self) -> int:
        """Channels that the map adds to the merge."""
        return 1

    @property
    def levels(self) -> tuple[str, ...]:
        """Backbone levels that are read."""
        return (self.level,) if self.masked_input is None else (self.masked_input, self.level)

    def keys(self, features: Features, masks: Tensor, rerun: Rerun) -> tuple[Tensor, Tensor]:
        """Unit features of the foreground support cells.

        Args:
            features: n support images.
            masks: (n, H, W) uint8 in {0, 1, 255}.
            rerun: the backbone's ``rerun``.

        Returns:
            keys (n, 1, P, C) and validity (n, 1, P); the second axis counts shots joined in one guide.
        """
        if self.masked_input is None:
            maps = features[self.level]
        else:
            below = features[self.masked_input]
            cells = foreground_cells(masks, (below.shape[-2], below.shape[-1]), below.dtype)
            maps = rerun(self.level, below * cells)
        cells = foreground_cells(masks, (maps.shape[-2], maps.shape[-1]), maps.dtype)
        keys, valid = foreground_keys(maps, cells)
        return keys.unsqueeze(1), valid.unsqueeze(1)

    def query_map(self, features: Features) -> Tensor:
        """The query's map that is compared, its cells of unit length: (n, C, h, w)."""
        return unit_cells(features[self.level])

    def compare(self, query: Tensor, keys: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        """The prior map: mean over the joined shots of their normalised best-match maps.

        Args:
            query: (n, C, h', w') from ``query_map``, or (1, C, h', w') for one query.
            keys: (n, J, P, C), J shots joined.
            valid: (n, J, P).
            size: (h, w) wanted.

        Returns:
            (n, 1, h, w) in [0, 1].
        """
        joined = keys.shape[1]
        maps = [minmax(best_match(query, keys[:, j], valid[:, j])) for j in range(joined)]
        return resize(torch.stack(maps, dim=1).mean(dim=1, keepdim=True), size)


@dataclass(frozen=True, kw_only=True)
class NoPrior:
    """No prior map: zero channels everywhere."""

    kind: Literal["none"] = "none"

    @property
    def channels(self) -> int:
        """0."""
        return 0

    @property
    def levels(self) -> tuple[str, ...]:
        """No backbone level is read."""
        return ()

    def keys(self, features: Features, masks: Tensor, rerun: Rerun) -> tuple[Tensor, Tensor]:
        """Empty keys: (n, 1, 0, 0) and (n, 1, 0)."""
        del features, rerun
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
