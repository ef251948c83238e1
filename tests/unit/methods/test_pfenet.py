"""PFENet: one vector a shot, a prior map, and the losses of query and inner classifiers."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig
from fewseg.ops.masks import foreground_cells
from small_segmenters import episodes_of, small_backbone


def test_a_guide_is_the_pooled_mid_level_feature_and_the_foregrounds_keys(pfenet, shots):
    images, masks = shots(1, 2)
    features = pfenet.extract(images[0])
    guides = pfenet.encode_shots(features, masks[0])
    mid = pfenet.mid_support.of(features)
    cells = foreground_cells(masks[0], (9, 9))
    for k in range(2):
        inside = cells[k, 0] > 0
        expected = mid[k][:, inside].sum(dim=1) / (int(inside.sum()) + 5e-4)
        torch.testing.assert_close(guides["vectors"][k, 0], expected, atol=1e-5, rtol=1e-4)
        assert int(guides.valid[k].sum()) == int(inside.sum())
    assert guides["vectors"].shape == (2, 1, 8)


def test_the_losses_are_cross_entropies_under_the_mean_of_the_shots(make_method, shots):
    pfenet = make_method(PFENetConfig, deep_weight=0.25)
    images, masks = shots(1, 3)
    episodes = episodes_of(images, masks)
    encoded = pfenet.encode_episodes(episodes)
    found = pfenet.training_losses(encoded)
    logits = pfenet.segment(encoded.query, pfenet.encode_support(encoded.support))
    expected = F.cross_entropy(logits, masks[:, 2].long(), ignore_index=255)
    torch.testing.assert_close(found.terms["query"], expected, atol=1e-5, rtol=1e-4)
    assert set(found.terms) == {"query", "query_deep"}
    torch.testing.assert_close(found.total, found.terms["query"] + 0.25 * found.terms["query_deep"])


@pytest.mark.parametrize("config", [PFENetConfig, SCLPFENetConfig, SDAANetConfig])
def test_learning_batch_norm_sees_queries_shots_and_masked_shots_pass_by_pass(make_method, shots, config):
    backbone = small_backbone("layer2", "layer3", "layer4", bn="train")
    method = make_method(config, backbone=backbone, prior=PriorMap()).train()
    images, masks = shots(2, 3)
    expected = copy.deepcopy(method.backbone)
    method.losses(episodes_of(images, masks))
    expected(images[:, 2])
    below = [expected(images[:, k], without=("layer4",))["layer3"] for k in range(2)]
    for k, maps in enumerate(below):
        expected.rerun("layer4", maps * foreground_cells(masks[:, k], (9, 9)))
    for (name, found), statistics in zip(method.backbone.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(found, statistics, msg=name)


def test_a_prior_of_a_level_that_the_backbone_does_not_give_is_refused():
    backbone = small_backbone("layer2", "layer3")
    with pytest.raises(ValueError, match=r"'layer4'\) and the backbone gives \('layer2', 'layer3'\)"):
        PFENetConfig(backbone=backbone, prior=PriorMap(level="layer4")).build()
