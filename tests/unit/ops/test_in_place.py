"""Sums in place where nothing needs the old value, and beside it where a gradient does."""

import torch

from fewseg.methods.layers import plus


def test_without_gradients_the_sum_stands_in_the_first_tensor():
    a, b = torch.ones(2, 3), torch.full((3,), 2.0)
    with torch.no_grad():
        found = plus(a, b)
    assert found is a
    assert torch.equal(a, torch.full((2, 3), 3.0))
    assert torch.equal(b, torch.full((3,), 2.0))


def test_where_gradients_are_asked_for_nothing_is_overwritten():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2)
    held = torch.relu(a)  # keeps its own result for the backward pass
    plus(held, b).sum().backward()
    assert torch.equal(held, torch.ones(2))
    assert torch.equal(a.grad, torch.ones(2))
