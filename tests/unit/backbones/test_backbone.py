"""What every backbone promises to methods; VGGs without a last ReLU; other networks of timm."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fewseg.backbones import LEVELS, BackboneConfig, ResNetShape, ScaledBackbone
from fewseg.backbones.weights import state_sha256
from fewseg.methods.matcher import MatcherConfig
from fewseg.types import EncodedShots

TINY = ResNetShape(layers=(1, 2, 2, 2), channels=(8, 12, 16, 20), stem_width=4)


def tiny(name="resnet18", **settings):
    return BackboneConfig(name=name, weights=None, shape=TINY, **settings)


def dilations(stage):
    return [(block.conv2.dilation, block.conv2.padding) for block in stage]


@pytest.mark.parametrize(
    "config",
    [
        tiny(levels=LEVELS),
        tiny("resnet50", levels=LEVELS),
        tiny("resnet50", levels=LEVELS, stride_on_1x1=True, first_block_dilation="stage"),
        BackboneConfig(name="resnet18", weights=None, levels=LEVELS),
        BackboneConfig(name="vgg16_bn", weights=None, levels=LEVELS),
    ],
    ids=["basic", "bottleneck", "variant", "resnet18", "vgg16_bn"],
)
@pytest.mark.parametrize("height", [41, 97])
def test_maps_have_the_declared_channels_and_one_cell_more_than_the_strides(config, height):
    backbone = config.build()
    features = backbone(torch.rand(1, 3, height, 57))
    assert features.image_size == (height, 57)
    assert tuple(features.maps) == LEVELS
    for level, maps in features.maps.items():
        stride = backbone.strides[level]
        cells = ((height - 1) // stride + 1, 56 // stride + 1)
        assert maps.shape == (1, backbone.channels[level], *cells)
    assert [backbone.strides[level] for level in ("layer2", "layer3", "layer4")] == [8, 8, 8]


def test_plain_resnet50_equals_torchvisions_dilated_resnet50():
    config = BackboneConfig(name="resnet50", weights=None, levels=("layer1", "layer2", "layer3", "layer4"))
    backbone = config.build()
    other = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    other.load_state_dict(backbone.trunk.state_dict(), strict=False)
    other.eval()
    image = torch.rand(1, 3, 65, 65)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = other.maxpool(
        other.relu(other.bn1(other.conv1((image - mean[:, None, None]) / std[:, None, None])))
    )
    features = backbone(image)
    for level in config.levels:
        expected = getattr(other, level)(expected)
        torch.testing.assert_close(features[level], expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "layer3", "layer4"), [("previous", (1, 2), (2, 4)), ("stage", (2, 2), (4, 4))]
)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_first_block_takes_the_dilation_of_the_stage_before_or_of_its_own(name, form, layer3, layer4):
    trunk = tiny(name, first_block_dilation=form).build().trunk
    first_conv = "conv1" if name == "resnet18" else "conv2"
    for stage, (first, rest) in ((trunk.layer3, layer3), (trunk.layer4, layer4)):
        conv = getattr(stage[0], first_conv)
        assert conv.dilation == conv.padding == (first, first)
        assert stage[1].conv2.dilation == stage[1].conv2.padding == (rest, rest)
    assert dilations(trunk.layer2) == [((1, 1), (1, 1))] * 2


def test_stride_moves_to_the_first_1x1_and_changes_what_the_block_sees():
    plain = tiny("resnet50", levels=("layer2",), seed=3).build()
    moved = tiny("resnet50", levels=("layer2",), seed=3, stride_on_1x1=True).build()
    block = moved.trunk.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert plain.trunk.layer2[0].conv2.stride == (2, 2)
    assert moved.trunk.layer2[0].downsample[0].stride == (2, 2)
    for backbone in (plain, moved):
        nn.init.ones_(backbone.trunk.layer2[0].bn3.weight)  # timm starts a block as the identity
    image = torch.rand(1, 3, 33, 33)
    assert not torch.allclose(plain(image)["layer2"], moved(image)["layer2"])


def test_vgg_dilates_block_five_alone_and_pools_the_fourth_without_stride():
    trunk = BackboneConfig(name="vgg16", weights=None, levels=("layer4",)).build().trunk
    convs = [layer for layer in trunk.features if isinstance(layer, nn.Conv2d)]
    pools = [layer for layer in trunk.features if isinstance(layer, nn.MaxPool2d)]
    assert [conv.dilation[0] for conv in convs] == [1] * 10 + [2] * 3
    assert [(pool.kernel_size, pool.padding, pool.stride) for pool in pools] == [(3, 1, 2)] * 3 + [(3, 1, 1)]


@pytest.mark.parametrize(
    "config", [tiny(levels=("layer2",)), BackboneConfig(name="vgg16", weights=None, levels=("layer2",))]
)
def test_only_the_asked_levels_are_given_and_deeper_stages_are_not_built(config):
    backbone = config.build()
    assert tuple(backbone(torch.rand(1, 3, 33, 33)).maps) == tuple(backbone.channels) == ("layer2",)
    assert not any("layer3" in name for name, _ in backbone.named_modules())
    with pytest.raises(ValueError, match=r"'layer3' is not built.*add it to the levels"):
        backbone.rerun("layer3", torch.rand(1, 12, 5, 5))


def test_forward_normalises_and_maps_does_not():
    backbone = tiny().build()
    image = torch.rand(2, 3, 33, 33)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert torch.equal(backbone(image)["layer4"], backbone.maps((image - mean) / std)["layer4"])
    assert "mean" not in backbone.state_dict()


def test_rerun_runs_one_stage_on_the_given_map():
    backbone = tiny().build()
    maps = backbone.maps(torch.randn(1, 3, 33, 33))
    assert torch.equal(backbone.rerun("layer4", maps["layer3"]), maps["layer4"])
    assert not torch.equal(backbone.rerun("layer4", maps["layer3"] * 0.5), maps["layer4"])


def test_a_frozen_backbone_computes_no_gradient_and_leaves_grad_mode_as_it_was():
    backbone = tiny().build()
    maps = backbone.maps(torch.randn(1, 3, 33, 33))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not maps["layer4"].requires_grad
    assert not backbone.rerun("layer4", maps["layer3"].requires_grad_()).requires_grad
    assert torch.is_grad_enabled()


def test_gradients_reach_every_weight_of_a_trainable_backbone_unless_switched_off():
    backbone = tiny(trainable=True, bn="train").build()
    backbone(torch.rand(2, 3, 33, 33))["layer4"].sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    with torch.no_grad():
        assert not backbone(torch.rand(2, 3, 33, 33))["layer4"].requires_grad


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("bn", ["eval", "train"])
def test_batch_norm_follows_train_only_when_the_config_says_so(bn, trainable):
    backbone = tiny(bn=bn, trainable=trainable).build()
    before = backbone.trunk.bn1.running_mean.clone()
    assert backbone.train() is backbone
    backbone(torch.rand(2, 3, 33, 33))
    assert torch.equal(backbone.trunk.bn1.running_mean, before) == (bn == "eval")
    assert backbone.training == (trainable or bn == "train")
    assert backbone.config.fixed == (not backbone.training)
    backbone.eval()
    before = backbone.trunk.bn1.running_mean.clone()
    backbone(torch.rand(2, 3, 33, 33))
    assert torch.equal(backbone.trunk.bn1.running_mean, before)
    assert not backbone.training


def test_bn_eps_replaces_every_epsilon_or_none():
    def epsilons(config):
        return {m.eps for m in config.build().modules() if isinstance(m, nn.BatchNorm2d)}

    assert epsilons(tiny()) == {1e-5}
    assert epsilons(tiny(bn_eps=1.001e-5)) == {1.001e-5}


def test_random_values_come_from_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = tiny(seed=5).build()
    assert torch.equal(torch.rand(1), expected)
    second, other = tiny(seed=5).build(), tiny(seed=6).build()
    assert torch.equal(first.trunk.layer4[0].conv1.weight, second.trunk.layer4[0].conv1.weight)
    assert not torch.equal(first.trunk.layer4[0].conv1.weight, other.trunk.layer4[0].conv1.weight)


def test_digest_follows_values_and_settings_but_not_whether_gradients_flow():
    same = tiny(seed=1).build().digest()
    assert tiny(seed=1).build().digest() == same
    assert tiny(seed=1, trainable=True).build().digest() == same
    others = [tiny(seed=2), tiny(seed=1, first_block_dilation="stage"), tiny(seed=1, bn_eps=1e-3)]
    assert len({same, *(config.build().digest() for config in others)}) == 4


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 33, 33), torch.zeros(1, 33, 33, 3), torch.zeros(1, 3, 33, 33, dtype=torch.uint8)],
)
def test_images_of_another_shape_or_type_are_refused(images):
    with pytest.raises(ValueError, match=r"must be floating \(n, 3, H, W\)"):
        tiny().build()(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ("layer5",)}, "unknown level 'layer5': give a stage"),
        ({"levels": ("stem.1",)}, "or a block of one such as 'layer3.2'"),
        ({"levels": ()}, "one or more of"),
        ({"levels": ("layer2", "layer2")}, "each once"),
        ({"name": "resnet5O"}, "such as .*resnet50"),
        ({"name": "resnet50.tv_in1", "weights": None}, "such as .*resnet50.tv_in1k"),
        ({"name": "konvnext"}, "unknown backbone 'konvnext': give a name that timm knows"),
        ({"name": "convnext_atto", "stride_on_1x1": True}, "for ResNets, not 'convnext_atto'"),
        ({"name": "vgg16", "stride_on_1x1": True}, "for ResNets, not 'vgg16'"),
        ({"name": "vgg16", "ceil_pool": True}, "for ResNets, not 'vgg16'"),
        ({"name": "vgg16", "first_block_dilation": "stage"}, "for ResNets"),
        ({"name": "vgg16", "weights": None, "shape": TINY}, "for ResNets"),
        ({"shape": TINY}, "no weights are published for a backbone with a shape"),
        ({"last_relu": False}, "last_relu is for VGGs, not 'resnet"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride_on_1x1": True}, "bottleneck blocks; 'resnet18' has none"),
        ({"levels": ("layer3.2",)}, r"no level 'layer3.2': layer3 has 2 blocks, 0 .. 1"),
        ({"name": "convnext_atto", "shape": None, "levels": ("stem",)}, "with no 'stem' among them"),
    ],
)
def test_what_a_network_lacks_is_refused_when_it_is_built(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(tiny(), **settings).build()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_block_of_a_stage_gives_its_own_map_and_the_last_block_is_the_stage(name):
    backbone = tiny(name, levels=("layer3", "layer3.1", "layer3.0", "layer2")).build()
    found, trunk = backbone(torch.rand(1, 3, 65, 65)), backbone.trunk
    first = trunk.layer3[0](found["layer2"])
    assert torch.equal(found["layer3.0"], first)
    assert torch.equal(found["layer3.1"], trunk.layer3[1](first))
    assert torch.equal(found["layer3.1"], found["layer3"])
    assert torch.equal(backbone.rerun("layer3.0", found["layer2"]), first)
    assert backbone.channels["layer3.0"] == backbone.channels["layer3"] == found["layer3.0"].shape[1]
    assert backbone.strides["layer3.0"] == 8
    assert "layer4" not in dict(trunk.named_children())


def test_a_convolution_of_a_vgg_is_a_block_and_the_last_has_the_pool():
    levels = ("layer1.0", "layer1.1", "layer3.0", "layer3.2", "stem")
    backbone = BackboneConfig(name="vgg16", weights=None, levels=levels).build()
    found = backbone(torch.rand(1, 3, 65, 65))
    for level, maps in found.maps.items():
        assert maps.shape[1:] == (backbone.channels[level], *[64 // backbone.strides[level] + 1] * 2)
    assert [backbone.strides[level] for level in levels] == [2, 4, 8, 8, 2]
    features = backbone.trunk.features
    assert torch.equal(found["layer1.0"], features[5:7](found["stem"]))
    assert torch.equal(found["layer1.1"], features[7:10](found["layer1.0"]))


SMALL_VGG = BackboneConfig(name="vgg11", weights=None, levels=("layer1", "layer2"))


@pytest.fixture(scope="module")
def pair():
    """The same random VGG with and without its last ReLU."""
    return SMALL_VGG.build(), replace(SMALL_VGG, last_relu=False).build()


def test_only_the_deepest_level_loses_its_relu(pair):
    whole, without = pair
    images = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    expected, found = whole(images), without(images)
    assert torch.equal(found["layer1"], expected["layer1"])
    assert float(expected["layer2"].min()) >= 0
    assert float(found["layer2"].min()) < 0
    # a pool follows: the largest of cut values is the cut largest value
    torch.testing.assert_close(found["layer2"].relu(), expected["layer2"])


def key_without_the_choice(backbone):
    """What the digest was made of before ``last_relu``."""
    known = (
        "name",
        "levels",
        "first_block_dilation",
        "stride_on_1x1",
        "bn_eps",
        "bn",
        "shape",
    )
    settings = {k: v for k, v in asdict(backbone.config).items() if k in known}
    settings |= {"mean": backbone.mean.tolist(), "std": backbone.std.tolist()}
    text = json.dumps(settings, sort_keys=True) + state_sha256(backbone.trunk.state_dict())
    return hashlib.sha256(text.encode()).hexdigest()


def test_old_digests_stay_and_the_map_without_relu_has_its_own(pair):
    whole, without = pair
    for backbone in (whole, tiny(levels=("layer2",)).build()):
        assert backbone.digest() == key_without_the_choice(backbone)
    assert without.digest() not in (whole.digest(), key_without_the_choice(without))


def test_a_stem_whose_pool_rounds_up_has_a_cell_more_at_even_sizes_and_the_same_map_at_8k_plus_1():
    down, up = (tiny(levels=("layer1",), ceil_pool=up).build() for up in (False, True))
    side, even = torch.rand(1, 3, 33, 33), torch.rand(1, 3, 36, 36)
    assert torch.equal(down(side)["layer1"], up(side)["layer1"])
    assert (down(even)["layer1"].shape[-1], up(even)["layer1"].shape[-1]) == (9, 10)
    assert down.digest() != up.digest()


def test_other_scales_of_an_image_are_read_beside_its_own():
    backbone = tiny(levels=("layer1", "layer2")).build()
    scaled, images = ScaledBackbone(backbone, (0.5, 1.0, 1.3)), torch.rand(2, 3, 33, 40)
    found = scaled(images)
    assert found.image_size == (33, 40)
    assert {name for name in found.maps if "@" not in name} == {"layer1", "layer2"}
    for scale in (0.5, 1.0, 1.3):
        resized = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        expected = backbone(resized if scale != 1 else images)
        for level in ("layer1", "layer2"):
            assert torch.equal(found.at_scale(scale)[level], expected[level])
    with pytest.raises(ValueError, match=r"not read at scale 0\.7 of their images"):
        found.at_scale(0.7)
    assert len({backbone.digest(), scaled.digest(), ScaledBackbone(backbone, (0.5,)).digest()}) == 3


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
    levels = ("layer1", "layer1.2", "layer2.0", "layer4")
    backbone = built("vit_tiny_patch16_224", *levels)
    assert {maps.shape for maps in backbone(torch.rand(1, 3, 97, 65)).maps.values()} == {(1, 192, 6, 4)}
    images = torch.rand(1, 3, 96, 64)
    expected = backbone.trunk.net.forward_intermediates(images, intermediates_only=True)
    assert len(expected) == 12
    found = backbone.trunk.maps(images, levels)
    for level, i in {"layer1": 2, "layer1.2": 2, "layer2.0": 3, "layer4": 11}.items():
        assert torch.equal(found[level], expected[i])


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


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
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
