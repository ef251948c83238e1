"""The one-map cross-entropy equals torch's on the upsampled two-channel logits."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.losses import cross_entropy_full_size, deep_supervision


def plain(logits, masks):
    full = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(full, masks.long(), ignore_index=255)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64)
    values = torch.tensor([0, 1, 255], dtype=torch.uint8)
    return logits, values[torch.randint(0, 3, (2, 33, 25), generator=generator)]


def test_value_and_gradient_are_those_of_the_full_size_cross_entropy(case):
    logits, masks = case
    ours, theirs = logits.float().requires_grad_(), logits.clone().requires_grad_()
    found, expected = cross_entropy_full_size(ours, masks), plain(theirs, masks)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


def test_one_foreground_pixel_by_hand():
    logits = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert float(cross_entropy_full_size(logits, torch.tensor([[[1]]], dtype=torch.uint8))) == pytest.approx(
        math.log(1 + math.exp(-2))
    )
    assert float(cross_entropy_full_size(logits, torch.tensor([[[0]]], dtype=torch.uint8))) == pytest.approx(
        math.log(1 + math.exp(2))
    )


def test_the_mean_is_over_all_counted_pixels_not_over_images(case):
    logits, masks = case
    masks[0] = 255
    masks[0, 0, 0] = 1
    found = cross_entropy_full_size(logits.float(), masks)
    assert float(found) == pytest.approx(float(plain(logits, masks)), rel=1e-5)


def test_where_everything_is_ignored_the_loss_is_zero_with_zero_gradient():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = cross_entropy_full_size(logits, torch.full((1, 9, 9), 255, dtype=torch.uint8))
    assert float(loss.detach()) == 0
    loss.backward()
    assert logits.grad.abs().max() == 0


def test_extreme_logits_stay_finite():
    logits = torch.tensor([500.0, -500.0]).view(1, 2, 1, 1)
    assert float(cross_entropy_full_size(logits, torch.ones(1, 2, 2, dtype=torch.uint8))) == 1000


def test_deep_supervision_is_the_mean_over_scales_of_any_size(case):
    logits, masks = case
    inner = (logits.float(), logits[:, :, :2, :3].float(), logits[:, :, :1, :1].float())
    expected = sum(float(plain(one.double(), masks)) for one in inner) / 3
    assert float(deep_supervision(inner, masks)) == pytest.approx(expected, rel=1e-5)
