"""Backbones: ImageNet networks of timm behind one contract, dilated to output stride 8."""

from fewseg.backbones.backbone import Backbone, BackboneConfig, ScaledBackbone
from fewseg.backbones.trunks import LEVELS, ResNetShape
from fewseg.backbones.weights import WeightsReport, load_weights, read_state, released_trunk_key

__all__ = [
    "LEVELS",
    "Backbone",
    "BackboneConfig",
    "ResNetShape",
    "ScaledBackbone",
    "WeightsReport",
    "load_weights",
    "read_state",
    "released_trunk_key",
]
