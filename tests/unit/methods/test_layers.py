"""The parts that decoders share, against the ones written out."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.layers import (
    GuidedQuery,
    GuideMerge,
    MidLevel,
    NoPrior,
    PriorMap,
    PyramidTrunk,
    bin_size,
    plus,
)
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig
from fewseg.ops.masks import foreground_cells
from fewseg.types import Features, Guides


def literal_merge(merge, sizes, maps, vectors, prior):
    """SCL Eq. 2 and 11, PFENet Eq. 6: concat(map_b, V_1 .. V_v, prior_b) -> 1x1 convolution -> ReLU."""
    merged = []
    for size, conv in zip(sizes, merge.convs, strict=True):
        parts = [F.adaptive_avg_pool2d(maps, size)]
        parts += [v[:, :, None, None].expand(-1, -1, *size) for v in vectors.unbind(1)]
        if prior.shape[1]:
            parts.append(F.interpolate(prior, size=size, mode="bilinear", align_corners=True))
        merged.append(F.relu(F.conv2d(torch.cat(parts, dim=1), conv.weight)))
    return merged


@pytest.mark.parametrize(
    ("scales", "sizes"),
    [
        ((12, 6, 3), [(12, 12), (6, 6), (3, 3)]),  # 12 is above the map's own side
        ((1.0, 0.5, 0.133), [(9, 7), (4, 3), (1, 1)]),
        ((9, 0.5), [(9, 9), (4, 3)]),
    ],
)
@pytest.mark.parametrize(("vectors", "prior_channels"), [(1, 1), (2, 1), (2, 0), (3, 1)])
def test_the_merge_is_the_convolution_of_the_concatenation(scales, sizes, vectors, prior_channels):
    torch.manual_seed(0)
    merge = GuideMerge(4, vectors=vectors, prior_channels=prior_channels, scales=scales)
    maps, guide = torch.randn(2, 4, 9, 7), torch.randn(2, vectors, 4)
    prior = torch.rand(2, prior_channels, 9, 7)
    expected = literal_merge(merge, sizes, maps, guide, prior)
    found = merge(maps, guide, prior)
    assert [tuple(m.shape) for m in found] == [(2, 4, *size) for size in sizes]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        (60, (60, 60)),
        (60.0, (60, 60)),  # what a command line makes of 60
        (8, (8, 8)),
        (1, (1, 1)),
        (1.0, (31, 41)),
        (0.5, (15, 20)),
        (0.001, (1, 1)),
    ],
)
def test_numbers_above_1_are_sides_and_floats_up_to_1_fractions_of_the_map(scale, size):
    assert bin_size(scale, (31, 41)) == size


@pytest.mark.parametrize("config", [PFENetConfig, SCLPFENetConfig, SDAANetConfig])
@pytest.mark.parametrize(
    ("pixels", "rounding", "cells"),
    [  # 9.5 and 4.75 of 19 cells, 7.5 of 60
        (145, "down", (19, 9, 4, 2)),
        (145, "nearest", (19, 10, 5, 2)),
        (473, "down", (60, 30, 15, 7)),
        (473, "nearest", (60, 30, 15, 8)),
    ],
)
def test_every_pyramid_of_a_method_has_the_cells_of_its_rounding(
    make_method, config, pixels, rounding, cells
):
    method = make_method(config, scales=(1.0, 0.5, 0.25, 0.125), rounding=rounding)
    side = (pixels - 1) // 8 + 1
    merges = [module for module in method.modules() if isinstance(module, GuideMerge)]
    assert len(merges) == (2 if config is SCLPFENetConfig else 1)
    for merge in merges:
        prior = torch.rand(1, merge.convs[0].in_channels - 8 * (1 + merge.vectors), side, side)
        maps, vectors = torch.randn(1, 8, side, side), torch.randn(1, merge.vectors, 8)
        with torch.no_grad():
            found = merge(maps, vectors, prior)
            expected = literal_merge(merge, [(n, n) for n in cells], maps, vectors, prior)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def rerun(level, below):
    """A stage that looks at neighbours, as a real one does: masking before it is not masking after it."""
    assert level == "layer4"
    return torch.cat([F.avg_pool2d(below, 3, stride=1, padding=1), below[:, :1] - 1], dim=1)


def stages(seed):
    third = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return Features(maps={"layer3": third, "layer4": rerun("layer4", third)}, image_size=(33, 33))


@pytest.fixture
def support():
    return stages(0)


@pytest.fixture
def query():
    return stages(1)


@pytest.fixture
def masks():
    masks = torch.zeros(2, 33, 33, dtype=torch.uint8)
    masks[0, 6:20, 10:30] = 1
    masks[1, 0:9, 0:9] = 1
    masks[1, 20:, :] = 255
    return masks


def plain_prior(query, support, cells, masked_support):
    """PFENet Eq. 3-5, one query cell and one support cell at a time."""
    size = query.shape[-1]
    found = torch.zeros(size, size)
    for y in range(size):
        for x in range(size):
            best = [
                torch.cosine_similarity(query[:, y, x], masked_support[:, v, u], dim=0)
                for v in range(size)
                for u in range(size)
                if cells[v, u] > 0
            ]
            found[y, x] = max(best)
    return (found - found.min()) / (found.max() - found.min())


@pytest.mark.parametrize(
    ("prior", "level", "masked"),
    [
        (PriorMap(), "layer4", True),
        (PriorMap(level="layer4", masked_input=None), "layer4", False),
        (PriorMap(level="layer3", masked_input=None), "layer3", False),
    ],
)
def test_the_map_is_the_normalised_best_match_at_the_level_asked_for(
    support, query, masks, prior, level, masked
):
    keys, valid = prior.keys(support, masks, rerun)
    found = prior.compare(prior.query_map(query), keys, valid, (5, 5))
    assert found.shape == (2, 1, 5, 5)
    cells = foreground_cells(masks, (5, 5))[:, 0]
    for i in range(2):
        maps = support[level][i]
        if masked:
            maps = rerun("layer4", (support["layer3"] * cells.unsqueeze(1))[i : i + 1])[0]
        expected = plain_prior(query[level][i], maps, cells[i], maps)
        torch.testing.assert_close(found[i, 0], expected, atol=1e-4, rtol=0)


def test_several_shots_give_the_mean_of_their_normalised_maps_resized(support, query, masks):
    prior = PriorMap(level="layer3", masked_input=None)
    keys, valid = prior.keys(support, masks, rerun)  # two shots
    one = prior.query_map(query)[:1]
    alone = [prior.compare(one, keys[k : k + 1], valid[k : k + 1], (5, 5)) for k in range(2)]
    joined = prior.compare(one, keys.transpose(0, 1), valid.transpose(0, 1), (5, 5))
    torch.testing.assert_close(joined, (alone[0] + alone[1]) / 2)
    larger = prior.compare(one, keys.transpose(0, 1), valid.transpose(0, 1), (9, 9))
    torch.testing.assert_close(larger[..., ::2, ::2], joined)


def test_the_levels_that_are_read_follow_from_the_fields():
    assert PriorMap().levels == ("layer3", "layer4")
    assert PriorMap(level="layer3", masked_input=None).levels == ("layer3",)
    assert NoPrior().levels == ()


def test_no_prior_is_a_map_of_zero_channels_that_never_runs_the_backbone(support, query, masks):
    prior = NoPrior()
    keys, valid = prior.keys(support, masks, rerun=None)
    assert (keys.shape, valid.shape) == ((2, 1, 0, 0), (2, 1, 0))
    compared = prior.query_map(query)
    assert prior.compare(compared, keys, valid, (5, 5)).shape == (2, 0, 5, 5)
    assert (prior.channels, PriorMap().channels) == (0, 1)


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


def literal_pyramid(trunk, merged, size, previous=None):
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
    logits, inner, levels = literal_pyramid(trunk, merged, (9, 7), previous)
    torch.testing.assert_close(out.logits, logits)
    weights = list(trunk.refine.parameters())
    grads = [torch.autograd.grad(found.square().sum(), weights) for found in (out.logits, logits)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip((*out.inner, *out.levels), (*inner, *levels), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_inner_classifiers_run_only_when_asked_and_change_nothing_else(trunk, merged):
    plain, deep = trunk(merged, (9, 9), deep=False), trunk(merged, (9, 9), deep=True)
    assert plain.inner == ()
    assert torch.equal(plain.logits, deep.logits)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    maps = {"layer2": torch.randn(2, 3, 5, 5, generator=generator)}
    maps["layer3"] = torch.randn(2, 6, 5, 5, generator=generator)
    return Features(maps=maps, image_size=(33, 33))


def test_the_mid_level_is_a_convolution_of_the_levels_in_their_order(features):
    mid = MidLevel(9, 4, ("layer3", "layer2"), dropout=0.5).eval()
    joined = torch.cat([features["layer3"], features["layer2"]], dim=1)
    torch.testing.assert_close(mid.of(features), F.relu(F.conv2d(joined, mid[0].weight)))


def test_the_mid_level_drops_whole_channels_in_training_only(features):
    torch.manual_seed(0)
    mid = MidLevel(9, 64, ("layer3", "layer2"), dropout=0.5)
    dropped = (mid.of(features) == 0).flatten(2).all(dim=2)
    assert 20 < int(dropped.sum()) < 108  # of 128, half is expected
    assert int((mid.eval().of(features) == 0).flatten(2).all(dim=2).sum()) < 20


def test_a_level_that_the_backbone_does_not_give_is_named(features):
    mid = MidLevel(9, 4, ("layer4",), dropout=0.0)
    with pytest.raises(ValueError, match=r"no level 'layer4'; it gives \['layer2', 'layer3'\]"):
        mid.of(features)


@pytest.mark.parametrize("prior", [PriorMap(level="layer3", masked_input=None), NoPrior()])
def test_the_query_path_is_mid_prior_and_merge(features, prior):
    torch.manual_seed(0)
    mid = MidLevel(9, 4, ("layer3", "layer2"), dropout=0.0)
    path = GuidedQuery(mid, channels=4, vectors=2, prior=prior, scales=(3, 1.0)).eval()
    masks = torch.ones(2, 33, 33, dtype=torch.uint8)
    keys, valid = prior.keys(features, masks, rerun=None)
    guides = Guides(maps={"vectors": torch.randn(2, 2, 4)}, keys=keys, valid=valid)
    query = path.encode(features)
    shown = path.prior_map(query, guides)
    assert shown.shape == (2, prior.channels, 5, 5)
    expected = path.merge(mid.of(features), guides["vectors"], shown)
    for ours, theirs in zip(path(query, guides), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_where_gradients_are_asked_for_nothing_is_overwritten():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2)
    held = torch.relu(a)  # keeps its own result for the backward pass
    plus(held, b).sum().backward()
    assert torch.equal(held, torch.ones(2))
    assert torch.equal(a.grad, torch.ones(2))


def test_without_gradients_the_pyramid_is_the_same_and_leaves_the_merged_maps_alone(trunk, merged):
    expected, copies = trunk(merged, (9, 9), deep=False).logits, [maps.clone() for maps in merged]
    with torch.no_grad():
        assert torch.equal(trunk(merged, (9, 9), deep=False).logits, expected)
    assert all(torch.equal(a, b) for a, b in zip(merged, copies, strict=True))
    first = torch.ones(2)
    with torch.no_grad():
        assert plus(first, torch.ones(2)) is first  # in place
