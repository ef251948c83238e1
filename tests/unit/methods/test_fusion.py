"""Fusions by hand, and iterative inference on judges whose steps can be worked out."""

from typing import get_args

import pytest
import torch

from fewseg.engine.choices import FusionName
from fewseg.methods.fusion import (
    FUSIONS,
    CrossGuided,
    IterativeInference,
    MeanVector,
    ScoreAverage,
    ShotAttention,
    region_iou,
)
from fewseg.types import Guides


def some_guides(n, p=3):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(n, 1, p, 4, generator=generator)
    valid = torch.rand(n, 1, p, generator=generator) > 0.3
    return Guides(maps={"vectors": torch.randn(n, 2, 5, generator=generator)}, keys=keys, valid=valid)


def test_vectors_of_the_shots_are_averaged_or_put_side_by_side_with_all_their_keys():
    guides = some_guides(6)
    mean, side_by_side = (fusion.join(guides, shots=3) for fusion in (MeanVector(), ShotAttention()))
    assert mean.keys.shape == (2, 3, 3, 4)
    for b in range(2):
        own = slice(3 * b, 3 * b + 3)
        torch.testing.assert_close(mean["vectors"][b], guides["vectors"][own].sum(dim=0) / 3)
        assert torch.equal(side_by_side["vectors"][b].unflatten(0, (3, 2)), guides["vectors"][own])
        for joined in (mean, side_by_side):
            assert torch.equal(joined.keys[b], guides.keys[own, 0])
            assert torch.equal(joined.valid[b], guides.valid[own, 0])


def test_joined_guides_have_one_score_of_weight_1_and_a_single_shot_is_not_judged():
    assert MeanVector().weights(2, 5).tolist() == [[1.0], [1.0]]
    assert CrossGuided(divisor=5).weights(2, 1).tolist() == [[1.0], [1.0]]


def test_every_fusion_is_known_by_its_kind():
    assert list(FUSIONS) == [
        "mean",
        "average",
        "cross-guided",
        "attention",
        "iterative",
        "fit",
        "vote",
        "all",
    ]
    assert set(get_args(FusionName)) == set(FUSIONS)
    assert all(fusion().kind == name for name, fusion in FUSIONS.items())


def test_a_shots_weight_is_its_mean_iou_over_all_support_images_divided_by_k():
    cross = torch.tensor([[[0.9, 0.3], [0.5, 0.1]], [[1.0, 0.0], [0.0, 0.0]]])
    weights = CrossGuided().weights(*cross.shape[:2], cross_iou=cross)
    # U = (0.9 + 0.3) / 2, (0.5 + 0.1) / 2 and 1/2, 0; Eq. 17 divides by K = 2
    torch.testing.assert_close(weights, torch.tensor([[0.30, 0.15], [0.25, 0.0]]))
    released = CrossGuided(divisor=5).weights(*cross.shape[:2], cross_iou=cross)  # whatever K is
    torch.testing.assert_close(released, weights * 2 / 5)


def test_where_no_shot_finds_anything_all_weigh_alike():
    cross = torch.zeros(2, 3, 3)
    cross[1, 2, 0] = 0.3
    weights = CrossGuided().weights(*cross.shape[:2], cross_iou=cross)
    torch.testing.assert_close(weights[0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 0.0, 0.1 / 3]))


def test_region_iou_by_hand_and_where_a_region_is_empty():
    masks = torch.tensor([[[1, 1, 0, 255]], [[0, 0, 0, 255]], [[0, 0, 0, 0]]], dtype=torch.uint8)
    predicted = torch.tensor([[[1, 0, 1, 1]], [[0, 0, 0, 1]], [[1, 0, 0, 0]]])
    assert region_iou(predicted, masks).tolist() == [pytest.approx(1 / 3), 1.0, 0.0]
    assert region_iou(predicted, masks, "mean").tolist() == [
        pytest.approx(1 / 6),
        1.0,
        pytest.approx(0.75 / 2),
    ]


START = torch.tensor([[[0.0, 0.0], [4.0, -2.0]], [[1.0, 1.0], [2.0, 2.0]]])
ALL = torch.ones(2, 2, dtype=torch.bool)


def towards(target):
    """The loss is the squared distance to ``target``: a step shrinks the distance by 1 - 2 eta."""

    def judge(prototypes):
        loss = (prototypes - target).square().sum(dim=(1, 2))
        return loss, 1 / (1 + loss)

    return judge


def iterated(fusion, start, movable, judge):
    return fusion.collect(start, movable, lambda: (start, judge))


def by_table(losses, rhos):
    """One prototype of one number that falls by the rate at each step; loss and rho are looked up by it."""

    def judge(prototypes):
        step = int((-prototypes.detach().sum()).round())
        slope = prototypes.sum() - prototypes.detach().sum()
        return (losses[step] + slope).view(1), torch.tensor([rhos[step]])

    return judge


def table(losses, rhos):
    start, movable = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    fusion = IterativeInference(steps=len(losses) - 1, rate=1.0)
    found = iterated(fusion, start, movable, by_table(losses, rhos))
    return (-found.sets.flatten()).round().int().tolist(), found.weights[0].tolist(), bool(found.diverged)


def test_the_sets_are_those_after_each_step_without_the_start():
    target = torch.ones(2, 2, 2)
    found = iterated(IterativeInference(steps=4, rate=0.1), START, ALL, towards(target))
    assert found.sets.shape == (2, 4, 2, 2)
    for n in range(1, 5):
        expected = target + (START - target) * 0.8**n
        torch.testing.assert_close(found.sets[:, n - 1], expected)
        rho = 1 / (1 + (expected - target).square().sum(dim=(1, 2)))
        torch.testing.assert_close(found.weights[:, n - 1], rho)
    assert not bool(found.diverged.any())


def test_no_step_is_the_start_with_weight_1_and_asks_no_judge():
    def judge(prototypes):
        raise AssertionError("asked")

    found = iterated(IterativeInference(steps=0), START, ALL, judge)
    assert torch.equal(found.sets, START.unsqueeze(1))
    assert found.weights.tolist() == [[1.0], [1.0]]
    assert found.diverged.tolist() == [False, False]


def test_prototypes_that_do_not_exist_stay_where_they_are():
    movable = torch.tensor([[True, False], [True, True]])
    found = iterated(IterativeInference(steps=3, rate=0.1), START, movable, towards(torch.ones(2, 2, 2)))
    for n in range(3):
        assert torch.equal(found.sets[0, n, 1], START[0, 1])
        assert not torch.equal(found.sets[0, n, 0], START[0, 0])
        assert not torch.equal(found.sets[1, n, 1], START[1, 1])


NAN = float("nan")


def test_without_the_guard_eq_12_goes_on_as_printed_and_warns_too():
    with pytest.warns(RuntimeWarning, match="rate 1.1 is too large for some support sets: lower the rate"):
        found = iterated(
            IterativeInference(steps=3, rate=1.1, guard=False), START, ALL, towards(torch.zeros(2, 2, 2))
        )
    assert found.diverged.tolist() == [True, True]
    for n in (1, 2, 3):  # the slope of the loss is twice the distance: p_n = p_{n-1} - 1.1 * 2 p_{n-1}
        expected = START * (-1.2) ** n
        torch.testing.assert_close(found.sets[:, n - 1], expected)
        torch.testing.assert_close(found.weights[:, n - 1], 1 / (1 + expected.square().sum(dim=(1, 2))))


@pytest.mark.parametrize(
    ("losses", "rhos", "steps", "weights", "diverged"),
    [
        ([5, 3, 4, 9, 1], [0.1, 0.3, 0.4, 0.9, 1.0], [1, 2, 1, 1], [0.3, 0.4, 0.3, 0.3], True),
        ([5, 3, 4.9, 5, 2], [0.1, 0.3, 0.4, 0.9, 1.0], [1, 2, 3, 4], [0.3, 0.4, 0.9, 1.0], False),
        ([5, 3, NAN, 1], [0.1, 0.3, 0.4, 0.9], [1, 1, 1], [0.3, 0.3, 0.3], True),
        ([5, 6, 4], [0.1, 0.3, 0.4], [0, 0], [0.1, 0.1], True),
    ],
    ids=["above the start", "not above the start", "no number", "the first step"],
)
def test_the_best_set_so_far_is_kept_from_the_step_that_diverges_on(losses, rhos, steps, weights, diverged):
    assert table(losses, rhos) == (steps, pytest.approx(weights), diverged)


def test_a_gradient_that_is_not_finite_diverges_whatever_the_loss_is():
    def judge(prototypes):
        loss = prototypes.sqrt().sum(dim=(1, 2))
        return loss, 1 - loss.detach() / 4

    start = torch.ones(1, 1, 1)  # the slope is 1/2, so that rate 2 leads to 0, where the root's is infinite
    found = iterated(IterativeInference(steps=3, rate=2.0), start, torch.ones(1, 1, dtype=torch.bool), judge)
    assert bool(found.diverged)
    assert torch.equal(found.sets, torch.ones(1, 3, 1, 1))
    assert found.weights.tolist() == [[0.75] * 3]


def test_one_support_set_that_diverges_does_not_touch_another():
    steep = torch.tensor([1.0, 11.0])  # of the loss, so that rate 0.1 is too large for the second set

    def judge(prototypes):
        loss = steep * prototypes.square().sum(dim=(1, 2))
        return loss, torch.ones(2)

    with pytest.warns(RuntimeWarning, match="rate 0.1 is too large for some .*: lower the rate"):
        found = iterated(IterativeInference(steps=2, rate=0.1), START + 1, ALL, judge)
    assert found.diverged.tolist() == [False, True]
    for n in (1, 2):
        torch.testing.assert_close(found.sets[0, n - 1], (START[0] + 1) * 0.8**n)
        torch.testing.assert_close(found.sets[1, n - 1], START[1] + 1)


def test_where_no_set_finds_anything_all_weigh_alike():
    def judge(prototypes):
        loss = prototypes.square().sum(dim=(1, 2))
        return loss, torch.tensor([0.0, 0.25])

    found = iterated(IterativeInference(steps=3, rate=0.1), START, ALL, judge)
    assert found.weights.tolist() == [[1.0] * 3, [0.25] * 3]


def test_without_grad_mode_the_steps_are_the_same_and_no_graph_is_left():
    fusion, judge = IterativeInference(steps=2, rate=0.1), towards(torch.ones(2, 2, 2))
    expected = iterated(fusion, START, ALL, judge)
    with torch.no_grad():
        found = iterated(fusion, START, ALL, judge)
        assert not torch.is_grad_enabled()
    for one, other in ((found.sets, expected.sets), (found.weights, expected.weights)):
        assert torch.equal(one, other)
        assert not one.requires_grad
        assert not other.requires_grad


@pytest.mark.parametrize("fields", [{"steps": -1}, {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}])
def test_fields_that_make_no_sense_are_refused_with_what_came_and_what_is_accepted(fields):
    with pytest.raises(ValueError, match=r"steps must be 0 or more|rate must be above 0") as error:
        IterativeInference(**fields)
    assert str(next(iter(fields.values()))) in str(error.value)


def test_scores_of_shots_are_summed_by_their_weights():
    scores, weights = torch.randn(2, 3, 2, 4, 5), torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    found = ScoreAverage().fuse(scores, weights)
    for b in range(2):
        plain = sum(float(weights[b, s]) * scores[b, s] for s in range(3))
        torch.testing.assert_close(found[b], plain)
