"""timm ResNets as trunks of output stride 8, with the variants that few-shot papers use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import timm
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from fewseg.backbones.trunk import Trunk, levels_up_to

FirstBlockDilation = Literal["previous", "stage"]


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """Size of a ResNet of one's own, for training from scratch; it replaces the named network's.

    Attributes:
        layers: residual blocks of layer1 .. layer4.
        channels: width of each stage (a bottleneck stage gives 4 times as many channels).
        stem_width: width of the deep stem's first two 3x3 convolutions; its third has twice as many.
    """

    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    channels: tuple[int, int, int, int] = (32, 64, 128, 128)
    stem_width: int = 16


class ResNetTrunk(Trunk):
    """Stem (convolutions and max-pool, stride 4) and layer1 to at most layer4 of a timm ResNet."""

    def __init__(self, net: Any, last: str) -> None:
        levels = levels_up_to(last)
        infos = dict(zip(levels, net.feature_info, strict=False))
        channels = {level: int(info["num_chs"]) for level, info in infos.items()}
        strides = {level: int(info["reduction"]) for level, info in infos.items()} | {"stem": 4}
        super().__init__(channels, strides)
        self.conv1, self.bn1, self.act1, self.maxpool = net.conv1, net.bn1, net.act1, net.maxpool
        for level in levels[1:]:
            self.add_module(level, getattr(net, level))

    def stage(self, level: str, below: Tensor) -> Tensor:
        """Runs one stage; see ``Trunk.stage``."""
        if level == "stem":
            return self.maxpool(self.act1(self.bn1(self.conv1(below))))  # type: ignore[no-any-return]
        return self.get_submodule(level)(below)  # type: ignore[no-any-return]


def build_resnet(
    name: str,
    last: str,
    *,
    first_block_dilation: FirstBlockDilation,
    stride_on_1x1: bool,
    shape: ResNetShape | None,
) -> ResNetTrunk:
    """Builds a randomly initialised ResNet at output stride 8 (layer3 dilated by 2, layer4 by 4).

    Args:
        name: a timm name, such as "resnet50".
        last: the deepest level to build.
        first_block_dilation: "previous" leaves the first block of a dilated stage at the dilation of the
            stage before (timm, torchvision); "stage" dilates every 3x3 of it (released PFENet family).
        stride_on_1x1: put layer2's stride on the first 1x1 instead of the 3x3.
        shape: another size under the named block type, with a deep stem.

    Raises:
        ValueError: the blocks have no 1x1 to stride.
    """
    sizes = asdict(shape) | {"stem_type": "deep"} if shape else {}
    net = timm.create_model(name, pretrained=False, num_classes=0, output_stride=8, **sizes)
    if first_block_dilation == "stage":
        for stage in (net.layer3, net.layer4):
            _dilate_first_block(stage[0])
    if stride_on_1x1:
        _stride_first_conv(name, net.layer2[0])
    return ResNetTrunk(net, last)


def _dilate_first_block(block: Any) -> None:
    """Gives every 3x3 of the block the dilation of its stage."""
    for conv in (block.conv1, block.conv2):
        if conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (block.dilation, block.dilation)


def _stride_first_conv(name: str, block: nn.Module) -> None:
    """Moves the stride of a bottleneck from its 3x3 to its first 1x1."""
    if not isinstance(block, Bottleneck):
        raise ValueError(
            f"stride_on_1x1 needs bottleneck blocks; {name!r} has none: "
            "leave stride_on_1x1 off or choose resnet50 or deeper"
        )
    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
