"""Names that weight files give to the parameters of a trunk, turned into timm's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "pre_logits.")
"""Keys of ImageNet classifiers, which no trunk needs."""

_WRAPPERS = ("state_dict", "model")
_DEEP_LAYER0 = {
    "layer0.0": "conv1.0",
    "layer0.1": "conv1.1",
    "layer0.3": "conv1.3",
    "layer0.4": "conv1.4",
    "layer0.6": "conv1.6",
    "layer0.7": "bn1",
}
_PLAIN_LAYER0 = {"layer0.0": "conv1", "layer0.1": "bn1"}
_DEEP_FLAT = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}


def released_trunk_key(key: str, *, deep_stem: bool = True) -> str:
    """Maps a trunk key of the released PFENet family to timm's name.

    That family wraps the stem as ``layer0 = Sequential(conv, bn, relu, ...)``; all other stages have
    timm's names already. Any other key comes back unchanged.

    Args:
        key: such as "layer0.3.weight" or "layer2.0.conv1.weight".
        deep_stem: three 3x3 convolutions (released PFENet and SCL) or one 7x7 (SD-AANet).
    """
    return _rename(key, _DEEP_LAYER0 if deep_stem else _PLAIN_LAYER0, depth=2)


def to_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a whole file, whichever of the three ways of naming the stem it uses.

    The ways: timm's (and torchvision's); ``layer0.<n>``; and the flat ``conv1, conv2, conv3`` of the
    deep-stem ImageNet files that PFENet's authors start from.
    """
    if any(key.startswith("layer0.") for key in state):
        deep = any(key.startswith("layer0.3.") for key in state)
        return {released_trunk_key(key, deep_stem=deep): value for key, value in state.items()}
    if "conv3.weight" in state:
        return {_rename(key, _DEEP_FLAT, depth=1): value for key, value in state.items()}
    return dict(state)


def unwrap(content: object) -> object:
    """Takes a state dict out of ``state_dict`` or ``model`` and drops a ``module.`` prefix."""
    while isinstance(content, Mapping):
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, Mapping):
        return {str(key).removeprefix("module."): value for key, value in content.items()}
    return content


def _rename(key: str, names: Mapping[str, str], depth: int) -> str:
    parts = key.split(".")
    head, tail = ".".join(parts[:depth]), parts[depth:]
    return ".".join([names[head], *tail]) if head in names else key
