"""Networks other than ResNets and VGGs: their own maps, by our level names."""

import pytest
import timm
import torch

from fewseg.backbones import BackboneConfig
from fewseg.methods.matcher import MatcherConfig
from fewseg.types import EncodedShots


def built(name, *levels):
    return BackboneConfig(name=name, weights=None, levels=levels).build().eval()


def test_a_convnext_gives_its_own_maps_at_stride_8():
    backbone = built("convnext_atto", "layer2", "layer4")
    images = torch.rand(2, 3, 65, 65)
    found = backbone(images)
    normalised = (images - backbone.mean.view(1, 3, 1, 1)) / backbone.std.view(1, 3, 1, 1)
    expected = backbone.trunk.net.forward_intermediates(normalised, intermediates_only=True)
    assert torch.equal(found["layer2"], expected[1])
    assert torch.equal(found["layer4"], expected[3])
    assert backbone.channels == {"layer2": 80, "layer4": 320}
    assert backbone.strides == {"layer2": 8, "layer4": 8}


def test_a_vision_transformer_is_parted_into_four_layers_and_takes_any_size():
    backbone = built("vit_tiny_patch16_224", "layer1", "layer4")
    found = backbone(torch.rand(1, 3, 97, 65))
    assert {k: tuple(v.shape) for k, v in found.maps.items()} == {
        "layer1": (1, 192, 6, 4),
        "layer4": (1, 192, 6, 4),
    }
    blocks = backbone.trunk.net.forward_intermediates(torch.rand(1, 3, 96, 64), intermediates_only=True)
    assert len(blocks) == 12
    named = built("vit_tiny_patch16_224", "layer1", "layer1.2", "layer2.0", "layer4")
    found = named.trunk.maps(torch.rand(1, 3, 96, 64), named.config.levels)
    assert torch.equal(found["layer1"], found["layer1.2"])
    every = named.trunk.net.forward_intermediates
    images = torch.rand(1, 3, 96, 64)
    expected = every(images, intermediates_only=True)
    found = named.trunk.maps(images, named.config.levels)
    for level, i in {"layer1": 2, "layer2.0": 3, "layer4": 11}.items():
        assert torch.equal(found[level], expected[i])


def test_the_names_of_the_weights_are_timms():
    names = set(timm.create_model("efficientnet_b0", num_classes=0).state_dict())
    assert set(built("efficientnet_b0", "layer3").trunk.net.state_dict()) == names


def test_a_weight_file_of_timm_is_loaded(tmp_path):
    net = timm.create_model("convnext_atto", num_classes=10)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = BackboneConfig(
        name="convnext_atto", weights=str(tmp_path / "net.pth"), levels=("layer4",)
    ).build()
    assert backbone.report.complete
    assert torch.equal(backbone.trunk.net.stem[0].weight, net.stem[0].weight)


def test_a_stage_by_itself_is_refused_with_what_to_do():
    backbone = built("convnext_atto", "layer3")
    with pytest.raises(
        ValueError, match=r"cannot run 'layer3' by itself: choose a ResNet .* without masked input"
    ):
        backbone.rerun("layer3", torch.rand(1, 80, 8, 8))


def test_levels_that_a_network_lacks_are_refused():
    with pytest.raises(ValueError, match="with no 'stem' among them"):
        built("convnext_atto", "stem")


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_the_matcher_works_on_any_of_them(name):
    backbone = BackboneConfig(name=name, weights=None, levels=("layer2", "layer3"))
    matcher = MatcherConfig(backbone=backbone).build().eval()
    images = torch.rand(3, 3, 65, 65)
    masks = torch.zeros(1, 2, 65, 65, dtype=torch.uint8)
    masks[..., :30, :30] = 1
    with torch.no_grad():
        state = matcher.encode_support(EncodedShots(features=matcher.extract(images[:2]), masks=masks))
        logits = matcher.segment(matcher.extract(images[2:]), state)
    assert logits.shape == (1, 2, 65, 65)
    assert bool(torch.isfinite(logits).all())
