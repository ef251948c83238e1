"""The contract between images and methods: named maps with known channels and strides."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewseg.backbones.resnet import RESNETS
from fewseg.backbones.trunks import (
    IMAGE,
    LEVELS,
    FirstBlockDilation,
    ResNetShape,
    Trunk,
    build_resnet,
    build_timm,
    build_vgg,
    split_level,
)
from fewseg.backbones.weights import (
    WeightsReport,
    download,
    load_weights,
    normalisation,
    published_name,
    state_sha256,
)
from fewseg.types import Features, at_scale, check_choices

logger = logging.getLogger(__name__)

_FAMILIES = {"timm.models.resnet": "resnet", "timm.models.vgg": "vgg"}

_KNOWN = {
    **dict.fromkeys(RESNETS, "resnet"),
    **dict.fromkeys(("vgg16", "vgg16_bn"), "vgg"),
    **dict.fromkeys(("vit_small_patch16_dinov3", "vit_large_patch16_dinov3"), "timm"),
}
"""Names whose family is known without importing timm, which takes seconds."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network, with which weights, gives which maps.

    Attributes:
        name: a timm ResNet (resnet18, resnet50, resnet101: 7x7 stem; resnet50s, resnet101s: the deep
            64/64/128 stem of the released PFENet and SCL), vgg16 or vgg16_bn, or any other timm network
            that gives intermediate maps (convnext_tiny, vit_small_patch14_dinov2); those run as a whole.
        weights: "imagenet" for the published weights that timm downloads by name; the path of a
            .safetensors, .pth or .pt file; None for random values drawn from ``seed``.
        levels: maps to give out: stages ("stem", "layer1" .. "layer4") or blocks of them ("layer3.2"; of a
            VGG a convolution is a block), and "image" for the image itself; stages deeper than the last of
            them are not built.
        first_block_dilation: "previous" (timm, torchvision) or "stage" (released PFENet family).
        stride_on_1x1: a stage's stride on its first 1x1 (original paper, Keras) instead of its 3x3.
        bn_eps: epsilon of every batch-norm; None keeps the network's own.
        bn: "eval" keeps batch-norm at its stored statistics; "train" lets it follow ``train()``, also in
            a frozen backbone, which is what the released PFENet family does.
        trainable: whether gradients reach the weights.
        seed: of the random values.
        shape: size of a small ResNet, to be trained from scratch.
        last_relu: False leaves out the ReLU after the deepest convolution of a VGG (released PANet).
        ceil_pool: whether the stem's max-pooling rounds its size up (released SCL on CANet); sides of 8k + 1
            have the same map either way.
        output_stride: of a ResNet's last stage; 8, where layer3 and layer4 are dilated, or 32, as the network
            was trained for classification (HSNet).
    """

    name: str = "resnet50"
    weights: str | None = "imagenet"
    levels: tuple[str, ...] = ("layer2", "layer3", "layer4")
    first_block_dilation: FirstBlockDilation = "previous"
    stride_on_1x1: bool = False
    bn_eps: float | None = None
    bn: Literal["eval", "train"] = "eval"
    trainable: bool = False
    seed: int = 0
    shape: ResNetShape | None = None
    last_relu: bool = True
    ceil_pool: bool = field(default=False, metadata={"before": False})
    output_stride: Literal[8, 32] = field(default=8, metadata={"before": 8})

    def __post_init__(self) -> None:
        """Checks the fields against each other.

        Raises:
            ValueError: a level or a name is unknown, or an option is invalid or does not fit the network.
        """
        check_choices(self)
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels {self.levels}: give one or more of {LEVELS}, each once")
        if not self.stages:
            raise ValueError(f"levels {self.levels}: give one or more of {LEVELS} beside {IMAGE!r}")
        for level in self.stages:
            split_level(level)
        _check_name(self.name)
        if self.family != "resnet" and (
            self.shape
            or self.stride_on_1x1
            or self.ceil_pool
            or self.first_block_dilation == "stage"
            or self.output_stride != 8
        ):
            raise ValueError(
                "shape, stride_on_1x1, ceil_pool, output_stride and first_block_dilation are for ResNets, "
                f"not {self.name!r}"
            )
        if self.family != "vgg" and not self.last_relu:
            raise ValueError(f"last_relu is for VGGs, not {self.name!r}")
        if self.shape is not None and self.weights == "imagenet":
            raise ValueError(
                "no weights are published for a backbone with a shape of its own: "
                "give weights None (random values) or a path"
            )

    @property
    def family(self) -> str | None:
        """The kind of network, "resnet", "vgg" or "timm" for the others; None for a name unknown to timm."""
        if self.name in _KNOWN:
            return _KNOWN[self.name]
        import timm

        known = timm.is_model(self.name)
        return _FAMILIES.get(timm.model_entrypoint(self.name).__module__, "timm") if known else None

    @property
    def fixed(self) -> bool:
        """Whether an image's maps stay the same in training, so that they may be kept."""
        return not self.trainable and self.bn == "eval"

    def check_gives(self, levels: Sequence[str]) -> None:
        """Checks the levels that a method reads.

        Raises:
            ValueError: there are none, or the backbone does not give one of them.
        """
        if not levels or not set(levels) <= set(self.levels):
            raise ValueError(
                f"the method reads levels {tuple(levels)} and the backbone gives {self.levels}: take one or "
                "more of those, or add them to the backbone's levels"
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """The levels that the network computes."""
        return tuple(level for level in self.levels if level != IMAGE)

    @property
    def last(self) -> str:
        """The deepest stage that must be built."""
        return max((split_level(level)[0] for level in self.stages), key=LEVELS.index)

    def build(self) -> Backbone:
        """Builds the network and loads its weights.

        Raises:
            ValueError: the weights cannot be had or do not fit; see ``load_weights``.
        """
        return Backbone(self)


def _check_name(name: str) -> None:
    """Raises a ValueError for a network or a tag that timm does not know."""
    if name in _KNOWN:
        return
    import timm

    if not timm.is_model(name) or ("." in name and not timm.is_model_pretrained(name)):
        near = difflib.get_close_matches(name, timm.list_models(include_tags="." in name)) or ["resnet50"]
        raise ValueError(
            f"unknown backbone {name!r}: give a name that timm knows, such as {' or '.join(near)}"
        )


class Backbone(nn.Module):
    """A trunk that normalises its own input and gives out the maps of its config's levels.

    Image sides of 8k + 1 give k + 1 cells at stride 8.

    Attributes:
        config: what it was built from.
        report: what its weight file gave, None for random values.
        channels: level to channels of its map.
        strides: level to image pixels per cell.
        mean, std: (3,) of RGB in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _random_trunk(config)
        published = published_name(config.name) if config.weights == "imagenet" else None
        self.report = _load(self.trunk, config.weights, published)
        for module in self.trunk.modules():
            if isinstance(module, _BatchNorm) and config.bn_eps is not None:
                module.eps = config.bn_eps
        mean, std = normalisation(published)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.requires_grad_(config.trainable)
        self.train()
        _ = self.channels  # an unknown block is an error now

    @property
    def channels(self) -> Mapping[str, int]:
        """Channels of every map that is given out."""
        channels = {level: self.trunk.shape(level)[0] for level in self.config.stages}
        return {level: channels.get(level, 3) for level in self.config.levels}

    def width(self, levels: Sequence[str]) -> int:
        """Channels of the given levels together.

        Raises:
            ValueError: see ``BackboneConfig.check_gives``.
        """
        self.config.check_gives(levels)
        return sum(self.channels[level] for level in levels)

    @property
    def strides(self) -> Mapping[str, int]:
        """Image pixels per cell of every map that is given out."""
        strides = {level: self.trunk.shape(level)[1] for level in self.config.stages}
        return {level: strides.get(level, 1) for level in self.config.levels}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode; batch-norm stays in eval unless the config's ``bn`` is "train"."""
        super().train(mode and (self.config.trainable or self.config.bn == "train"))
        if self.config.bn == "eval":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def learns_statistics(self) -> bool:
        """Whether a frozen trunk's batch-norm goes by the images of each pass now: ``bn="train"``, training.

        What goes through it in one pass then matters. The released PFENet family has a pass for the queries
        and one for each of the K shots, whose last stage sees the masked map alone.
        """
        return self.training and self.config.bn == "train" and not self.config.trainable

    def forward(self, images: Tensor, *, without: Sequence[str] = ()) -> Features:
        """Computes the maps of images.

        Args:
            images: (n, 3, H, W) RGB in [0, 1], floating.
            without: levels to leave out; a stage that no other level needs does not run.

        Raises:
            ValueError: another shape or an integer type.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating (n, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}: "
                "divide bytes by 255 and put the channels second"
            )
        normalised = (images - self.mean.view(1, 3, 1, 1)) / self.std.view(1, 3, 1, 1)
        height, width = images.shape[-2:]
        maps = self.maps(normalised, without=without)
        if IMAGE in self.config.levels:
            maps[IMAGE] = images
        return Features(maps=maps, image_size=(height, width))

    def maps(self, normalised: Tensor, *, without: Sequence[str] = ()) -> dict[str, Tensor]:
        """Computes the maps of images that are normalised already.

        Args:
            normalised: (n, 3, H, W), (RGB - ``mean``) / ``std``.
            without: see ``forward``.

        Returns:
            level to (n, ``channels[level]``, h, w) of the config's ``stages``, in their order.
        """
        levels = [level for level in self.config.stages if level not in without]
        with self._gradients():
            return self.trunk.maps(normalised.to(next(self.trunk.parameters()).dtype), levels)

    def rerun(self, level: str, below: Tensor) -> Tensor:
        """Runs one stage on a given input, such as layer4 on a masked layer3.

        Args:
            level: a stage that is built, or a block of one.
            below: (n, C, h, w), map of the stage before it.

        Returns:
            (n, C', h', w').

        Raises:
            ValueError: the stage is not built, or cannot be run by itself.
        """
        if split_level(level)[0] not in self.trunk.channels:
            raise ValueError(
                f"level {level!r} is not built; built are {tuple(self.trunk.channels)}: "
                "add it to the levels of the backbone's config"
            )
        with self._gradients():
            return self.trunk.rerun(level, below)

    def digest(self) -> str:
        """Returns a hexadecimal key of everything that decides the maps: settings and values.

        The path of the weights is left out: the same values under another path give the same key.
        """
        settings = {k: v for k, v in asdict(self.config).items() if k not in ("weights", "seed", "trainable")}
        for name, usual in (("last_relu", True), ("ceil_pool", False), ("output_stride", 8)):
            if settings[name] == usual:
                del settings[name]  # keys from before there was the choice stay valid
        settings |= {"mean": self.mean.tolist(), "std": self.std.tolist()}
        if self.trunk.version:
            settings["version"] = self.trunk.version
        key = json.dumps(settings, sort_keys=True) + state_sha256(self.trunk.state_dict())
        return hashlib.sha256(key.encode()).hexdigest()

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(self.config.trainable and torch.is_grad_enabled())


class ScaledBackbone(nn.Module):
    """A backbone that also reads its images at other scales; ``Features.at_scale`` takes the maps apart.

    Source: the released code of SCL on CANet, which resizes bilinearly, without aligned corners and without
    antialiasing.

    Args:
        backbone: reads the images.
        scales: factors of the images' sides, above 0; at 1 there is nothing more to read.
    """

    def __init__(self, backbone: Backbone, scales: Sequence[float]) -> None:
        super().__init__()
        self.backbone, self.scales = backbone, tuple(scales)

    def forward(self, images: Tensor) -> Features:
        """The maps of images (n, 3, H, W), see ``Backbone``, and those at each scale."""
        features: Features = self.backbone(images)
        maps = dict(features.maps)
        for scale in self.scales:
            if scale != 1:
                resized = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
                of_scale: Features = self.backbone(resized)
                maps |= {at_scale(level, scale): level_map for level, level_map in of_scale.maps.items()}
        return Features(maps=maps, image_size=features.image_size)

    def digest(self) -> str:
        """Returns a hexadecimal key of the backbone and the scales."""
        return hashlib.sha256(f"{self.backbone.digest()} {self.scales}".encode()).hexdigest()


def _random_trunk(config: BackboneConfig) -> Trunk:
    """Builds the network with values that depend on the config's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.family == "vgg":
            return build_vgg(config.name, config.last, last_relu=config.last_relu)
        if config.family == "timm":
            return build_timm(config.name, config.last)
        return build_resnet(
            config.name,
            config.last,
            first_block_dilation=config.first_block_dilation,
            stride_on_1x1=config.stride_on_1x1,
            shape=config.shape,
            ceil_pool=config.ceil_pool,
            output_stride=config.output_stride,
        )


def _load(trunk: Trunk, weights: str | None, published: str | None) -> WeightsReport | None:
    if weights is None:
        return None
    if published is not None:
        report = load_weights(trunk.named, download(published), name=published)
    else:
        report = load_weights(trunk.named, weights)
    logger.info("backbone weights: %s", report.summary())
    return report
