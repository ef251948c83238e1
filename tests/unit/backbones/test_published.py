"""Published weights: which ones a name stands for, and what happens when they cannot be had."""

import pytest
import timm
import torch

from fewseg.backbones import BackboneConfig
from fewseg.backbones.weights import normalisation, published_name


def test_a_bare_name_stands_for_torchvisions_first_weights():
    assert published_name("resnet50") == "resnet50.tv_in1k"
    assert published_name("vgg16_bn") == "vgg16_bn.tv_in1k"


def test_a_deep_stem_stands_for_timms_default_and_a_tag_for_itself():
    assert published_name("resnet50s") == "resnet50s"
    assert published_name("resnet50.a1_in1k") == "resnet50.a1_in1k"


def test_a_network_without_published_weights_is_refused():
    with pytest.raises(
        ValueError, match=r"no weights are published for backbone 'resnet200'.*None for random"
    ):
        published_name("resnet200")


def test_mean_and_std_are_those_of_the_published_weights():
    assert normalisation(None) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation("resnet34.ra4_e3600_r224_in1k") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_imagenet_weights_are_asked_of_timm_by_name_and_loaded(monkeypatch):
    published = timm.create_model("resnet18")
    torch.nn.init.constant_(published.bn1.running_mean, 0.25)
    build = timm.create_model

    def create(name, pretrained=False, **settings):
        if pretrained:
            assert name == "resnet18.tv_in1k"
            return published
        return build(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", create)
    backbone = BackboneConfig(name="resnet18").build()
    assert backbone.report.source == "resnet18.tv_in1k"
    assert backbone.report.ignored == ("fc.weight", "fc.bias")
    for key, value in backbone.trunk.state_dict().items():
        assert torch.equal(value, published.state_dict()[key])


def test_unreachable_weights_are_an_error_that_says_what_to_do(monkeypatch):
    build = timm.create_model

    def create(name, pretrained=False, **settings):
        if pretrained:
            raise FileNotFoundError("no network")
        return build(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ValueError, match=r"could not be downloaded \(no network\).*give weights the path"):
        BackboneConfig(name="resnet18").build()
