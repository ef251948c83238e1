"""CANet: one vector a shot, attention over shots, and a training history of its own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.canet import CANetConfig, Refinement
from fewseg.methods.fusion import MeanVector, ScoreAverage, ShotAttention
from fewseg.ops.masks import foreground_cells
from fewseg.types import EncodedEpisodes, EncodedShots


@pytest.fixture
def make(make_method):
    return lambda **changes: make_method(CANetConfig, **changes)


def episodes(method, images, masks, pair_ids=None):
    """The last picture of each row is the query."""
    features = method.extract(images.flatten(0, 1))
    count, shots = images.shape[0], images.shape[1] - 1
    index = torch.arange(len(features)).view(count, shots + 1)
    return EncodedEpisodes(
        support=EncodedShots(features=features.select(index[:, :-1].flatten()), masks=masks[:, :-1]),
        query=features.select(index[:, -1]),
        query_masks=masks[:, -1],
        pair_ids=pair_ids,
    )


def test_query_and_support_share_a_dilated_3x3_mid_level_of_layers_2_and_3(make, shots):
    method = make()
    images, masks = shots(1, 2)
    features = method.extract(images[0])
    joined = torch.cat([features["layer2"], features["layer3"]], dim=1)
    conv = method.mid[0]
    expected = F.relu(F.conv2d(joined, conv.weight, conv.bias, padding=2, dilation=2))
    torch.testing.assert_close(method.encode_query(features).mid, expected)
    cells = foreground_cells(masks[0], (9, 9))
    for k, guide in enumerate(method.encode_shots(features, masks[0])["vectors"]):
        pooled = expected[k][:, cells[k, 0] > 0].sum(1) / (float(cells[k].sum()) + 5e-4)
        torch.testing.assert_close(guide[0], pooled, atol=1e-5, rtol=1e-4)


def test_a_score_is_comparison_then_refinement_and_ends_at_the_images_size(make, shots, encode):
    method = make(refinement=Refinement(iterations=2))
    images, masks = shots(1, 1)
    query = method.extract(shots(1, 1, seed=1)[0][0])
    state = method.encode_support(encode(method, images, masks))
    compared = method.comparison(method.mid.of(query), state.guides["vectors"])
    logits = method.trunk(compared)
    for _ in range(2):
        logits = method.trunk(compared, logits.softmax(1))
    expected = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.segment(query, state), expected)


def test_attention_weighs_the_compared_maps_of_the_shots(make, shots, encode):
    method = make(fusion=ShotAttention(), refinement=Refinement(iterations=0))
    images, masks = shots(1, 3)
    query = method.extract(shots(1, 1, seed=1)[0][0])
    state = method.encode_support(encode(method, images, masks))
    assert state.scored == 1
    mid = method.mid.of(query)
    vectors = method.encode_shots(method.extract(images[0]), masks[0])["vectors"]
    weights = method.attention(mid.expand(3, -1, -1, -1), vectors, 3)[0]
    assert float(weights.detach().std()) > 0
    compared = sum(weights[k] * method.comparison(mid, vectors[[k]]) for k in range(3))
    expected = F.interpolate(method.trunk(compared), size=(65, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.segment(query, state), expected, atol=1e-5, rtol=1e-4)


def test_attention_over_one_shot_is_that_shot(make, shots, encode):
    method = make(fusion=ShotAttention())
    support = encode(method, *shots(1, 1))
    query = method.extract(shots(1, 1, seed=1)[0][0])
    by_attention = method.segment(query, method.encode_support(support))
    method.fusion = MeanVector()
    torch.testing.assert_close(method.segment(query, method.encode_support(support)), by_attention)


def test_a_method_without_attention_refuses_the_fusion_that_needs_it(make, pfenet, shots, encode):
    for method in (make(), pfenet):
        method.fusion = ShotAttention()
        with pytest.raises(
            ValueError, match=f"{type(method).__name__} cannot use the fusion 'attention'; it can"
        ):
            method.encode_support(encode(method, *shots(1, 2)))


def test_the_loss_is_the_cross_entropy_of_one_decoding_from_the_pairs_history(make, shots):
    method = make(history_reset=0.0, mid_dropout=0.0, head_dropout=0.0).train()
    images, masks = shots(2, 2)
    ids = torch.tensor([11, 12])
    batch = episodes(method, images, masks, ids)
    vectors = method.encode_shots(batch.support.features, masks[:, 0])["vectors"]
    compared = method.comparison(method.mid.of(batch.query), vectors)
    history = None
    for _ in range(3):
        logits = method.trunk(compared, history)
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, masks[:, 1].long(), ignore_index=255)
        found = method.training_losses(batch)
        assert set(found.terms) == {"query"}
        torch.testing.assert_close(found.total, expected, atol=1e-4, rtol=1e-4)
        history = logits.softmax(1)
    assert len(method.history) == 2


def test_other_pairs_begin_from_zeros(make, shots):
    method = make(history_reset=0.0, mid_dropout=0.0, head_dropout=0.0).train()
    batch = episodes(method, *shots(2, 2), torch.tensor([11, 12]))
    first = method.training_losses(batch).total
    again = method.training_losses(batch).total
    other = method.training_losses(replace(batch, pair_ids=torch.tensor([13, 14]))).total
    torch.testing.assert_close(other, first)
    assert not torch.equal(again, first)


@pytest.mark.parametrize("fusion", [MeanVector(), ScoreAverage(), ShotAttention()], ids=lambda f: f.kind)
def test_several_shots_train_as_they_are_joined(make, shots, fusion):
    method = make(fusion=fusion, refinement=Refinement(iterations=0))
    images, masks = shots(1, 3)
    batch = episodes(method, images, masks)
    method.fusion = fusion if isinstance(fusion, ShotAttention) else MeanVector()
    logits = method.segment(batch.query, method.encode_support(batch.support))
    expected = F.cross_entropy(logits, masks[:, 2].long(), ignore_index=255)
    torch.testing.assert_close(method.training_losses(batch).total, expected, atol=1e-5, rtol=1e-4)
