"""Losses, against torch on logits that were resized in full and against sums written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.losses import (
    cross_entropy_each,
    cross_entropy_full_size,
    cross_entropy_of_sets,
    deep_supervision,
    kl_to_teacher,
    margins_to_background,
    tempered_kl,
)

WAYS = pytest.mark.parametrize("ways", [1, 2, 4])
BOTH = pytest.mark.parametrize("align_corners", [True, False])


@pytest.fixture
def case():
    """(ways) -> logits of three maps at a coarse size, and full masks of every label."""

    def make(ways):
        generator = torch.Generator().manual_seed(0)
        logits = 3 * torch.randn(3, 1 + ways, 5, 4, generator=generator)
        values = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
        return logits, values[torch.randint(0, len(values), (3, 33, 25), generator=generator)]

    return make


def plain(logits, masks, align_corners=True):
    """Every class's map resized, then torch's mean over what is not ignored, in double precision."""
    full = F.interpolate(logits.double(), size=masks.shape[-2:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(full, masks.long(), ignore_index=255)


@WAYS
@BOTH
def test_value_and_gradient_of_any_ways_and_both_conventions(case, ways, align_corners):
    logits, masks = case(ways)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = cross_entropy_full_size(ours, masks, align_corners=align_corners)
    expected = plain(theirs, masks, align_corners)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@WAYS
@BOTH
def test_each_map_has_the_mean_of_its_own_pixels(case, ways, align_corners):
    logits, masks = case(ways)
    masks[1, 3:] = 255  # few pixels of the second count
    found = cross_entropy_each(logits, masks, align_corners=align_corners)
    for i in range(3):
        one = slice(i, i + 1)
        assert float(found[i]) == pytest.approx(
            float(plain(logits[one], masks[one], align_corners)), rel=1e-5
        )


@WAYS
def test_each_set_has_the_mean_over_the_pixels_of_all_its_images(ways):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 1 + ways, 9, 8, generator=generator)
    values = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
    masks = values[torch.randint(0, len(values), (2, 3, 9, 8), generator=generator)]
    masks[0, 1, 1:] = 255
    found = cross_entropy_of_sets(margins_to_background(logits), masks)
    assert found.shape == (2,)
    for b in range(2):
        assert float(found[b]) == pytest.approx(float(plain(logits[3 * b : 3 * b + 3], masks[b])), rel=1e-5)


@WAYS
def test_what_is_ignored_whole_has_loss_0_and_gradient_0(case, ways):
    logits, masks = case(ways)
    masks[1] = 255
    logits.requires_grad_()
    found = cross_entropy_each(logits, masks)
    assert float(found[1].detach()) == 0
    assert float(found[0].detach()) > 0
    found.sum().backward()
    assert float(logits.grad[1].abs().max()) == 0
    assert float(cross_entropy_full_size(logits[1:2], masks[1:2]).detach()) == 0
    sets = cross_entropy_of_sets(
        margins_to_background(logits), torch.full((1, 3, 5, 4), 255, dtype=torch.uint8)
    )
    assert sets.tolist() == [0.0]


def test_margins_are_differences_to_the_background_in_float32():
    logits = torch.tensor([1.0, 4.0, -2.0], dtype=torch.bfloat16).view(1, 3, 1, 1)
    found = margins_to_background(logits)
    assert found.flatten().tolist() == [3.0, -3.0]
    assert found.dtype == torch.float32


def test_the_loss_is_in_float32_whatever_the_network_is_in(case):
    logits, masks = case(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy_full_size(logits, masks)
    assert torch.equal(found, cross_entropy_full_size(logits, masks))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([500.0, -500.0]).view(1, 2, 1, 1)
    assert float(cross_entropy_full_size(logits, torch.ones(1, 2, 2, dtype=torch.uint8))) == 1000


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def test_the_divergence_is_the_sum_of_teacher_times_log_ratio():
    students, teachers = torch.randn(3, 5), torch.randn(3, 5).softmax(-1)
    for row, found in enumerate(kl_to_teacher(students, teachers)):
        own = softmax(students[row].tolist())
        expected = sum(t * math.log(t / s) for t, s in zip(teachers[row].tolist(), own, strict=True))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_teacher_that_is_zero_in_a_channel_has_a_finite_gradient():
    """A softmax over prototypes far apart ends in zeros, and teachers learn too."""
    prototypes = torch.tensor([[200.0, 0.0]], requires_grad=True)
    teachers = prototypes.softmax(-1)
    assert teachers[0, 1] == 0
    kl_to_teacher(torch.zeros(1, 2), teachers).sum().backward()
    assert bool(torch.isfinite(prototypes.grad).all())


def test_the_tempered_divergence_is_softened_and_averaged_over_channels():
    students, teachers = torch.randn(2, 4), torch.randn(2, 4)
    for row, found in enumerate(tempered_kl(students, teachers, temperature=5.0, factor=22.5)):
        own = softmax([x / 5 for x in students[row].tolist()])
        taught = softmax([x / 5 for x in teachers[row].tolist()])
        divergence = sum(t * math.log(t / s) for t, s in zip(taught, own, strict=True))
        assert float(found) == pytest.approx(22.5 * divergence / 4, abs=1e-6)


def test_deep_supervision_is_the_mean_over_scales_of_any_size(case):
    logits, masks = case(1)
    inner = (logits, logits[:, :, :2, :3], logits[:, :, :1, :1])
    expected = sum(float(plain(one, masks)) for one in inner) / 3
    assert float(deep_supervision(inner, masks)) == pytest.approx(expected, rel=1e-5)
