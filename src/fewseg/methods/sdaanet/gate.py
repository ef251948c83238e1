"""How the channel gates of K shots reach the query (the first half of SDPM).

A guide keeps ``kept`` of its gate, whose mean over the shots ``multiplier`` turns into what the query's
channels are multiplied by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewseg.decoders.channel_gate import ChannelGate, gated


@dataclass(frozen=True, kw_only=True)
class MeanGate:
    """The query is multiplied by the mean over shots of (v_i + 1) / 2.

    That is both strategies of the paper: the mean of the K gated queries (Separate, below Eq. 9) is the query
    under the mean gate (Integral, Eq. 6, read with the 1/K that its text has).

    Source: SD-AANet (Zhao et al. 2022), Eq. 3, 6 and 8.

    Attributes:
        reduction: see ``ChannelGate``.
    """

    kind: Literal["mean"] = "mean"
    reduction: int = 4

    def build(self, channels: int) -> ChannelGate | None:
        """The gate for prototypes of ``channels`` channels."""
        return ChannelGate(channels, reduction=self.reduction)

    def kept(self, values: Tensor) -> Tensor:
        """V itself: (n, 1, d) of values (n, d)."""
        return values.unsqueeze(1)

    def multiplier(self, kept: Tensor, shots: int) -> Tensor:
        """(n, d) in (0.5, 1) of the mean over ``shots`` of what the guides kept, (n, 1, d)."""
        del shots
        return gated(kept[:, 0])


@dataclass(frozen=True, kw_only=True)
class CompoundedGate:
    """The query is multiplied by every shot's gate in turn, and once more by their mean, itself gated.

    With u_i = (v_i + 1) / 2 that is (prod u_i) (mean u_i + 1) / 2, which fades the query as K grows.

    Source: the released code of SD-AANet, which multiplies inside its loop over the shots and again after.

    Attributes:
        reduction: see ``ChannelGate``.
    """

    kind: Literal["compounded"] = "compounded"
    reduction: int = 4

    def build(self, channels: int) -> ChannelGate | None:
        """The gate for prototypes of ``channels`` channels."""
        return ChannelGate(channels, reduction=self.reduction)

    def kept(self, values: Tensor) -> Tensor:
        """U and log u, whose mean over the shots gives the product: (n, 2, d) of values (n, d)."""
        once = gated(values)
        return torch.stack([once, once.log()], dim=1)

    def multiplier(self, kept: Tensor, shots: int) -> Tensor:
        """(n, d) of the mean over ``shots`` of what the guides kept, (n, 2, d)."""
        return (shots * kept[:, 1]).exp() * gated(kept[:, 0])


@dataclass(frozen=True, kw_only=True)
class NoGate:
    """No gate: features and prototypes stay as they are."""

    kind: Literal["none"] = "none"

    def build(self, channels: int) -> ChannelGate | None:
        """None."""
        del channels
        return None

    def kept(self, values: Tensor) -> Tensor:
        """Nothing: (n, 0, d)."""
        return values.unsqueeze(1)[:, :0]

    def multiplier(self, kept: Tensor, shots: int) -> Tensor:
        """Ones (n, d)."""
        del shots
        return kept.new_ones(kept.shape[0], kept.shape[2])


GateConfig = MeanGate | CompoundedGate | NoGate
