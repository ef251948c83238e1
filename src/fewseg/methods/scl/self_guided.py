"""SCL's self-guided module: what a support's first prediction covers, and what it misses.

Source: SCL (Zhang et al. 2021), Sec. 4.2. The module knows nothing of its baseline: it takes the first
pass's logits, so that it serves PFENet's and CANet's support paths alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.ops.masks import ForegroundRule, covered_and_missed
from fewseg.ops.pooling import masked_average

VectorName = Literal["initial", "primary", "auxiliary"]


@dataclass(frozen=True, kw_only=True)
class SelfGuided:
    """Which vectors guide the query, and which losses train the support path.

    Attributes:
        vectors: any of "initial" (v_s), "primary" (v_pri), "auxiliary" (v_aux): the rows of Table 5. One
            vector alone is used twice, as the first pass does with v_s, so that the input stays 3d wide.
        losses: any of "first" (L_s1) and "second" (L_s2): the rows of Table 6.
        second_pass: "paper": the second support pass takes its own levels in the top-down step;
            "released": it takes the first pass's (the authors' code on PFENet).
        threshold: least share of foreground that makes a cell foreground in Eq. 5-6, or "truncated" (the
            authors' code on CANet, see ``covered_and_missed``).
    """

    vectors: tuple[VectorName, ...] = ("primary", "auxiliary")
    losses: tuple[Literal["first", "second"], ...] = ("first", "second")
    second_pass: Literal["paper", "released"] = "paper"
    threshold: ForegroundRule = 0.5

    def __post_init__(self) -> None:
        if not self.vectors or len(set(self.vectors)) != len(self.vectors):
            raise ValueError(
                f"vectors must be one or more of 'initial', 'primary', 'auxiliary' without repeats, "
                f"got {self.vectors!r}"
            )

    @property
    def width(self) -> int:
        """V: vectors concatenated to the feature; at least 2."""
        return max(2, len(self.vectors))

    def first(self, initial: Tensor) -> Tensor:
        """The first pass's guide: v_s repeated (Eq. 2).

        Args:
            initial: v_s, (n, d).

        Returns:
            (n, V, d).
        """
        return initial.unsqueeze(1).expand(-1, self.width, -1)

    def second(self, mid: Tensor, cells: Tensor, initial: Tensor, first_logits: Tensor) -> Tensor:
        """The guide for the query and for the second pass (Eq. 4-6).

        The prediction's argmax carries no gradient; the pooled features do.

        Args:
            mid: (n, d, h, w) support feature.
            cells: (n, 1, h, w) share of foreground.
            initial: v_s, (n, d).
            first_logits: (n, 2, h, w) of the first support pass.

        Returns:
            (n, V, d). The vector of an empty region is zero.
        """
        primary, auxiliary = primary_and_auxiliary(mid, cells, first_logits, self.threshold)
        named = {"initial": initial, "primary": primary, "auxiliary": auxiliary}
        chosen = [named[name] for name in self.vectors]
        if len(chosen) == 1:
            chosen = chosen * self.width
        return torch.stack(chosen, dim=1)


def primary_and_auxiliary(
    mid: Tensor, cells: Tensor, first_logits: Tensor, threshold: ForegroundRule = 0.5
) -> tuple[Tensor, Tensor]:
    """v_pri and v_aux: pooled over the foreground that the first prediction covers, and over the rest.

    Source: SCL (Zhang et al. 2021), Eq. 4 (argmax), 5 and 6.

    Args:
        mid: (n, d, h, w) support feature.
        cells: (n, 1, h, w) share of foreground.
        first_logits: (n, 2, h, w).
        threshold: least share that makes a cell foreground, or "truncated".

    Returns:
        v_pri and v_aux, each (n, d); zero where the region is empty.
    """
    predicted = first_logits.argmax(dim=1)
    covered, missed = covered_and_missed(cells, predicted, threshold)
    return masked_average(mid, covered), masked_average(mid, missed)
