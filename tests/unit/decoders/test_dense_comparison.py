"""CANet's dense comparison is the convolution over the concatenation; its attention weighs shots."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.canet import DenseComparison, GuidedConv, ShotWeights, weighted_shots


def concatenated(maps, vectors):
    size = maps.shape[-2:]
    expanded = [v[..., None, None].expand(-1, -1, *size) for v in vectors.unbind(1)]
    return torch.cat([maps.expand(len(vectors), -1, -1, -1), *expanded], dim=1)


@pytest.mark.parametrize(("vectors", "dilation", "size"), [(1, 1, (5, 7)), (2, 2, (6, 5)), (3, 2, (2, 1))])
def test_a_guided_convolution_is_that_of_the_concatenated_maps(vectors, dilation, size):
    torch.manual_seed(0)
    conv = GuidedConv(4, 6, vectors=vectors, dilation=dilation)
    maps, guide = torch.randn(3, 4, *size), torch.randn(3, vectors, 4)
    joined = concatenated(maps, guide)
    expected = F.conv2d(joined, conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(maps, guide), expected, atol=1e-5, rtol=1e-5)
    one = F.conv2d(concatenated(maps[:1], guide), conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(maps[:1], guide), one, atol=1e-5, rtol=1e-5)


def test_the_comparison_is_a_dilated_convolution_and_a_relu():
    torch.manual_seed(0)
    comparison = DenseComparison(4, vectors=1, dropout=0.5).eval()
    maps, guide = torch.randn(2, 4, 6, 6), torch.randn(2, 1, 4)
    conv = comparison.conv
    expected = F.relu(F.conv2d(concatenated(maps, guide), conv.weight, conv.bias, padding=2, dilation=2))
    torch.testing.assert_close(comparison(maps, guide), expected, atol=1e-5, rtol=1e-5)


def test_shots_weigh_by_a_softmax_of_the_pooled_branch():
    torch.manual_seed(0)
    branch = ShotWeights(4)
    maps, guide = torch.randn(6, 4, 5, 5), 3 * torch.randn(6, 1, 4)
    found = branch(maps, guide, 3)
    assert found.shape == (2, 3)
    for b in range(2):
        strengths = []
        for k in range(3):
            one = concatenated(maps[[3 * b + k]], guide[[3 * b + k]])
            hidden = F.relu(F.conv2d(one, branch.conv.weight, branch.conv.bias, padding=1))
            hidden = F.max_pool2d(F.pad(hidden, (1, 1, 1, 1), value=float("-inf")), 3, stride=1)
            strengths.append(branch.weigh(hidden).mean())
        expected = torch.stack(strengths).exp() / torch.stack(strengths).exp().sum()
        torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=1e-5)
    assert float(found.detach().std()) > 1e-3  # weights that can be told apart


def test_weighted_shots_are_summed_set_by_set():
    maps = torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 2, 3, 3)
    found = weighted_shots(maps, torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert found[:, 0, 0, 0].tolist() == [1.75, 3.0]
