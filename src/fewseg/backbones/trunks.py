"""The part of a classifier that segmentation uses: five stages that can be run one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import timm
import torch.nn.functional as F
from timm.models.resnet import Bottleneck
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


_QUARTERS = 4


class TimmTrunk(Trunk):
    """Runs as a whole: a stage by itself cannot be had.

    The network's stages are ``stem`` and ``layer1`` .. ``layer4``, or the layers alone where it has four;
    the blocks of a plain vision transformer are parted into four layers of one stride.
    """

    def __init__(self, name: str, net: Any, last: str) -> None:
        infos = list(net.feature_info)
        reductions = [int(info["reduction"]) for info in infos]
        if len(set(reductions)) == 1 and len(infos) >= _QUARTERS:
            indices = [len(infos) * (j + 1) // _QUARTERS - 1 for j in range(_QUARTERS)]
            patch = reductions[0]
        else:
            indices, patch = list(range(len(infos))), 1
        names = LEVELS[-len(indices) :] if len(indices) in (4, 5) else ()
        if not names or last not in names:
            raise ValueError(
                f"{name!r} gives {len(infos)} maps of strides {reductions}, with no {last!r} among them: "
                f"ask for levels of {names or 'another network'}"
            )
        kept = names[: names.index(last) + 1]
        chosen = dict(zip(kept, indices, strict=False))
        super().__init__(
            {level: int(infos[i]["num_chs"]) for level, i in chosen.items()},
            {level: reductions[i] for level, i in chosen.items()},
        )
        self.net, self._indices, self._patch = net, chosen, patch

    @property
    def named(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.net
        return network

    def stage(self, level: str, below: Tensor) -> Tensor:
        """Always raises: the network runs as a whole.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self.net).__name__} cannot run {level!r} by itself: choose a ResNet or VGG, or a prior "
            "without masked input (method.prior.masked_input None)"
        )

    def maps(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """The maps of some levels; a transformer sees the image at the nearest multiple of its patch."""
        if self._patch > 1:
            size = [max(1, round(side / self._patch)) * self._patch for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        found = self.net.forward_intermediates(
            images,
            indices=list(self._indices.values()),
            intermediates_only=True,
            output_fmt="NCHW",
        )
        every = dict(zip(self._indices, found, strict=True))
        return {level: every[level] for level in levels}


def build_timm(name: str, last: str) -> TimmTrunk:
    """Builds a randomly initialised network, at output stride 8 where it can.

    Args:
        name: a timm name, such as "convnext_tiny" or "vit_small_patch14_dinov2".
        last: the deepest level to build.

    Raises:
        ValueError: the network gives no intermediate maps, or not those levels.
    """
    for options in ({"output_stride": 8}, {"dynamic_img_size": True}, {}):
        try:
            net: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
            break
        except TypeError:
            continue
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "feature_info"):
        raise ValueError(f"{name!r} gives no intermediate maps: choose another backbone")
    return TimmTrunk(name, net, last)
