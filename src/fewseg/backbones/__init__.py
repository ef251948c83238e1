"""Backbones: ImageNet networks of timm behind one contract, dilated to output stride 8."""

from fewseg.backbones.backbone import Backbone, BackboneConfig
from fewseg.backbones.keys import released_trunk_key
from fewseg.backbones.resnet import ResNetShape
from fewseg.backbones.trunk import LEVELS
from fewseg.backbones.weights import WeightsReport, load_weights, read_state

__all__ = [
    "LEVELS",
    "Backbone",
    "BackboneConfig",
    "ResNetShape",
    "WeightsReport",
    "load_weights",
    "read_state",
    "released_trunk_key",
]
