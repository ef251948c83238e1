"""ImageNet weights that timm downloads by name."""

from __future__ import annotations

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor


def published_name(name: str) -> str:
    """Returns the tagged name of the weights that "imagenet" stands for.

    A name with a tag ("resnet50.a1_in1k") stands for itself. Otherwise torchvision's first weights are
    taken, which the few-shot papers use, and timm's default where torchvision has none (deep stems).

    Raises:
        ValueError: nothing is published under the name.
    """
    if timm.is_model_pretrained(f"{name}.tv_in1k"):
        return f"{name}.tv_in1k"
    if not timm.is_model_pretrained(name):
        raise ValueError(
            f"no weights are published for backbone {name!r}: choose a published one, "
            "give weights the path of a file, or None for random values"
        )
    return name


def download(name: str) -> dict[str, Tensor]:
    """Returns the published state dict, from timm's cache or the network.

    Raises:
        ValueError: it is neither cached nor reachable.
    """
    try:
        net = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the published weights {name!r} are not in the cache and could not be downloaded ({error}): "
            "connect once, or give weights the path of a .safetensors or .pth file"
        ) from error
    state: dict[str, Tensor] = net.state_dict()
    return state


def normalisation(name: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std of RGB in [0, 1] of published weights; ImageNet's for None."""
    cfg = timm.get_pretrained_cfg(name) if name else None
    if cfg is None:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(cfg.mean), tuple(cfg.std)
