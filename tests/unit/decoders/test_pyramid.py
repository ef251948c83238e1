"""The pyramid: shapes, top-down order, deep supervision on demand, levels of another pass."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import PyramidTrunk

SIDES = (9, 4, 2)


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    return PyramidTrunk(4, scales=3, dropout=0.5).eval()


@pytest.fixture
def merged():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, side, side, generator=generator) for side in SIDES]


def up(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def literal(trunk, merged, size, previous=None):
    """PFENet Eq. 7-9, written out."""
    levels, inner = [], []
    for b, maps in enumerate(merged):
        if b:
            above = (levels if previous is None else previous)[b - 1]
            joined = torch.cat([maps, up(above, maps.shape[-2:])], dim=1)
            maps = maps + F.relu(F.conv2d(joined, trunk.top_down[b - 1][0].weight))
        first, second = trunk.refine[b][0].weight, trunk.refine[b][2].weight
        maps = maps + F.relu(F.conv2d(F.relu(F.conv2d(maps, first, padding=1)), second, padding=1))
        inner.append(trunk.inner[b](maps))
        levels.append(up(maps, size))
    joined = F.relu(F.conv2d(torch.cat(levels, dim=1), trunk.reduce[0].weight))
    return trunk.classifier(joined + trunk.residual(joined)), inner, levels


@pytest.mark.parametrize("another_pass", [False, True])
def test_the_decoder_is_the_one_written_out(trunk, merged, another_pass):
    previous = [torch.randn(2, 4, 9, 7) for _ in SIDES] if another_pass else None
    out = trunk(merged, (9, 7), deep=True, previous=previous)
    logits, inner, levels = literal(trunk, merged, (9, 7), previous)
    torch.testing.assert_close(out.logits, logits)
    for ours, theirs in zip((*out.inner, *out.levels), (*inner, *levels), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shapes_of_logits_inner_logits_and_levels(trunk, merged):
    out = trunk(merged, (9, 7), deep=True)
    assert out.logits.shape == (2, 2, 9, 7)
    assert [tuple(i.shape) for i in out.inner] == [(2, 2, side, side) for side in SIDES]
    assert [tuple(level.shape) for level in out.levels] == [(2, 4, 9, 7)] * 3


def test_the_inner_classifiers_run_only_when_asked_and_change_nothing_else(trunk, merged):
    plain, deep = trunk(merged, (9, 9), deep=False), trunk(merged, (9, 9), deep=True)
    assert plain.inner == ()
    assert torch.equal(plain.logits, deep.logits)


def test_a_scale_hears_of_the_coarser_list_before_it_only(trunk, merged):
    before = trunk(merged, (9, 9), deep=False)
    merged[1] = merged[1] + 1
    after = trunk(merged, (9, 9), deep=False)
    assert torch.equal(before.levels[0], after.levels[0])
    assert not torch.equal(before.levels[1], after.levels[1])
    assert not torch.equal(before.levels[2], after.levels[2])


def test_the_merged_maps_are_not_changed_in_place(trunk, merged):
    copies = [m.clone() for m in merged]
    trunk(merged, (9, 9), deep=True)
    assert all(torch.equal(a, b) for a, b in zip(merged, copies, strict=True))


def test_gradients_and_none_give_the_same_logits(trunk, merged):
    with torch.no_grad():
        without = trunk(merged, (9, 9), deep=False).logits
    assert torch.equal(trunk(merged, (9, 9), deep=False).logits, without)


def test_the_weights_get_the_gradients_of_the_one_written_out(trunk, merged):
    grads = []
    for run in (lambda: trunk(merged, (5, 5), deep=False).logits, lambda: literal(trunk, merged, (5, 5))[0]):
        trunk.zero_grad()
        run().square().sum().backward()
        grads.append([p.grad.clone() for p in trunk.parameters() if p.grad is not None])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
