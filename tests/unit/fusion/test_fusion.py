"""Fusions by hand: the mean of vectors, the average of scores, the cross-guided weights."""

from typing import get_args

import pytest
import torch

from fewseg.engine.choices import FusionName
from fewseg.methods.fusion import FUSIONS, CrossGuided, MeanVector, ScoreAverage, ShotAttention, region_iou
from fewseg.methods.layers import PriorMap
from fewseg.types import Guides


def some_guides(n, p=3):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(n, 1, p, 4, generator=generator)
    valid = torch.rand(n, 1, p, generator=generator) > 0.3
    return Guides(maps={"vectors": torch.randn(n, 2, 5, generator=generator)}, keys=keys, valid=valid)


def test_the_mean_vector_is_that_of_each_episodes_own_shots_with_all_their_keys():
    guides = some_guides(6)
    joined = MeanVector().join(guides, shots=3)
    assert joined.keys.shape == (2, 3, 3, 4)
    for b in range(2):
        own = slice(3 * b, 3 * b + 3)
        torch.testing.assert_close(joined["vectors"][b], guides["vectors"][own].sum(dim=0) / 3)
        assert torch.equal(joined.keys[b], guides.keys[own, 0])
        assert torch.equal(joined.valid[b], guides.valid[own, 0])


def test_attention_puts_the_vectors_of_the_shots_side_by_side_with_all_their_keys():
    guides = some_guides(6)
    joined = ShotAttention().join(guides, shots=3)
    for b in range(2):
        own = slice(3 * b, 3 * b + 3)
        assert torch.equal(joined["vectors"][b].unflatten(0, (3, 2)), guides["vectors"][own])
        assert torch.equal(joined.keys[b], guides.keys[own, 0])
        assert torch.equal(joined.valid[b], guides.valid[own, 0])


def test_joined_guides_have_the_mean_of_the_shots_prior_maps():
    guides = some_guides(2)
    joined = MeanVector().join(guides, shots=2)
    query = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    prior = PriorMap()
    alone = [prior.compare(query, guides.keys[k : k + 1], guides.valid[k : k + 1], (5, 5)) for k in range(2)]
    torch.testing.assert_close(
        prior.compare(query, joined.keys, joined.valid, (5, 5)), (alone[0] + alone[1]) / 2
    )


def test_one_shot_joined_is_itself():
    guides = some_guides(2)
    joined = MeanVector().join(guides, shots=1)
    assert torch.equal(joined["vectors"], guides["vectors"])
    assert torch.equal(joined.keys, guides.keys)


def test_guides_without_prior_join_too():
    joined = MeanVector().join(Guides(maps={"vectors": torch.ones(4, 1, 3)}), shots=2)
    assert (joined.keys.shape, joined.valid.shape) == ((2, 2, 0, 0), (2, 2, 0))


def test_the_score_average_weighs_every_shot_alike():
    assert ScoreAverage().weights(2, 5).tolist() == [[pytest.approx(0.2)] * 5] * 2


def test_joined_guides_have_one_score_of_weight_1_and_a_single_shot_is_not_judged():
    assert MeanVector().weights(2, 5).tolist() == [[1.0], [1.0]]
    assert CrossGuided(divisor=5).weights(2, 1).tolist() == [[1.0], [1.0]]
    with pytest.raises(NotImplementedError, match="ScoreAverage does not join guides"):
        ScoreAverage().join(some_guides(2), shots=2)


def test_every_fusion_is_known_by_its_kind():
    assert list(FUSIONS) == ["mean", "average", "cross-guided", "attention", "iterative"]
    assert all(fusion().kind == name for name, fusion in FUSIONS.items())


def test_a_shots_weight_is_its_mean_iou_over_all_support_images_divided_by_k():
    cross = torch.tensor([[[0.9, 0.3], [0.5, 0.1]], [[1.0, 0.0], [0.0, 0.0]]])
    weights = CrossGuided().weights(*cross.shape[:2], cross_iou=cross)
    # U = (0.9 + 0.3) / 2, (0.5 + 0.1) / 2 and 1/2, 0; Eq. 17 divides by K = 2
    torch.testing.assert_close(weights, torch.tensor([[0.30, 0.15], [0.25, 0.0]]))


def test_the_released_divisor_is_5_whatever_k_is():
    cross = torch.full((1, 2, 2), 0.5)
    torch.testing.assert_close(
        CrossGuided(divisor=5).weights(*cross.shape[:2], cross_iou=cross), torch.full((1, 2), 0.1)
    )


def test_where_no_shot_finds_anything_all_weigh_alike():
    cross = torch.zeros(2, 3, 3)
    cross[1, 2, 0] = 0.3
    weights = CrossGuided().weights(*cross.shape[:2], cross_iou=cross)
    torch.testing.assert_close(weights[0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 0.0, 0.1 / 3]))


def plain_iou(predicted, mask, region):
    """Counts one pixel at a time."""
    both = either = 0
    for said, true in zip(predicted.flatten().tolist(), mask.flatten().tolist(), strict=True):
        if true == 255:
            continue
        a, b = (said == 1) == (region == 1), (true == 1) == (region == 1)
        both += a and b
        either += a or b
    return both / either if either else 1.0


def test_region_iou_is_the_foregrounds_or_the_mean_of_both_without_ignored_pixels():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 2, (4, 6, 7), generator=generator)
    masks = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(0, 3, (4, 6, 7), generator=generator)]
    foreground, mean = region_iou(predicted, masks), region_iou(predicted, masks, "mean")
    for i in range(4):
        fg, bg = plain_iou(predicted[i], masks[i], 1), plain_iou(predicted[i], masks[i], 0)
        assert float(foreground[i]) == pytest.approx(fg)
        assert float(mean[i]) == pytest.approx((fg + bg) / 2)


def test_region_iou_by_hand_and_where_a_region_is_empty():
    masks = torch.tensor([[[1, 1, 0, 255]], [[0, 0, 0, 255]], [[0, 0, 0, 0]]], dtype=torch.uint8)
    predicted = torch.tensor([[[1, 0, 1, 1]], [[0, 0, 0, 1]], [[1, 0, 0, 0]]])
    assert region_iou(predicted, masks).tolist() == [pytest.approx(1 / 3), 1.0, 0.0]
    assert region_iou(predicted, masks, "mean").tolist() == [
        pytest.approx(1 / 6),
        1.0,
        pytest.approx(0.75 / 2),
    ]


def test_the_names_on_the_command_line_are_those_of_the_fusions():
    assert set(get_args(FusionName)) == set(FUSIONS)
