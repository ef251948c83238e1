"""Backbones give the numbers that the networks inside the authors' released code give."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewseg.backbones import LEVELS, BackboneConfig, load_weights


@pytest.fixture(scope="module")
def pfenet_case(golden):
    return golden("pfenet_1shot")


@pytest.fixture(scope="module")
def released_resnet50(pfenet_case):
    config = BackboneConfig(name="resnet50s", weights=None, levels=LEVELS, first_block_dilation="stage")
    backbone = config.build()
    report = load_weights(backbone.trunk, pfenet_case.weights)
    assert len(report.matched) == len(backbone.trunk.state_dict())
    return backbone


@pytest.mark.parametrize(("index", "level"), list(enumerate(LEVELS)))
def test_deep_stem_resnet_gives_the_released_query_maps(released_resnet50, pfenet_case, index, level):
    maps = released_resnet50.maps(pfenet_case.input("query"))
    pfenet_case.assert_close(maps[level].mean((2, 3)), f"chanmean_query_layer{index}")


def test_layer4_rerun_on_a_masked_layer3_gives_the_released_support_map(released_resnet50, pfenet_case):
    layer3 = released_resnet50.maps(pfenet_case.input("support")[:, 0])["layer3"]
    pfenet_case.assert_close(layer3.mean((2, 3)), "chanmean_support0_layer3")
    mask = (pfenet_case.input("support_mask") == 1).float()
    cells = F.interpolate(mask, layer3.shape[-2:], mode="bilinear", align_corners=True)
    layer4 = released_resnet50.rerun("layer4", layer3 * cells)
    pfenet_case.assert_close(layer4.mean((2, 3)), "chanmean_support0_layer4")


def test_first_block_dilation_of_timm_is_outside_the_released_tolerance(pfenet_case):
    backbone = BackboneConfig(name="resnet50s", weights=None, levels=("layer4",)).build()
    load_weights(backbone.trunk, pfenet_case.weights)
    ours = backbone.maps(pfenet_case.input("query"))["layer4"].mean((2, 3))
    with pytest.raises(AssertionError, match="off by"):
        pfenet_case.assert_close(ours, "chanmean_query_layer4")


def test_vgg16_gives_the_released_panet_features(golden):
    case = golden("panet_1way1shot")
    first = {
        "0": 0,
        "2": 5,
        "4": 10,
        "6": 17,
        "8": 24,
    }  # official block to the index of its first convolution

    def timm_key(key: str) -> str:
        block, layer, leaf = key.split(".")[-3:]
        return f"features.{first[block] + int(layer)}.{leaf}"

    backbone = BackboneConfig(name="vgg16", weights=None, levels=("layer4",)).build()
    load_weights(backbone.trunk, {timm_key(key): value for key, value in case.weights.items()})
    backbone.trunk.features[-1] = nn.Identity()  # the released PANet leaves the last ReLU out
    images = torch.cat([case.input("support")[0, 0], case.input("query")[0]])
    case.assert_close(backbone.maps(images)["layer4"].mean((2, 3)), "chanmean_feat")
