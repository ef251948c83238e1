"""What the methods of the zoo do with sizes and networks that do not fit them, as a user would meet it."""

import pytest
import torch

from fewseg import create_method
from fewseg.backbones import BackboneConfig
from small_segmenters import episodes_of, small_backbone

VIT = "vit_tiny_patch16_224"


def episode(cells=1, side=65):
    """A query, a support image and its mask of so many cells of stride 8."""
    images = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    mask[..., 8:17, 8 : 8 * cells + 9] = 1
    return images[0], images[1:], mask


def answered(method, *given):
    with torch.no_grad():
        return method.eval()(*given)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pmms", {"components": 40}),
        ("rpmms", {"components": 40, "earlier": (30,)}),
        ("ppnet", {"parts": 40, "level": "layer3"}),
        ("asgnet", {"regions": 40, "region_cells": 1, "scales": (1.0,)}),
    ],
)
@pytest.mark.parametrize("cells", [1, 3])
def test_more_components_than_foreground_cells_give_a_finite_answer(name, parts, cells):
    widths = {} if name == "ppnet" else {"channels": 8}
    method = create_method(name, backbone=small_backbone("layer2", "layer3"), **widths, **parts)
    found = answered(method, *episode(cells))
    assert found.shape == (1, 2, 65, 65)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["pmms", "rpmms"])
def test_components_that_no_cell_belongs_to_give_a_finite_answer(name):
    # so concentrated that a cell belongs to one component alone: of equal cells all go to the first ones
    method = create_method(name, backbone=small_backbone("layer2", "layer3"), channels=8, kappa=1e6)
    query, supports, mask = episode(3)
    assert answered(method, query, torch.full_like(supports, 0.5), mask).isfinite().all()
    assert answered(method, query, supports, mask).isfinite().all()


def test_a_transformer_of_too_small_a_grid_is_refused_with_the_size_it_needs():
    backbone = BackboneConfig(name=VIT, weights=None, levels=("layer1",))
    method = create_method("insid3", backbone=backbone, level="layer1")
    with pytest.raises(ValueError, match=r"a grid of 8 x 8 cells .* got 7 x 7 for images of \(113, 113\)"):
        answered(method, *episode(side=113))


def test_more_clusters_than_cells_are_refused():
    method = create_method("insid3", backbone=small_backbone("layer3"), level="layer3", clusters=82)
    with pytest.raises(ValueError, match=r"as many cells as clusters \(82\), got 9 x 9 .* or fewer clusters"):
        answered(method, *episode())


@pytest.mark.parametrize("name", ["resnet50", VIT])
def test_a_backbone_without_named_blocks_is_refused_by_hsnet(name):
    backbone = BackboneConfig(name=name, weights=None, levels=("layer2", "layer3"))
    with pytest.raises(ValueError, match="the backbone gives layer2, layer3: name blocks such as"):
        create_method("hsnet", backbone=backbone)


def test_bam_is_not_trained_without_a_base_learner_and_says_how_to_make_one():
    backbone = small_backbone("layer2", "layer3", "layer4")
    bam = create_method("bam", backbone=backbone, channels=8, scales=(1.0,))
    query, supports, mask = episode()
    episodes = episodes_of(torch.cat([supports, query.unsqueeze(1)], dim=1), mask.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match=r"needs a base learner: train one .*bam_base.* by --method.base"):
        bam.losses(episodes)
