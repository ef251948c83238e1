"""Any other timm network that gives intermediate maps (ConvNeXt, EfficientNet, ViT, Swin, ...) as a trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.backbones.trunk import LEVELS, Trunk

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
