"""Trunks: timm's ResNets, VGG and other networks as named blocks that run one by one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones.resnet import RESNETS, ResNet

LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Names of the stages, shallow to deep, for every architecture; "layer3.2" is block 2 of layer3."""

IMAGE = "image"
"""The level of the images themselves, RGB in [0, 1], which no trunk computes."""

FirstBlockDilation = Literal["previous", "stage"]


def split_level(level: str) -> tuple[str, int | None]:
    """The stage of a level, and the block's number where it names one."""
    stage, _, block = level.partition(".")
    if stage not in LEVELS or (level != stage and not re.fullmatch(r"layer\d\.\d+", level)):
        raise ValueError(
            f"unknown level {level!r}: give a stage, {LEVELS}, or a block of one such as 'layer3.2'"
        )
    return stage, int(block) if block else None


class Trunk(nn.Module, ABC):
    """Stages of an ImageNet classifier under timm's own parameter names, built up to one level.

    Attributes:
        channels: channels of the map of each built stage.
        strides: image pixels per cell of that map.
        version: of the maps; a part of what keys kept features.
    """

    version = 0

    def __init__(self, channels: dict[str, int], strides: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.strides = strides

    @abstractmethod
    def blocks(self, stage: str) -> Sequence[nn.Module]:
        """The modules that a stage runs one after the other."""

    def shape(self, level: str) -> tuple[int, int]:
        """Channels and stride of a stage's or a block's map; a block that the stage lacks is a ValueError."""
        stage, block = split_level(level)
        if block is not None and not block < len(self.blocks(stage)):
            count = len(self.blocks(stage))
            raise ValueError(f"no level {level!r}: {stage} has {count} blocks, 0 .. {count - 1}")
        return self.channels[stage], self.strides[stage]

    @property
    def named(self) -> nn.Module:
        """The module whose parameters have timm's names: what weights are loaded into."""
        return self

    def run(self, stage: str, below: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The name and map of every block of a stage, and at last of the stage, on the stage before's map."""
        for i, block in enumerate(self.blocks(stage)):
            below = block(below)
            yield f"{stage}.{i}", below
        yield stage, below

    def rerun(self, level: str, below: Tensor) -> Tensor:
        """The map (n, C, h', w') of one stage, or of a block in it, on a given input of the stage."""
        stage, _ = split_level(level)
        return next(maps for name, maps in self.run(stage, below) if name == level)

    def maps(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """The maps of some levels, in this order, of normalised images (n, 3, H, W)."""
        maps: dict[str, Tensor] = {}
        x = images
        for stage in self.channels:
            for name, x in self.run(stage, x):  # noqa: B020 - each stage goes on from the last
                if name in levels:
                    maps[name] = x
                    if len(maps) == len(levels):
                        return {level: maps[level] for level in levels}
        raise ValueError(f"no levels {sorted(set(levels) - set(maps))}")


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """Size of a small ResNet for training from scratch; it replaces the named network's.

    Attributes:
        layers: residual blocks of layer1 .. layer4.
        channels: width of each stage (a bottleneck stage gives 4 times as many channels).
        stem_width: width of the deep stem's first two 3x3 convolutions; its third has twice as many.
    """

    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    channels: tuple[int, int, int, int] = (32, 64, 128, 128)
    stem_width: int = 16

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is below 1 or far above that of any ResNet.
        """
        for name, sizes, most in (
            ("layers", self.layers, 100),
            ("channels", self.channels, 4096),
            ("stem_width", (self.stem_width,), 4096),
        ):
            if not all(1 <= size <= most for size in sizes):
                raise ValueError(f"shape.{name} must be from 1 to {most}, got {getattr(self, name)}")


def _built(last: str) -> tuple[str, ...]:
    return LEVELS[: LEVELS.index(last) + 1]


class ResNetTrunk(Trunk):
    """Stem (convolutions and max-pool, stride 4) and layer1 to at most layer4 of a timm ResNet."""

    def __init__(self, net: Any, last: str) -> None:
        levels = _built(last)
        infos = dict(zip(levels, net.feature_info, strict=False))
        channels = {level: int(info["num_chs"]) for level, info in infos.items()}
        strides = {level: int(info["reduction"]) for level, info in infos.items()} | {"stem": 4}
        super().__init__(channels, strides)
        self.conv1, self.bn1, self.act1, self.maxpool = net.conv1, net.bn1, net.act1, net.maxpool
        for level in levels[1:]:
            self.add_module(level, getattr(net, level))

    def blocks(self, stage: str) -> Sequence[nn.Module]:
        """The residual blocks; the stem's convolution, norm, activation and pool."""
        if stage == "stem":
            return self.conv1, self.bn1, self.act1, self.maxpool
        return list(self.get_submodule(stage).children())


def build_resnet(
    name: str,
    last: str,
    *,
    first_block_dilation: FirstBlockDilation,
    stride_on_1x1: bool,
    shape: ResNetShape | None,
    ceil_pool: bool = False,
    output_stride: Literal[8, 32] = 8,
) -> ResNetTrunk:
    """Builds a randomly initialised ResNet at stride 8 or 32; see ``BackboneConfig`` for the options."""
    net: Any
    if name in RESNETS:
        bottleneck, layers, stem_width = RESNETS[name]
        sizes = {"layers": layers, "stem_width": stem_width} if shape is None else asdict(shape)
        net = ResNet(bottleneck, **sizes, output_stride=output_stride)
    else:
        import timm

        sizes = asdict(shape) | {"stem_type": "deep"} if shape else {}
        net = timm.create_model(name, pretrained=False, num_classes=0, output_stride=output_stride, **sizes)
    if first_block_dilation == "stage":
        for stage in (net.layer3, net.layer4):
            _dilate_first_block(stage[0])
    if stride_on_1x1:
        _stride_first_conv(name, net.layer2[0])
    if ceil_pool:
        if not isinstance(net.maxpool, nn.MaxPool2d):
            raise ValueError(f"ceil_pool needs a stem with max-pooling; {name!r} has none: leave it off")
        net.maxpool.ceil_mode = True
    return ResNetTrunk(net, last)


def _dilate_first_block(block: Any) -> None:
    """Gives every 3x3 of the block the dilation of its stage."""
    for conv in (block.conv1, block.conv2):
        if conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (block.dilation, block.dilation)


def _stride_first_conv(name: str, block: Any) -> None:
    """Moves the stride of a bottleneck from its 3x3 to its first 1x1."""
    if not hasattr(block, "conv3"):
        raise ValueError(
            f"stride_on_1x1 needs bottleneck blocks; {name!r} has none: "
            "leave stride_on_1x1 off or choose resnet50 or deeper"
        )
    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


_STRIDES = {"stem": 2, "layer1": 4, "layer2": 8, "layer3": 8, "layer4": 8}


class VGGTrunk(Trunk):
    """The five convolution stages of a VGG; a stage's map comes after its pool.

    Pools are 3x3 with padding 1, so an image side of 8k + 1 gives k + 1 cells. The fourth has stride 1
    and the fifth stage, which has no pool, is dilated by 2.

    Source: PANet (Wang et al. 2019), Sec. 3.2.
    """

    def __init__(self, net: Any, last: str) -> None:
        levels = _built(last)
        # timm names the last layer before each pool, "features.5"; an end is one past the pool
        ends = [int(info["module"].rpartition(".")[2]) + 2 for info in net.feature_info[: len(levels)]]
        ends[4:] = [end - 1 for end in ends[4:]]  # the fifth stage ends before its pool
        channels = {level: int(net.feature_info[i]["num_chs"]) for i, level in enumerate(levels)}
        super().__init__(channels, {level: _STRIDES[level] for level in levels})
        self.features: nn.Sequential = net.features[: ends[-1]]
        self._spans = dict(zip(levels, pairwise([0, *ends]), strict=True))
        for level, (start, stop) in self._spans.items():
            _keep_size(self.features[start:stop], level)

    def blocks(self, stage: str) -> Sequence[nn.Module]:
        """Each convolution with what follows it; the pool belongs to the last."""
        start, stop = self._spans[stage]
        convs = [i for i in range(start, stop) if isinstance(self.features[i], nn.Conv2d)]
        return [self.features[i:j] for i, j in pairwise([*convs, stop])]

    def shape(self, level: str) -> tuple[int, int]:
        """Before its pool a stage has the stride of the stage below; the first has every pixel."""
        channels, stride = super().shape(level)
        stage, block = split_level(level)
        if block is not None and block < len(self.blocks(stage)) - 1:
            stride = ([1, *_STRIDES.values()])[LEVELS.index(stage)]
        return channels, stride


def _keep_size(block: nn.Sequential, level: str) -> None:
    """Turns a stage's pool into the padded 3x3 one and dilates the fifth stage."""
    for layer in block:
        if isinstance(layer, nn.MaxPool2d):
            layer.kernel_size, layer.padding = 3, 1
            layer.stride = 1 if level == "layer3" else 2
        if isinstance(layer, nn.Conv2d) and level == "layer4":
            layer.dilation = layer.padding = (2, 2)


def build_vgg(name: str, last: str, *, last_relu: bool = True) -> VGGTrunk:
    """Builds a randomly initialised VGG; without ``last_relu`` the deepest convolution has no ReLU."""
    import timm

    net = timm.create_model(name, pretrained=False, num_classes=0)
    trunk = VGGTrunk(net, last)
    if not last_relu:
        place = max(i for i, layer in enumerate(trunk.features) if isinstance(layer, nn.ReLU))
        trunk.features[place] = nn.Identity()
    return trunk


_QUARTERS = 4


def centred(maps: Tensor, stride: int) -> Tensor:
    """Moves maps (n, C, h, w) of a network with TensorFlow's padding up and left by (stride - 1) / 2 pixels.

    Such a network was trained at even sides, where a strided convolution pads below and on the right alone.
    At 8k + 1 pixels it pads on all sides, and cell i answers to what lies half a cell before pixel i stride.
    """
    share = (stride - 1) / (2 * stride)  # of the next cell
    wide = F.pad(maps, (0, 1, 0, 1), mode="replicate")
    rows = torch.lerp(wide[..., :-1, :], wide[..., 1:, :], share)
    return torch.lerp(rows[..., :-1], rows[..., 1:], share)


class TimmTrunk(Trunk):
    """Any other network of timm; it runs as a whole, so that no stage can be run again by itself.

    Its stages are ``stem`` and ``layer1`` .. ``layer4``, or the layers alone where it has four. The blocks of
    a plain vision transformer are parted into four layers of one stride; only they can be named one by one.
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
                f"choose levels of {names or 'a different network'}"
            )
        used = names[: names.index(last) + 1]
        chosen = dict(zip(used, indices, strict=False))
        super().__init__(
            {level: int(infos[i]["num_chs"]) for level, i in chosen.items()},
            {level: reductions[i] for level, i in chosen.items()},
        )
        self.net, self._patch = net, patch
        self.version = int(name.startswith("tf_"))  # 1: maps are centred
        starts = [-1, *indices] if patch > 1 else [i - 1 for i in indices]
        self._spans = {
            level: (start + 1, i + 1) for (level, i), start in zip(chosen.items(), starts, strict=False)
        }

    @property
    def named(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.net
        return network

    def blocks(self, stage: str) -> Sequence[nn.Module]:
        """Stands for the blocks; they cannot be run one by one."""
        start, stop = self._spans[stage]
        return [self.net] * (stop - start)

    def rerun(self, level: str, below: Tensor) -> Tensor:
        """Always raises a ValueError: the network runs as a whole."""
        raise ValueError(
            f"{type(self.net).__name__} cannot run {level!r} by itself: choose a ResNet or VGG, or a prior "
            "without masked input (method.prior.masked_input None)"
        )

    def maps(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """The maps of some levels; a transformer sees the image at the nearest multiple of its patch."""
        if self._patch > 1:
            size = [max(1, round(side / self._patch)) * self._patch for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        wanted = {level: self._index(level) for level in levels}
        indices = sorted({*wanted.values(), *(stop - 1 for _, stop in self._spans.values())})
        intermediates = self.net.forward_intermediates(
            images, indices=indices, intermediates_only=True, output_fmt="NCHW", stop_early=True
        )
        by_index = dict(zip(indices, intermediates, strict=True))
        maps = {level: by_index[i] for level, i in wanted.items()}
        if self.version:
            maps = {level: centred(x, self.strides[split_level(level)[0]]) for level, x in maps.items()}
        return maps

    def _index(self, level: str) -> int:
        stage, block = split_level(level)
        start, stop = self._spans[stage]
        return stop - 1 if block is None else start + block


def build_timm(name: str, last: str) -> TimmTrunk:
    """Builds a randomly initialised network such as "convnext_tiny", at output stride 8 where it can."""
    import timm

    net: Any = None
    for options in ({"output_stride": 8}, {"dynamic_img_size": True}, {}):
        with suppress(TypeError):  # it has no such option
            net = timm.create_model(name, pretrained=False, num_classes=0, **options)
            break
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "feature_info"):
        raise ValueError(f"{name!r} gives no intermediate maps: choose a different backbone")
    return TimmTrunk(name, net, last)
