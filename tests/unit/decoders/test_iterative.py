"""CANet's iterative optimisation: blocks, ASPP, and refinement of each pair on its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewseg.methods.canet import ASPP, IterativeTrunk, Refinement, ResidualBlock


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = IterativeTrunk(4, dropout=0.0).eval()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return trunk


def conv(layer, maps, rate=1):
    return F.conv2d(maps, layer.weight, layer.bias, padding=rate * (layer.kernel_size[0] // 2), dilation=rate)


def test_a_residual_block_adds_two_convolutions_with_a_relu_before_each():
    torch.manual_seed(0)
    block, maps, history = ResidualBlock(4, extra=2), torch.randn(2, 4, 5, 5), torch.rand(2, 2, 5, 5)
    inner = conv(block.first, F.relu(torch.cat([maps, history], dim=1)))
    torch.testing.assert_close(block(maps, history), maps + conv(block.second, F.relu(inner)))


def test_the_pyramid_is_global_then_1x1_then_the_rates():
    torch.manual_seed(0)
    aspp, maps = ASPP(3), torch.randn(2, 3, 20, 21)
    parts = aspp(maps).split(3, dim=1)
    pooled = conv(aspp.branches[0], maps.mean((2, 3), keepdim=True))
    torch.testing.assert_close(parts[0], F.relu(pooled).expand(-1, -1, 20, 21))
    for part, layer, rate in zip(parts[1:], aspp.branches[1:], (1, 6, 12, 18), strict=True):
        torch.testing.assert_close(part, F.relu(conv(layer, maps, rate)))


def test_an_iteration_hears_the_history_at_the_maps_size_and_zeros_without(trunk):
    compared = torch.randn(2, 4, 7, 7)
    history = torch.rand(2, 2, 13, 13)
    small = F.interpolate(history, size=(7, 7), mode="bilinear", align_corners=True)
    expected = trunk.after_entry(trunk.entry(compared, small))
    torch.testing.assert_close(trunk(compared, history), expected)
    zeros = trunk.after_entry(trunk.entry(compared, torch.zeros(2, 2, 7, 7)))
    torch.testing.assert_close(trunk(compared), zeros)
    assert not torch.allclose(zeros, expected)


def by_hand(trunk, compared, iterations):
    logits = [trunk(compared)]
    for _ in range(iterations):
        logits.append(trunk(compared, logits[-1].softmax(1)))
    return logits


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_refinement_feeds_each_answer_back(trunk, iterations):
    compared = torch.randn(3, 4, 6, 6)
    with torch.no_grad():
        expected = by_hand(trunk, compared, iterations)[-1]
        torch.testing.assert_close(Refinement(iterations=iterations).run(trunk, compared), expected)


def test_an_early_stop_keeps_the_scores_of_the_pairs_whose_mask_stays(trunk):
    compared = torch.linspace(0.3, 12, 12).view(-1, 1, 1, 1) * torch.randn(12, 4, 6, 6)
    with torch.no_grad():
        trunk.entry.first.weight[:, 4:] *= 3  # make it listen to its history, and undecided
        logits = trunk(compared)
        trunk.classifier[-1].bias[1] -= (logits[:, 1] - logits[:, 0]).median()
        answers = by_hand(trunk, compared, 4)
        found = Refinement(iterations=4, stop_early=True).run(trunk, compared)
    last = []
    for i in range(12):
        stop = 0
        while stop < 4:
            stop += 1
            if torch.equal(answers[stop][i].argmax(0), answers[stop - 1][i].argmax(0)):
                break
        last.append(stop)
        torch.testing.assert_close(found[i], answers[stop][i], atol=1e-4, rtol=1e-4)
    assert len(set(last)) > 1  # some pairs stopped before others


def test_a_negative_number_of_iterations_is_refused():
    with pytest.raises(ValueError, match="0 or more iterations, got -1"):
        Refinement(iterations=-1)
