"""INSID3's steps by hand; the contract suite takes it up by its registration."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig
from fewseg.methods.insid3 import (
    INSID3Config,
    cluster_means,
    cluster_of_cells,
    evidence,
    positional_basis,
    without_place,
)
from fewseg.types import EncodedShots


def cos(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_directions_of_place_are_gone_and_all_others_stay():
    torch.manual_seed(0)
    up, left, other = torch.linalg.qr(torch.rand(8, 3))[0].T
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    blank = up[:, None, None] * (1 + rows) + left[:, None, None] * columns
    basis = positional_basis(blank[None], 4)
    assert int((basis.norm(dim=0) > 0.5).sum()) == 2  # of the four only two are there
    content = torch.rand(4, 5)
    seen = blank + other[:, None, None] * content
    torch.testing.assert_close(without_place(seen[None], basis)[0], other[:, None, None] * content)
    assert not without_place(blank[None], basis).any()  # not the noise of rounding


def test_a_basis_has_at_most_half_the_channels():
    assert positional_basis(torch.rand(1, 6, 4, 4), 16).shape == (6, 3)
    assert positional_basis(torch.rand(1, 6, 4, 4), 0).shape == (6, 0)


def test_alike_cells_are_one_cluster_whatever_their_length():
    torch.manual_seed(0)
    kind = torch.randint(0, 3, (2, 6, 7))
    maps = F.one_hot(kind, 4).permute(0, 3, 1, 2) * (0.2 + 5 * torch.rand(2, 1, 6, 7)) + 0.01 * torch.rand(
        2, 4, 6, 7
    )
    found = cluster_of_cells(maps, 3)
    for own, true in zip(found, kind.flatten(1), strict=True):
        assert sorted(own.unique().tolist()) == [0, 1, 2]
        assert len({(int(a), int(b)) for a, b in zip(own, true, strict=True)}) == 3


def test_a_clusters_mean_is_that_of_its_cells():
    torch.manual_seed(0)
    maps, cluster = torch.rand(1, 4, 2, 3), torch.tensor([[0, 2, 2, 0, 2, 0]])
    found = cluster_means(maps, cluster, 4)[0]
    cells = maps[0].flatten(1).T
    torch.testing.assert_close(found[0], (cells[0] + cells[3] + cells[5]) / 3)
    torch.testing.assert_close(found[2], (cells[1] + cells[2] + cells[4]) / 3)
    assert not found[[1, 3]].any()


def test_clusters_are_gathered_by_candidates_the_prototype_and_the_seed():
    torch.manual_seed(0)
    share, across, means = torch.rand(1, 5), torch.rand(1, 5) - 0.2, torch.randn(1, 5, 4)
    found = evidence(share, across, means)[0]
    seed = max(range(5), key=lambda c: share[0, c] * max(0.0, float(across[0, c])))
    for c in range(5):
        alike = max(0.0, cos(means[0, c], means[0, seed]))
        expected = share[0, c] * max(0.0, float(across[0, c])) / across[0, seed] * alike
        assert float(found[c]) == pytest.approx(float(expected), abs=1e-6)
    assert not evidence(share, -across.abs(), means).any()


VIT = BackboneConfig(name="vit_tiny_patch16_224", weights=None, levels=("layer1",))


def test_the_masks_are_those_of_the_steps_one_by_one(make_method):
    torch.manual_seed(0)
    method = make_method(INSID3Config, backbone=VIT, level="layer1", rank=4, clusters=6)
    images, masks = torch.rand(2, 3, 129, 129), torch.zeros(1, 2, 129, 129, dtype=torch.uint8)
    masks[0, 0, :46, 25:80], masks[0, 0, 100:] = 1, 255  # cells 0-2, 2-4, and from 6
    query, support = method.extract(images[:1].flip(3)), method.extract(images)
    basis = positional_basis(method.backbone(torch.full((1, 3, 129, 129), 0.5))["layer1"], 4)
    clean = F.normalize(without_place(support["layer1"], basis), dim=1).permute(0, 2, 3, 1)
    front = clean[0, :3, 2:5].flatten(0, 1)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:3, 2:5], outside[6:] = False, False
    back = torch.cat([clean[0][outside], clean[1].flatten(0, 1)])
    raw = query["layer1"]
    own = F.normalize(without_place(raw, basis), dim=1)[0].flatten(1).T
    cluster = cluster_of_cells(raw, 6)[0].numpy()
    unit = F.normalize(raw, dim=1)[0].flatten(1).T
    share, across, means = [], [], []
    for c in range(6):
        cells = torch.from_numpy(np.flatnonzero(cluster == c))
        better = [float((front @ own[i]).max() - (back @ own[i]).max()) for i in cells]
        share.append(float(np.mean([min(1.0, max(0.0, 0.5 + 10 * b)) for b in better])))
        across.append(cos(own[cells].mean(dim=0), front.mean(dim=0)))
        means.append(unit[cells].mean(dim=0))
    expected = evidence(torch.tensor([share]), torch.tensor([across]), torch.stack(means)[None])[0]
    assert len(set(share)) > 2
    state = method.encode_support(EncodedShots(features=support, masks=masks))
    logits = method.segment(query, state)
    margins = 20 * (expected[torch.from_numpy(cluster)].view(1, 1, 8, 8) - 0.5)
    margins = F.interpolate(margins, size=(129, 129), mode="bilinear", align_corners=True)
    torch.testing.assert_close((logits[:, 1:] - logits[:, :1]), margins, atol=1e-3, rtol=1e-3)


def test_the_grey_image_is_read_once_a_model_and_size_and_again_with_new_weights(make_method):
    method = make_method(INSID3Config, backbone=VIT, level="layer1", rank=4)
    read = []
    method.backbone.register_forward_hook(lambda _module, _images, found: read.append(found.image_size))
    features = {side: method.extract(torch.rand(1, 3, side, side)) for side in (129, 145)}
    read.clear()
    with torch.inference_mode():
        first = method.basis(features[129])
    for side in (129, 145, 129, 145):
        masks = torch.zeros(1, 1, side, side, dtype=torch.uint8)
        masks[..., :46, 25:80] = 1
        state = method.encode_support(EncodedShots(features=features[side], masks=masks))
        method.segment(features[side], state)
    assert read == [(129, 129), (145, 145)]
    assert method.basis(features[129]) is first
    assert not first.is_inference()
    twin = copy.deepcopy(method)
    other = make_method(INSID3Config, backbone=replace(VIT, seed=1), level="layer1", rank=4)
    twin.load_state_dict(other.state_dict())
    torch.testing.assert_close(twin.basis(features[129]), other.basis(features[129]))
    assert method.basis(features[129]) is first


def test_the_cell_of_a_tiny_object_is_no_background(make_method):
    method = make_method(INSID3Config, backbone=VIT, level="layer1", rank=1)
    masks = torch.zeros(1, 1, 129, 129, dtype=torch.uint8)
    masks[..., 9:12, 9:12] = 1
    support = EncodedShots(features=method.extract(torch.rand(1, 3, 129, 129)), masks=masks)
    way = method.encode_support(support).ways[0]
    assert (int(way.is_foreground.sum()), int(way.is_background.sum())) == (1, 63)


def test_a_small_grid_and_too_many_clusters_are_refused(make_method):
    for clusters, side, message in (
        (32, 113, r"a grid of 8 x 8 .* got 7 x 7 .*give larger images$"),
        (65, 129, r"as clusters \(65\), got 8 x 8 .*or fewer clusters$"),
    ):
        method = make_method(INSID3Config, backbone=VIT, level="layer1", clusters=clusters)
        features = method.extract(torch.rand(1, 3, side, side))
        with pytest.raises(ValueError, match=message):
            method.maps(features)


def test_numbers_and_levels_that_do_not_fit_are_refused():
    for changes, message in (
        ({"rank": -1}, "rank must be 0 or more, got -1"),
        ({"clusters": 1}, "clusters must be 2 or more, got 1"),
        ({"threshold": 1.0}, r"threshold must be in \(0, 1\), got 1.0"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            INSID3Config(**changes)
    with pytest.raises(ValueError, match=r"reads levels \('layer1',\) and the backbone gives"):
        INSID3Config(level="layer1")
