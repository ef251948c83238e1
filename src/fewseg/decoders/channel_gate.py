"""SD-AANet's channel gate: a support prototype says which channels count."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """v = sigmoid(FC(ReLU(FC(p_s)))), the SSE block.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-B2 and Fig. 5a; the reduction is that of SENet and of the
    released code.

    Args:
        channels: d.
        reduction: the hidden layer has d / reduction units, at least one.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, prototypes: Tensor) -> Tensor:
        """Channel weights (n, d) in (0, 1) of prototypes (n, d)."""
        return self.expand(F.relu(self.reduce(prototypes))).sigmoid()  # type: ignore[no-any-return]


def gated(values: Tensor) -> Tensor:
    """What a feature is multiplied by: (v F + F) / 2 = F (v + 1) / 2 (SD-AANet Eq. 3).

    It commutes with masked average pooling, so that a gated feature is never made to pool it.

    Args:
        values: v, any shape.

    Returns:
        (v + 1) / 2.
    """
    return (values + 1) / 2
