"""Recipes of the small real set on a whole ResNet-50: what is layer4 worth?

Its weights are pruned and of 8 bits, a different network from the trunk of ``voc5i_mini``: each recipe is
measured against those here that have no layer4.
"""

from __future__ import annotations

from dataclasses import replace

from fewseg.backbones import BackboneConfig
from fewseg.methods.layers import NoPrior, PriorConfig, PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.recipes.datasets import shared_folder
from fewseg.recipes.recipe import Recipe, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import voc5i_mini_pfenet, voc5i_mini_srpnet


def whole(*levels: str, trainable: bool = False) -> BackboneConfig:
    """The whole ResNet-50 v1 of the small real set: ImageNet weights of 8 bits, batch-norm folded."""
    return BackboneConfig(
        name="resnet50",
        weights=str(shared_folder() / "weights" / "resnet50-v1-whole-8bit.safetensors"),
        levels=levels,
        stride_on_1x1=True,
        trainable=trainable,
    )


def _pfenet(prior: PriorConfig, *levels: str) -> Recipe:
    recipe = voc5i_mini_pfenet()
    assert isinstance(recipe.method, PFENetConfig)
    return replace(recipe, method=replace(recipe.method, backbone=whole(*levels), prior=prior))


@register(Variant(name="pfenet_whole_no_prior", label="PFENet, whole trunk, no prior"))
def voc5i_mini_pfenet_whole_no_prior() -> Recipe:
    """PFENet without a prior map on the whole ResNet-50."""
    return _pfenet(NoPrior(), "layer2", "layer3")


@register(
    Variant(
        name="pfenet_whole_layer3",
        label="PFENet, whole trunk, prior from layer3",
        one_part_less=("pfenet_whole_no_prior",),
    )
)
def voc5i_mini_pfenet_whole_layer3() -> Recipe:
    """PFENet on the whole ResNet-50, its prior from layer3 as on the trunk without layer4."""
    return _pfenet(PriorMap(level="layer3", masked_input=None), "layer2", "layer3")


@register(
    Variant(
        name="pfenet_whole_layer4",
        label="PFENet, whole trunk, prior from layer4",
        one_part_less=("pfenet_whole_no_prior", "pfenet_whole_layer3"),
    )
)
def voc5i_mini_pfenet_whole_layer4() -> Recipe:
    """PFENet on the whole ResNet-50, its prior from layer4 on the masked layer3, as in the paper."""
    return _pfenet(PriorMap(), "layer2", "layer3", "layer4")


def _srpnet(*levels: str) -> Recipe:
    recipe = voc5i_mini_srpnet()
    assert isinstance(recipe.method, SRPNetConfig)
    method = replace(recipe.method, backbone=whole(*levels, trainable=True), levels=levels)
    return replace(recipe, method=method)


@register(Variant(name="srpnet_whole_layer3", label="SRPNet, whole trunk, layer1 to layer3"))
def voc5i_mini_srpnet_whole_layer3() -> Recipe:
    """SRPNet on the whole ResNet-50, its pyramid of layer1 to layer3."""
    return _srpnet("layer1", "layer2", "layer3")


@register(
    Variant(
        name="srpnet_whole_layer4",
        label="SRPNet, whole trunk, layer1 to layer4",
        one_part_less=("srpnet_whole_layer3",),
    )
)
def voc5i_mini_srpnet_whole_layer4() -> Recipe:
    """SRPNet on the whole ResNet-50, its pyramid of layer1 to layer4."""
    return _srpnet("layer1", "layer2", "layer3", "layer4")
