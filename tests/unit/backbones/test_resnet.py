"""fewseg's own ResNets against timm's."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from fewseg.backbones.resnet import RESNETS, ResNet
from fewseg.backbones.weights import IMAGENET_MEAN, normalisation


def both(name, stride=8, **shape):
    bottleneck, layers, stem_width = RESNETS[name]
    own = {"layers": layers, "stem_width": stem_width} | shape
    torch.manual_seed(3)
    made = ResNet(bottleneck, **own, output_stride=stride)
    torch.manual_seed(3)
    given = {**shape, "stem_type": "deep"} if shape else {}
    return made, timm.create_model(name, pretrained=False, num_classes=0, output_stride=stride, **given)


SMALL = {"layers": (1, 2, 1, 2), "channels": (8, 16, 16, 32), "stem_width": 4}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", {}),
        ("resnet50", {}),
        ("resnet50s", {}),
        ("resnet18", SMALL),
        ("resnet50", {"stride": 32, **SMALL}),
    ],
)
def test_values_from_a_seed_and_maps_are_those_of_timm(name, shape):
    made, theirs = both(name, **shape)
    values, expected = made.state_dict(), theirs.state_dict()
    assert list(values) == list(expected)
    assert all(torch.equal(values[key], expected[key]) for key in values)
    assert [i["num_chs"] for i in made.feature_info] == [i["num_chs"] for i in theirs.feature_info]
    for net in (made, theirs):
        for module in net.eval().modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.7)  # no residual branch is 0
    x = torch.randn(1, 3, 65, 49, generator=torch.Generator().manual_seed(0))
    maps = made.maxpool(made.act1(made.bn1(made.conv1(x))))
    for stage in (made.layer1, made.layer2, made.layer3, made.layer4):
        maps = stage(maps)
    assert torch.equal(maps, theirs.forward_features(x))
    assert [i["reduction"] for i in made.feature_info[1:]] == [
        i["reduction"] for i in theirs.feature_info[1:]
    ]


@pytest.mark.parametrize("name", RESNETS)
def test_every_name_is_one_of_timm_with_as_many_values_and_imagenets_mean(name):
    with torch.device("meta"):
        bottleneck, layers, stem_width = RESNETS[name]
        made = ResNet(bottleneck, layers, stem_width=stem_width).state_dict()
        theirs = timm.create_model(name, num_classes=0).state_dict()
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in theirs.items()}
    cfg = timm.get_pretrained_cfg(name)
    assert normalisation(name) == (cfg.mean, cfg.std)
    assert normalisation(name)[0] == IMAGENET_MEAN


HEAVY = "timm torchvision torch._dynamo huggingface_hub lightning_fabric tensorboard pandas sympy"


def test_a_resnet_a_fitted_head_and_every_recipe_need_neither_timm_nor_what_it_imports():
    code = (
        "import sys, torch, fewseg.inference.folder_run, fewseg.recipes.evaluation\n"
        "from fewseg.backbones import BackboneConfig\n"
        "from fewseg.methods.fitted import FittedConfig\n"
        "from fewseg.recipes.registry import RECIPES, recipe\n"
        "for name in RECIPES: recipe(name)\n"
        "backbone = BackboneConfig(name='resnet18', weights=None, levels=('layer1',))\n"
        "method = FittedConfig(backbone=backbone, levels=('layer1',)).build()\n"
        "image, mask = torch.rand(1, 1, 3, 33, 33), torch.arange(33) % 2 * torch.ones(1, 1, 33, 33)\n"
        "method.eval()(image[0], image, mask.byte())\n"
        f"found = [name for name in '{HEAVY}'.split() if name in sys.modules]\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
