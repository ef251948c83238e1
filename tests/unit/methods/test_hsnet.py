"""HSNet's parts by hand; the contract suite and the recipes' tests take it up by its registration."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.methods import create_method
from fewseg.methods.fusion import Vote
from fewseg.methods.hsnet import CentrePivotConv4d, HSNetConfig, PyramidEncoder, blocks_of, correlation

SHAPE = ResNetShape(layers=(1, 2, 2, 1), channels=(4, 8, 8, 8), stem_width=4)
LEVELS = ("layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0")


@pytest.fixture
def hsnet():
    backbone = BackboneConfig(name="resnet18", weights=None, levels=LEVELS, shape=SHAPE, output_stride=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HSNetConfig(backbone=backbone, channels=8).build().eval()


@pytest.mark.parametrize(
    ("kernel", "stride", "grid"),
    [(3, 2, (6, 5)), (5, 4, (5, 9)), (5, 4, (2, 2)), (5, 1, (1, 3)), (3, 1, (1, 1))],
)
def test_a_centre_pivot_convolution_is_a_4d_one_with_a_sparse_kernel(kernel, stride, grid):
    torch.manual_seed(0)
    conv, pad = CentrePivotConv4d(2, 3, kernel, stride), kernel // 2
    maps = torch.rand(2, 2, 4, 5, *grid)
    found = conv(maps)
    assert found.shape == (2, 3, 4, 5, *(-(-side // stride) for side in grid))
    padded = F.pad(maps, (pad, pad) * 4)
    over_query, over_support = conv.query.weight, conv.support.weight
    for n, i, j, k, m in itertools.product(
        (0, 1), (0, 3), (1, 4), {0, found.shape[4] - 1}, {0, found.shape[5] - 1}
    ):
        expected = conv.query.bias + conv.support.bias
        up, left = stride * k, stride * m
        for a in range(kernel):
            for b in range(kernel):
                pivoted = padded[n, :, i + a, j + b, up + pad, left + pad]
                beside = padded[n, :, i + pad, j + pad, up + a, left + b]
                expected = expected + over_query[:, :, a, b] @ pivoted + over_support[:, :, a, b] @ beside
        torch.testing.assert_close(found[n, :, i, j, k, m], expected)


def test_every_block_is_correlated_with_the_supports_foreground_alone(hsnet, shots):
    images, masks = shots(1, 2)
    features = hsnet.extract(images[0])
    query, guides = hsnet.encode_query(features), hsnet.encode_shots(features, masks[0])
    deepest, middle, finest = hsnet.hypercorrelations(query, guides)
    assert deepest.shape == (2, 1, 3, 3, 3, 3)
    assert middle.shape == (2, 2, 5, 5, 5, 5)
    assert finest.shape == (2, 2, 9, 9, 9, 9)
    inside = F.interpolate((masks[0] == 1).float()[:, None], size=(9, 9), mode="bilinear", align_corners=True)
    maps = features["layer2.1"]
    for n, (i, j, k, m) in ((0, (2, 3, 4, 5)), (1, (8, 0, 6, 6)), (1, (1, 1, 0, 0))):
        cosine = F.cosine_similarity(maps[n, :, i, j], maps[n, :, k, m], dim=0).clamp(min=0)
        expected = cosine if inside[n, 0, k, m] > 0 else torch.tensor(0.0)
        torch.testing.assert_close(finest[n, 1, i, j, k, m], expected)


def test_opposite_cells_have_no_correlation():
    cells = torch.tensor([[1.0], [0.0]])[None, ..., None]
    assert correlation(cells, -cells).item() == 0
    assert correlation(cells, cells).item() == 1


def test_all_levels_end_with_the_same_grid_of_the_support():
    encoder = PyramidEncoder([1, 1, 1], [2, 1, 0], 8)
    grids = {
        tuple(part(torch.rand(1, 1, 2, 2, n, n)).shape[4:])
        for part, n in zip(encoder.squeeze, (31, 16, 8), strict=True)
    }
    assert grids == {(1, 1)}
    assert encoder(torch.rand(1, 1, n, n, n, n) for n in (3, 5, 9)).shape == (1, 8, 9, 9)


def test_a_pair_has_the_same_score_however_many_are_compared_at_once(hsnet, shots, monkeypatch):
    images, masks = shots(1, 3)
    with torch.no_grad():
        features = hsnet.extract(images[0])
        query, guides = hsnet.encode_query(features), hsnet.encode_shots(features, masks[0])
        together = hsnet.score(query, guides)
        monkeypatch.setattr("fewseg.methods.hsnet._PAIR_BYTES", 1)
        torch.testing.assert_close(hsnet.score(query, guides), together, atol=1e-5, rtol=1e-4)
        one = hsnet.score(query.select(slice(1)), guides)
    assert one.shape == together.shape


def test_shots_vote_cell_by_cell():
    found = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.float32).view(1, 3, 1, 1, 4)
    scores = torch.cat([torch.full_like(found, 0.5), found], dim=2)
    joined = Vote().fuse(scores, torch.full((1, 3), 1 / 3))
    assert (joined[:, 1] > joined[:, 0]).flatten().tolist() == [True, True, False, False]
    most_is_one = Vote().fuse(scores[..., 2:], torch.full((1, 3), 1 / 3))
    assert (most_is_one[:, 1] > most_is_one[:, 0]).flatten().tolist() == [True, False]
    nobody = Vote().fuse(scores[..., 3:], torch.full((1, 3), 1 / 3))
    assert bool((nobody[:, 1] < nobody[:, 0]).all())
    assert torch.equal(Vote().fuse(scores[:, :1], torch.ones(1, 1)), scores[:, 0])
    with pytest.raises(ValueError, match=r"threshold of a vote must be in \(0, 1\), got 1"):
        Vote(threshold=1)


def test_it_may_lie_channels_last_as_in_training(hsnet, shots):
    images, masks = shots(1, 2)
    with torch.no_grad():
        expected = hsnet(images[:, 1], images[:, :1], masks[:, :1])
        laid = hsnet.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            laid(images[:, 1], images[:, :1], masks[:, :1]), expected, atol=1e-5, rtol=1e-4
        )


def test_levels_that_are_no_blocks_or_that_a_stage_lacks_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"compares single blocks and the backbone gives layer2, layer4: name"
    ):
        HSNetConfig(backbone=BackboneConfig(levels=("layer2", "layer3.0", "layer4")))
    lacking = BackboneConfig(name="resnet18", weights=None, levels=("layer3.7",), shape=SHAPE)
    with pytest.raises(ValueError, match=r"no level 'layer3.7': layer3 has 2 blocks, 0 .. 1"):
        create_method("hsnet", backbone=lacking)
    with pytest.raises(ValueError, match="channels must be a multiple of 8, got 12"):
        HSNetConfig(channels=12)


def test_the_default_backbone_names_all_blocks_at_the_networks_own_strides():
    config = HSNetConfig().backbone
    assert config.levels == blocks_of("resnet50")
    assert len(config.levels) == 13
    built = replace(config, weights=None).build()
    assert list(built.strides.values()) == [8] * 4 + [16] * 6 + [32] * 3
