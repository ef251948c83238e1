"""ResNets under timm's parameter names and with its initial values, built without importing timm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck's 1x1, 3x3 and 1x1 to four times the width.

    Source: He et al. 2016, Fig. 5, with the stride on the 3x3 of a bottleneck.
    """

    def __init__(
        self, inputs: int, width: int, *, bottleneck: bool, stride: int, dilation: int, first_dilation: int
    ) -> None:
        super().__init__()
        self.dilation, self.outputs = dilation, width * (4 if bottleneck else 1)
        shortcut = stride != 1 or inputs != self.outputs
        down = _convolution(inputs, self.outputs, 1, stride) if shortcut else None
        first, second = (1, first_dilation) if bottleneck else (first_dilation, dilation)
        self.conv1 = _convolution(inputs, width, 1 if bottleneck else 3, 1 if bottleneck else stride, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride if bottleneck else 1, second)
        self.bn2 = nn.BatchNorm2d(width)
        if bottleneck:
            self.conv3 = _convolution(width, self.outputs, 1)
            self.bn3 = nn.BatchNorm2d(self.outputs)
        self.downsample = None if down is None else nn.Sequential(down, nn.BatchNorm2d(self.outputs))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch-norm whose weight begins at 0."""
        return self.bn3 if hasattr(self, "bn3") else self.bn2

    def forward(self, below: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C', h', w')."""
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(below)), inplace=True)))
        if hasattr(self, "conv3"):
            x = self.bn3(self.conv3(F.relu(x, inplace=True)))
        x += below if self.downsample is None else self.downsample(below)
        return F.relu(x, inplace=True)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class ResNet(nn.Module):
    """Stem and four stages; at output stride 8 layer3 and layer4 are dilated, their first block less.

    Args:
        bottleneck: the kind of blocks.
        layers: blocks of each stage.
        channels: width of each stage.
        stem_width: of a deep stem of three 3x3 convolutions; 0 for a 7x7 of 64 channels.
        output_stride: 8, or 32 without dilation.
    """

    def __init__(
        self,
        bottleneck: bool,
        layers: tuple[int, ...],
        channels: tuple[int, ...] = (64, 128, 256, 512),
        stem_width: int = 0,
        output_stride: int = 8,
    ) -> None:
        super().__init__()
        inputs = 2 * stem_width or 64
        if stem_width:
            self.conv1: nn.Module = nn.Sequential(
                _convolution(3, stem_width, 3, 2),
                nn.BatchNorm2d(stem_width),
                nn.ReLU(inplace=True),
                _convolution(stem_width, stem_width, 3),
                nn.BatchNorm2d(stem_width),
                nn.ReLU(inplace=True),
                _convolution(stem_width, inputs, 3),
            )
        else:
            self.conv1 = _convolution(3, inputs, 7, 2)
        self.bn1, self.act1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.feature_info = [{"num_chs": inputs, "reduction": 4}]
        before = 1  # dilation of the block before
        for stage, (count, width) in enumerate(zip(layers, channels, strict=True), 1):
            dilation, blocks = max(1, 2 ** (stage - 2)) if output_stride == 8 else 1, nn.Sequential()
            for i in range(count):
                block = Block(
                    inputs,
                    width,
                    bottleneck=bottleneck,
                    stride=2 if i == 0 and (stage == 2 or (stage > 2 and output_stride == 32)) else 1,
                    dilation=dilation,
                    first_dilation=before,
                )
                blocks.append(block)
                before, inputs = dilation, block.outputs
            self.add_module(f"layer{stage}", blocks)
            self.feature_info.append({"num_chs": inputs, "reduction": min(output_stride, 2 ** (stage + 1))})
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)


_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

RESNETS = {
    f"resnet{depth}{stem}": (depth >= 50, layers, 64 if stem else 0)
    for depth, layers in _LAYERS.items()
    for stem in ("", "s")
    if depth >= 50 or not stem
}
"""Name to kind of block, blocks of each stage and width of the deep stem."""
