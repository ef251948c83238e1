"""Released checkpoints are recognised by their keys, renamed, loaded, or refused with a reason."""

import hashlib

import pytest
import torch

from fewseg.backbones import BackboneConfig
from fewseg.data.folds import ClassSplit
from fewseg.engine.checkpoint import load_checkpoint, read_checkpoint
from fewseg.engine.released import (
    import_checkpoint,
    import_released,
    released_canet_key,
)
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided, MeanVector
from fewseg.methods.pfenet import PFENet, PFENetConfig
from fewseg.methods.scl import SCLCANet, SCLCANetConfig, SCLPFENet, SCLPFENetConfig, SelfGuided
from fewseg.methods.sdaanet import CompoundedGate, PrototypeTeacher, SDAANetConfig

OFFICIAL = {
    "backbone.trunk.conv1.": "layer0.",
    "backbone.trunk.bn1.": "layer0.7.",
    "backbone.trunk.": "",
    "mid_support.": "down_supp.",
    "query.mid.": "down_query.",
    "query.merge.convs.": "init_merge.",
    "merge_support.convs.": "supp_init_merge.",
    "trunk.classifier.": "cls.",
    "trunk.inner.": "inner_cls.",
    "trunk.refine.": "beta_conv.",
    "trunk.top_down.": "alpha_conv.",
    "trunk.reduce.": "res1.",
    "trunk.residual.": "res2.",
}
"""Our prefixes to the official ones, for the deep stem; the first that fits counts."""


def official(key, deep=True):
    if not deep:
        key = key.replace("backbone.trunk.conv1.", "layer0.0.").replace("backbone.trunk.bn1.", "layer0.1.")
    ours = next((prefix for prefix in OFFICIAL if key.startswith(prefix)), "")
    name = OFFICIAL.get(ours, "") + key.removeprefix(ours)
    if "init_merge" in name:  # the convolution of each scale is the first layer of a Sequential there
        name = name.replace(".weight", ".0.weight")
    return name


def official_state(model, deep=True):
    return {official(key, deep): value for key, value in model.state_dict().items()}


def build(config, name="resnet50s"):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return config(backbone=BackboneConfig(name=name, weights=None, seed=4), channels=8).build()


@pytest.fixture(scope="module")
def pfenet():
    return build(PFENetConfig)


@pytest.fixture(scope="module")
def scl():
    return build(SCLPFENetConfig)


def assert_same_weights(first, second):
    values = second.state_dict()
    assert first.state_dict().keys() == values.keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, values[key]), key


def test_a_released_pfenet_becomes_ours_with_its_departures_named(pfenet):
    found = import_released(official_state(pfenet))
    assert found.method == "pfenet"
    assert type(found.model) is PFENet
    assert not found.model.training
    config = found.model.config
    assert config.backbone == BackboneConfig(name="resnet50s", weights=None, first_block_dilation="stage")
    assert (config.channels, config.scales, config.fusion) == (8, (60, 30, 15, 8), MeanVector())
    assert_same_weights(found.model, pfenet)
    assert len(found.report.matched) == len(pfenet.state_dict())


def test_a_released_scl_becomes_ours_with_its_departures_named(scl):
    found = import_released(official_state(scl), bn="train")
    assert found.method == "scl-pfenet"
    assert type(found.model) is SCLPFENet
    config = found.model.config
    assert config.self_guided == SelfGuided(second_pass="released", threshold=1.0)
    assert config.fusion == found.model.fusion == CrossGuided(iou="mean", path="support", divisor=5)
    assert (config.backbone.bn, config.channels) == ("train", 8)
    assert_same_weights(found.model, scl)


def test_a_plain_stem_is_recognised():
    model = build(PFENetConfig, "resnet50")
    state = official_state(model, deep=False)
    assert "layer0.1.running_mean" in state
    found = import_released(state)
    assert found.model.config.backbone.name == "resnet50"
    assert_same_weights(found.model, model)


@pytest.mark.parametrize("wrap", ["bare", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_are_read_bare_or_wrapped_with_or_without_prefix(tmp_path, pfenet, wrap, prefix):
    state = {prefix + key: value for key, value in official_state(pfenet).items()}
    path = tmp_path / "train_epoch_99.pth"
    torch.save(state if wrap == "bare" else {"epoch": 99, "state_dict": state}, path)
    found = import_released(path)
    assert_same_weights(found.model, pfenet)
    assert found.report.source == path.name
    assert found.report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_imported_checkpoint_loads_again_with_its_backbone_and_its_origin(tmp_path, scl):
    torch.save(official_state(scl), tmp_path / "split0.pth")
    names = {1: "one", 2: "two", 3: "three", 4: "four"}
    split = ClassSplit(name="four", fold=1, base=(1, 2), novel=(3, 4), class_names=names)
    found = import_checkpoint(tmp_path / "split0.pth", tmp_path / "ours.safetensors", class_split=split)
    method, about = load_checkpoint(tmp_path / "ours.safetensors")
    assert_same_weights(method, scl)
    assert method.config == found.model.config
    assert about.training["imported_from"] == "split0.pth"
    assert about.training["sha256"] == hashlib.sha256((tmp_path / "split0.pth").read_bytes()).hexdigest()
    assert about.class_split["fold"] == 1


@pytest.mark.parametrize(
    ("family", "named"),
    [
        (
            "pfenet",
            (
                "scales=(60, 30, 15, 8)",
                "mid_dropout=0.5",
                "head_dropout=0.1",
                "small_objects='sampled'",
                "mid_levels=('layer3', 'layer2')",
                "prior=PriorMap(kind='prior', level='layer4', masked_input='layer3')",
                "backbone.first_block_dilation='stage'",
                "backbone.stride_on_1x1=False",
                "backbone.ceil_pool=False",
            ),
        ),
        ("scl", ("scales=(60, 30, 15, 8)", "mid_dropout=0.5", "second_pass='released'", "divisor=5")),
        (
            "canet",
            (
                "mid_dropout=0.5",
                "aspp_dropout=0.5",
                "cross_iou_align_corners=False",
                "image_scales=(0.7, 1.0, 1.3)",
                "threshold='truncated'",
                "mid_levels=('layer2', 'layer3')",
                "backbone.first_block_dilation='stage'",
                "backbone.stride_on_1x1=True",
                "backbone.ceil_pool=True",
            ),
        ),
    ],
)
def test_options_that_no_tensor_shows_are_stated(request, caplog, tmp_path, family, named):
    state = (
        request.getfixturevalue("canet_state")[1]
        if family == "canet"
        else official_state(request.getfixturevalue(family))
    )
    found = import_checkpoint(state, tmp_path / "ours.safetensors")
    (line,) = [record.message for record in caplog.records if "does not show" in record.message]
    assert all(option in line for option in named)
    assert ("Give scales" in line) == (family != "canet")
    about = read_checkpoint(tmp_path / "ours.safetensors")
    assert set(about.training["assumed"]) == set(found.assumed)
    assert about.config == found.model.config


def test_options_that_are_given_or_that_a_method_has_not_got_are_not_assumed(pfenet, canet_state, caplog):
    import_released(official_state(pfenet), scales=(60, 30, 15, 8))
    assert "mid_dropout=0.5" in caplog.text
    assert "scales" not in caplog.text
    with pytest.raises(ValueError, match=r"SCL\(CANet\), which has no pyramid: leave scales out"):
        import_released(canet_state[1], scales=(60, 30, 15, 8))


def test_other_scales_are_taken_or_refused_by_their_number(pfenet):
    state = official_state(pfenet)
    assert import_released(state, scales=(16, 8, 4, 2)).model.config.scales == (16, 8, 4, 2)
    with pytest.raises(ValueError, match=r"has 4 pyramid scales; 2 were given: \(16, 8\)"):
        import_released(state, scales=(16, 8))


def test_states_of_other_methods_and_networks_are_refused(pfenet):
    state = official_state(pfenet)
    with pytest.raises(ValueError, match=r"no released PFENet or SCL.* checkpoint: .*lacks \['cls'"):
        import_released({"features.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"holds more: \('extra.0.weight',\)"):
        import_released(state | {"extra.0.weight": torch.zeros(64, 256, 1, 1)})
    with pytest.raises(ValueError, match=r"7 bottleneck blocks in layer3; it must be ResNet-50"):
        import_released(state | {"layer3.6.conv3.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing: trunk \(1\)"):
        import_released({key: value for key, value in state.items() if key != "res1.0.weight"})
    with pytest.raises(ValueError, match=r"of another shape, the first query.merge.convs.0.weight"):
        import_released(state | {"init_merge.0.0.weight": torch.zeros(8, 18, 1, 1)})


CANET_KEYS = [
    ("conv1.weight", "backbone.trunk.conv1.weight"),
    ("bn1.running_var", "backbone.trunk.bn1.running_var"),
    ("layer3.5.bn3.bias", "backbone.trunk.layer3.5.bn3.bias"),
    ("layer5.0.bias", "mid.0.bias"),
    ("FPM_Decoder.layer55.0.weight", "comparison.conv.weight"),
    ("FPM_Decoder.layer6_3.0.weight", "trunk.aspp.branches.3.weight"),
    ("FPM_Decoder.layer7.0.bias", "trunk.classifier.0.bias"),
    ("FPM_Decoder.layer9.weight", "trunk.classifier.3.weight"),
    ("FPM_Decoder.residule1.3.bias", "trunk.entry.second.bias"),
    ("FPM_Decoder.supp_residule1.1.weight", "support_entry.first.weight"),
    ("FPM_Decoder.residule3.1.weight", "trunk.blocks.1.first.weight"),
    ("FPM_Decoder.layer8.0.weight", "FPM_Decoder.layer8.0.weight"),
    ("layer4.0.conv1.weight", "layer4.0.conv1.weight"),
    ("other.0.weight", "other.0.weight"),
]


@pytest.mark.parametrize(("theirs", "ours"), CANET_KEYS)
def test_official_keys_of_canet_become_ours(theirs, ours):
    assert released_canet_key(theirs) == ours


@pytest.fixture(scope="module")
def canet_state():
    """A small SCL(CANet) and its weights under the official keys."""
    backbone = BackboneConfig(
        name="resnet50",
        weights=None,
        levels=("layer2", "layer3"),
        stride_on_1x1=True,
        first_block_dilation="stage",
    )
    model = SCLCANetConfig(backbone=backbone, channels=8).build()
    names = ("residule1", "supp_residule1", "residule2", "residule3")
    blocks = [f"{name}.{index}" for name in names for index in (1, 3)]
    theirs = [f"FPM_Decoder.layer6_{i}.0" for i in range(5)] + [
        f"FPM_Decoder.{name}" for name in ("layer55.0", "layer7.0", "layer9", *blocks)
    ]
    names = {released_canet_key(f"{t}.{leaf}"): f"{t}.{leaf}" for t in theirs for leaf in ("weight", "bias")}
    names |= {f"mid.0.{leaf}": f"layer5.0.{leaf}" for leaf in ("weight", "bias")}
    state = model.state_dict()
    return model, {names.get(k, k.removeprefix("backbone.trunk.")): v for k, v in state.items()}


def test_a_released_scl_on_canet_becomes_ours_with_its_departures_named(canet_state):
    model, state = canet_state
    found = import_released({f"module.{key}": value for key, value in state.items()})
    assert found.method == "scl-canet"
    assert type(found.model) is SCLCANet
    config = found.model.config
    assert config.self_guided == SelfGuided(threshold="truncated")
    assert config.fusion == CrossGuided(iou="foreground", path="support", divisor=5)
    assert (config.history_reset, config.channels) == (0.9, 8)
    assert (config.aspp_dropout, config.initialisation, config.small_objects) == (0.5, "normal", "sampled")
    assert config.refinement == Refinement(iterations=4, image_scales=(0.7, 1.0, 1.3))
    assert not config.cross_iou_align_corners
    assert config.backbone.ceil_pool
    assert (config.backbone.stride_on_1x1, config.backbone.first_block_dilation) == (True, "stage")
    assert_same_weights(found.model, model)


def test_other_trunks_and_further_parts_of_canet_are_refused(canet_state):
    _, state = canet_state
    with pytest.raises(ValueError, match="7 bottleneck blocks in layer3; it must be"):
        import_released(state | {"layer3.6.conv3.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"holds more: \('FPM_Decoder.layer8.0.weight',\)"):
        import_released(state | {"FPM_Decoder.layer8.0.weight": torch.zeros(1)})


def test_a_released_sdaanet_becomes_ours_with_its_departures_named():
    model = build(SDAANetConfig, "resnet50")
    state = official_state(model, deep=False)
    heads = {
        "gate.reduce.": "se_supp.0.",
        "gate.expand.": "se_supp.2.",
        "attention.conv.": "simple_mask.0.",
        "attention.pyramid.bottleneck.": "simple_mask.2.bottleneck.0.",
        "attention.pyramid.bottleneck_norm.": "simple_mask.2.bottleneck.1.",
        "attention.support_head.": "s_cls.",
        "attention.query_head.": "q_maskgeneration.",
    }
    for i in range(4):
        heads[f"attention.pyramid.convs.{i}."] = f"simple_mask.2.stages.{i}.1."
        heads[f"attention.pyramid.norms.{i}."] = f"simple_mask.2.stages.{i}.2."
    theirs = {}
    for key, value in state.items():
        ours = next((prefix for prefix in heads if key.startswith(prefix)), "")
        if ours.startswith("gate.") and key.endswith(".weight"):
            value = value[..., None, None]
        if key.startswith("init_merge"):  # the prototype comes before the query there
            value = torch.cat([value[:, 8:16], value[:, :8], value[:, 16:]], dim=1)
        theirs[heads.get(ours, "") + key.removeprefix(ours)] = value
    found = import_released(theirs)
    assert found.method == "sdaanet"
    assert (found.model.config.gate, found.model.config.distillation) == (
        CompoundedGate(),
        PrototypeTeacher(),
    )
    assert found.model.config.backbone.first_block_dilation == "stage"
    assert_same_weights(found.model, model)
