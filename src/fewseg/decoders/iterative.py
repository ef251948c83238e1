"""CANet's iterative optimisation: residual blocks, ASPP, and refinement by the previous answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.ops.resize import resize

ASPP_RATES = (6, 12, 18)
"""Dilations of the 3x3 branches."""


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(concat(x, extra))))), 3x3 convolutions to d channels.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3; SCL (Zhang et al. 2021), Fig. 5. The ReLU in front of
    each convolution is that of the released SCL code.

    Args:
        channels: d.
        extra: channels of a further map: 2 for the history.
    """

    def __init__(self, channels: int, *, extra: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + extra, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor, extra: Tensor | None = None) -> Tensor:
        """Returns (n, d, h, w) of maps (n, d, h, w) and, where there is one, the extra map (n, E, h, w)."""
        joined = maps if extra is None else torch.cat([maps, extra.to(maps.dtype)], dim=1)
        out: Tensor = maps + self.second(F.relu(self.first(F.relu(joined))))
        return out


class ASPP(nn.Module):
    """Global pooling, 1x1, and 3x3 at three dilations, each with ReLU, side by side.

    Source: Chen et al. 2017 (DeepLab), in CANet (Zhang et al., CVPR 2019), Sec. 3.3; no batch-norm, as in the
    released SCL code.

    Args:
        channels: d, of the input and of each of the five branches.
        rates: dilations of the 3x3 branches.
    """

    def __init__(self, channels: int, rates: Sequence[int] = ASPP_RATES) -> None:
        super().__init__()
        d = channels
        convs = [nn.Conv2d(d, d, 1), nn.Conv2d(d, d, 1)]
        convs += [nn.Conv2d(d, d, 3, padding=rate, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList(convs)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns (n, 5 d, h, w): global, 1x1, then the rates in order."""
        pooled, *others = self.branches
        whole = F.relu(pooled(maps.mean(dim=(2, 3), keepdim=True))).expand(-1, -1, *maps.shape[-2:])
        return torch.cat([whole, *(F.relu(conv(maps)) for conv in others)], dim=1)


class IterativeTrunk(nn.Module):
    """Everything of CANet behind the dense comparison.

    A residual block that also takes the previous answer, two further ones, ASPP, 1x1 convolution to d, ReLU,
    Dropout2d, 1x1 convolution to 2. All but the first block may be shared with a support path.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3.

    Args:
        channels: d.
        dropout: Dropout2d probability in the classifier.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        d = channels
        self.entry = ResidualBlock(d, extra=2)
        self.blocks = nn.Sequential(ResidualBlock(d), ResidualBlock(d))
        self.aspp = ASPP(d)
        self.classifier = nn.Sequential(
            nn.Conv2d(5 * d, d, 1), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.Conv2d(d, 2, 1)
        )

    def forward(self, compared: Tensor, history: Tensor | None = None) -> Tensor:
        """One iteration.

        Args:
            compared: (n, d, h, w) from the dense comparison.
            history: (n, 2, h', w') probabilities of the previous iteration, background first, or zeros;
                None for zeros.

        Returns:
            Logits (n, 2, h, w), background first.
        """
        size = (int(compared.shape[-2]), int(compared.shape[-1]))
        if history is None:
            history = compared.new_zeros(compared.shape[0], 2, *size)
        return self.after_entry(self.entry(compared, resize(history, size)))

    def after_entry(self, maps: Tensor) -> Tensor:
        """Logits (n, 2, h, w) of what a first residual block gave, (n, d, h, w)."""
        logits: Tensor = self.classifier(self.aspp(self.blocks(maps)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How often inference feeds its answer back.

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3 and 4.1: four refinements after the first answer.

    Attributes:
        iterations: refinements after the first answer, from 0.
        stop_early: leave a pair alone once a refinement changes no cell of its mask. What is not refined any
            more keeps its last scores, so the mask is the same unless a later refinement would have moved it.

    Raises:
        ValueError: fewer than 0 iterations.
    """

    iterations: int = 4
    stop_early: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise ValueError(f"refinement takes 0 or more iterations, got {self.iterations}")

    def run(self, trunk: IterativeTrunk, compared: Tensor) -> Tensor:
        """Logits (n, 2, h, w) after the refinements, of n pairs (n, d, h, w), each on its own."""
        logits: Tensor = trunk(compared)
        moving = torch.arange(compared.shape[0], device=compared.device)
        for _ in range(self.iterations):
            before = logits[moving]
            after = trunk(compared[moving], before.softmax(dim=1))
            logits = after if len(moving) == len(logits) else logits.index_copy(0, moving, after)
            if self.stop_early:
                moving = moving[(after.argmax(dim=1) != before.argmax(dim=1)).flatten(1).any(dim=1)]
                if not len(moving):
                    break
        return logits
