"""The part of a classifier that segmentation uses: five stages that can be run one by one."""

from __future__ import annotations

from torch import Tensor, nn

LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Names of the stages, shallow to deep, for every architecture."""


class Trunk(nn.Module):
    """Stages of an ImageNet classifier under timm's own parameter names, built up to one level.

    Attributes:
        channels: channels of the map that each built level gives.
        strides: image pixels per cell of that map.
    """

    def __init__(self, channels: dict[str, int], strides: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.strides = strides

    def stage(self, level: str, below: Tensor) -> Tensor:
        """Runs one stage.

        Args:
            level: one of the built levels.
            below: (n, C, h, w) map of the level before it; the normalised image for "stem".

        Returns:
            (n, ``channels[level]``, h', w').
        """
        raise NotImplementedError


def levels_up_to(last: str) -> tuple[str, ...]:
    """Returns the levels from the stem to ``last``, which are those that must be built."""
    return LEVELS[: LEVELS.index(last) + 1]
