"""CRNet's cross-reference and losses by hand; the contract suite takes it up by its registration."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.crnet import CRNetConfig
from small_segmenters import episodes_of


@pytest.fixture
def crnet(make_method):
    parts = {"both_weight": 0.5, "mid_dropout": 0.0, "head_dropout": 0.0, "history_reset": 0.0}
    return make_method(CRNetConfig, **parts).train()  # which alone remembers


def importance(crnet, maps):
    first, _, second = crnet.reference.layers
    return torch.sigmoid(second(F.relu(first(maps.mean(dim=(2, 3))))))


def test_channels_count_by_their_importance_in_both_images(crnet, shots):
    images, masks = shots(1, 2)
    features = crnet.extract(images[0])
    maps = crnet.mid.of(features)
    query, guides = crnet.encode_query(features.select([0])), crnet.encode_shots(features, masks[0])
    common = importance(crnet, maps[:1]) * importance(crnet, maps)
    torch.testing.assert_close(crnet.common(query, guides), common)
    strengthened = maps * common[..., None, None]
    inside = (masks[0, :, ::8, ::8] == 1).float()
    for k in range(2):  # the average of the strengthened support map beside each cell of the query's
        vector = (strengthened[k] * inside[k]).sum(dim=(1, 2)) / (inside[k].sum() + 5e-4)
        cells = maps[:1] * common[k][:, None, None]
        joined = torch.cat([cells, vector[None, :, None, None].expand_as(cells)], dim=1)
        conv = crnet.comparison.conv
        expected = F.relu(F.conv2d(joined, conv.weight, conv.bias, padding=2, dilation=2))
        torch.testing.assert_close(crnet.compare(query, guides)[k : k + 1], expected, atol=1e-5, rtol=1e-4)


def test_query_and_support_are_both_segmented_in_training(crnet, shots):
    torch.manual_seed(0)
    torch.nn.init.normal_(crnet.trunk.classifier[-1].weight, std=20.0)  # or all shots would answer alike
    images, masks = shots(2, 3)
    batch = episodes_of(images, masks, pair_ids=torch.tensor([5, 6]))
    crnet.history.remember(torch.tensor([6]), 3 * torch.randn(1, 2, 9, 9))
    encoded = crnet.encode_episodes(batch)
    recalled = crnet.history.recall(batch.pair_ids, torch.zeros(2, 8, 9, 9))
    assert recalled[1].any()
    found = crnet.losses(encoded)

    def loss(logits, mask):
        sized = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        return F.cross_entropy(sized, mask.long(), ignore_index=255)

    total = {"query": [], "both_query": [], "both_support": []}
    for b in range(2):
        query = crnet.encode_query(encoded.query.select([b]))
        each = []
        for k in range(2):
            shot = encoded.support.features.select([2 * b + k])
            guides = crnet.encode_shots(shot, masks[b, k : k + 1])
            each.append(crnet.trunk(crnet.compare(query, guides), recalled[b : b + 1]))
            common = crnet.common(query, guides)[..., None, None]
            total["both_query"].append((crnet.both(query.mid * common), masks[b, 2:]))
            total["both_support"].append((crnet.both(crnet.mid.of(shot) * common), masks[b, k : k + 1]))
        total["query"].append((sum(each) / 2, masks[b, 2:]))
    for name, pairs in total.items():
        expected = loss(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))
        torch.testing.assert_close(found.terms[name], expected, atol=1e-5, rtol=1e-4)
    weighed = found.terms["query"] + 0.5 * (found.terms["both_query"] + found.terms["both_support"])
    torch.testing.assert_close(found.total, weighed)
    again = crnet.history.recall(batch.pair_ids, torch.zeros(2, 8, 9, 9))
    assert again[0].any()
    assert not torch.equal(again[1], recalled[1])


def test_answers_are_refined(make_method, shots):
    images, masks = shots(1, 1)
    plain = make_method(CRNetConfig)
    refinement = replace(plain.config.refinement, iterations=0)
    once = make_method(CRNetConfig, refinement=refinement)
    features = plain.extract(images[0])
    query, guides = plain.encode_query(features), plain.encode_shots(features, masks[0])
    history = None
    for _ in range(5):
        logits = plain.trunk(plain.compare(query, guides), history)
        history = logits.softmax(dim=1)
    torch.testing.assert_close(plain.score(query, guides), logits)
    torch.testing.assert_close(once.score(query, guides), once.iterate(query, guides))
