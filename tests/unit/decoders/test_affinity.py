"""SD-AANet's gate and affinity attention against plain implementations."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.sdaanet import AffinityModule, ChannelGate, LossNorm, PyramidPooling, gated
from fewseg.ops.pooling import masked_average


def test_a_gate_is_two_layers_and_a_sigmoid():
    torch.manual_seed(0)
    gate, prototypes = ChannelGate(8, reduction=4), torch.randn(3, 8)
    hidden = (prototypes @ gate.reduce.weight.T + gate.reduce.bias).clamp(min=0)
    expected = 1 / (1 + torch.exp(-(hidden @ gate.expand.weight.T + gate.expand.bias)))
    torch.testing.assert_close(gate(prototypes), expected)
    assert gate.reduce.weight.shape == (2, 8)
    assert ChannelGate(2).reduce.weight.shape == (1, 2)


def test_gating_a_map_and_pooling_it_is_gating_the_pooled_vector():
    maps, cells, values = torch.randn(2, 4, 5, 5), torch.rand(2, 1, 5, 5), torch.rand(2, 4)
    weighed = (values[..., None, None] * maps + maps) / 2
    expected = masked_average(weighed, cells)
    torch.testing.assert_close(gated(values) * masked_average(maps, cells), expected)


def test_the_pyramid_joins_the_map_and_its_pooled_versions():
    torch.manual_seed(0)
    pooling, maps = PyramidPooling(4, 3).eval(), torch.randn(2, 4, 7, 9)
    for norm in (*pooling.norms, pooling.bottleneck_norm):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    joined = [maps]
    for side, conv, norm in zip((1, 2, 3, 6), pooling.convs, pooling.norms, strict=True):
        pooled = conv(F.adaptive_avg_pool2d(maps, side))
        scale = (norm.running_var + 1e-5).rsqrt()
        pooled = (pooled - norm.running_mean[:, None, None]) * scale[:, None, None]
        joined.append(F.interpolate(F.relu(pooled), size=(7, 9), mode="bilinear", align_corners=True))
    found = F.conv2d(torch.cat(joined, 1), pooling.bottleneck.weight, padding=1)
    norm = pooling.bottleneck_norm
    expected = (found - norm.running_mean[:, None, None]) / (norm.running_var + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(pooling(maps, learn=False), F.relu(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_the_pyramid_learns_the_statistics_of_its_batch(count):
    torch.manual_seed(0)
    pooling, maps = PyramidPooling(4, 3), torch.randn(count, 4, 7, 9)
    joined = [maps]
    for side, conv in zip((1, 2, 3, 6), pooling.convs, strict=True):
        pooled = conv(F.adaptive_avg_pool2d(maps, side))
        if count * side > 1:  # of one value there are no statistics: mean 0 and variance 1 are stored
            pooled = torch.nn.BatchNorm2d(3)(pooled)
        joined.append(F.interpolate(F.relu(pooled), size=(7, 9), mode="bilinear", align_corners=True))
    expected = torch.nn.BatchNorm2d(3)(F.conv2d(torch.cat(joined, 1), pooling.bottleneck.weight, padding=1))
    torch.testing.assert_close(pooling(maps, learn=True), F.relu(expected), atol=1e-4, rtol=1e-4)


def test_both_heads_read_the_same_affinity_of_map_and_prototype():
    torch.manual_seed(0)
    module, maps, prototypes = AffinityModule(4).eval(), torch.randn(2, 4, 6, 6), torch.randn(2, 4)
    joined = torch.cat([maps, prototypes[..., None, None].expand(-1, -1, 6, 6)], 1)
    hidden = F.relu(F.conv2d(joined, module.conv.weight, module.conv.bias, padding=1))
    assert hidden.shape[1] == 16
    found = module.pyramid(hidden, learn=False)
    support, query = module.support_head(found), module.query_head(found)
    assert (support.shape[1], query.shape[1]) == (2, 1)
    torch.testing.assert_close(module.support_logits(maps, prototypes, learn=False), support)
    torch.testing.assert_close(module.query_map(maps, prototypes, learn=False), query)
    one = module.query_map(maps[:1], prototypes, learn=False)
    torch.testing.assert_close(one[:1], query[:1])


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_learned_where_asked_and_read_elsewhere(training):
    maps = 3 + 2 * torch.randn(4, 3, 5, 5)
    norm = LossNorm(3).train(training)
    torch.testing.assert_close(norm(maps), maps, atol=1e-4, rtol=1e-4)  # mean 0 and variance 1 are stored
    assert norm.running_mean.abs().max() == 0
    own = norm(maps, learn=True)
    torch.testing.assert_close(own.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * maps.mean((0, 2, 3)))


def test_a_single_value_a_channel_takes_the_stored_statistics():
    norm, value = LossNorm(3).train(), torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(norm(value, learn=True), value, atol=1e-4, rtol=1e-4)
    assert norm.running_mean.abs().max() == 0
