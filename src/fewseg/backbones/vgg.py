"""VGGs, such as VGG-16 with or without batch-norm, as trunks of output stride 8."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from fewseg.backbones.trunk import Trunk, levels_up_to

_STRIDES = {"stem": 2, "layer1": 4, "layer2": 8, "layer3": 8, "layer4": 8}


class VGGTrunk(Trunk):
    """The five convolution blocks of a VGG; a level's map comes after its block's pool.

    Pools are 3x3 with padding 1, so an image side of 8k + 1 gives k + 1 cells. The fourth has stride 1
    and block 5, which has no pool, is dilated by 2.

    Source: PANet (Wang et al. 2019), Sec. 3.2.
    """

    def __init__(self, net: Any, last: str) -> None:
        levels = levels_up_to(last)
        ends = [end + 2 for end in net.feature_ends[: len(levels)]]  # one past the pool that follows
        ends[4:] = [end - 1 for end in ends[4:]]  # block 5 ends before its pool
        channels = {level: int(net.feature_info[i]["num_chs"]) for i, level in enumerate(levels)}
        super().__init__(channels, {level: _STRIDES[level] for level in levels})
        self.features: nn.Sequential = net.features[: ends[-1]]
        self._spans = dict(zip(levels, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        for level, (start, stop) in self._spans.items():
            _keep_size(self.features[start:stop], level)

    def stage(self, level: str, below: Tensor) -> Tensor:
        """Runs one block; see ``Trunk.stage``."""
        start, stop = self._spans[level]
        for layer in self.features[start:stop]:
            below = layer(below)
        return below


def _keep_size(block: nn.Sequential, level: str) -> None:
    """Turns a block's pool into the padded 3x3 one and dilates block 5."""
    for layer in block:
        if isinstance(layer, nn.MaxPool2d):
            layer.kernel_size, layer.padding = 3, 1
            layer.stride = 1 if level == "layer3" else 2
        if isinstance(layer, nn.Conv2d) and level == "layer4":
            layer.dilation = layer.padding = (2, 2)


def build_vgg(name: str, last: str, *, last_relu: bool = True) -> VGGTrunk:
    """Builds a randomly initialised VGG (such as "vgg16" or "vgg16_bn") up to the level ``last``.

    Args:
        name: timm's name.
        last: the deepest level.
        last_relu: False replaces the ReLU after the deepest convolution by nothing.
    """
    net = timm.create_model(name, pretrained=False, num_classes=0)
    trunk = VGGTrunk(net, last)
    if not last_relu:
        place = max(i for i, layer in enumerate(trunk.features) if isinstance(layer, nn.ReLU))
        trunk.features[place] = nn.Identity()
    return trunk
