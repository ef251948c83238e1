"""The part of a classifier that segmentation uses: five stages that can be run one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Names of the stages, shallow to deep, for every architecture."""


class Trunk(nn.Module, ABC):
    """Stages of an ImageNet classifier under timm's own parameter names, built up to one level.

    Attributes:
        channels: channels of the map that each built level gives.
        strides: image pixels per cell of that map.
    """

    def __init__(self, channels: dict[str, int], strides: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.strides = strides

    @abstractmethod
    def stage(self, level: str, below: Tensor) -> Tensor:
        """Runs one stage.

        Args:
            level: one of the built levels.
            below: (n, C, h, w) map of the level before it; the normalised image for "stem".

        Returns:
            (n, ``channels[level]``, h', w').
        """

    @property
    def named(self) -> nn.Module:
        """The module whose parameters have timm's names: what weights are loaded into."""
        return self

    def maps(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """Runs all built stages.

        Args:
            images: (n, 3, H, W), normalised.
            levels: which maps to give out, in this order.
        """
        found: dict[str, Tensor] = {}
        current = images
        for level in self.channels:
            found[level] = current = self.stage(level, current)
        return {level: found[level] for level in levels}


def levels_up_to(last: str) -> tuple[str, ...]:
    """Returns the levels from the stem to ``last``, which are those that must be built."""
    return LEVELS[: LEVELS.index(last) + 1]
