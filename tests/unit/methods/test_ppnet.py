"""PPNet's clusters and parts by hand, and AMP's added scores."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.amp import AMPConfig
from fewseg.methods.ppnet import PPNetConfig, k_means, with_context
from fewseg.types import EncodedShots
from small_segmenters import built, small_backbone


def test_clusters_are_the_means_of_the_directions_that_are_near():
    east, north = torch.tensor([[2.0, 0.1], [1.0, -0.1], [3.0, 0.0]]), torch.tensor([[0.1, 1.0], [0.0, 4.0]])
    found = k_means(torch.cat([east, north]), 2)
    expected = torch.stack([east.mean(dim=0), north.mean(dim=0)])
    order = found[:, 0].argsort(descending=True)
    torch.testing.assert_close(found[order], expected)


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_more_clusters_than_cells_are_one_for_each_cell(cells):
    given = torch.eye(4)[:cells]
    assert sorted(k_means(given, 5).tolist()) == sorted(given.tolist())


def test_equal_cells_leave_clusters_empty_and_finite():
    found = k_means(torch.ones(6, 3), 3)
    assert torch.equal(found[0], torch.ones(3))
    torch.testing.assert_close(found[1:], torch.full((2, 3), 3**-0.5))  # the centres that they keep
    assert bool(k_means(torch.zeros(6, 3), 3).isfinite().all())


def test_a_part_takes_the_others_in_by_their_cosines():
    parts = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    near = F.cosine_similarity(parts[:, None], parts[None], dim=2)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        total = sum(near[i, j] for j in others)
        expected = parts[i] + 0.8 * sum(near[i, j] / total * parts[j] for j in others)
        torch.testing.assert_close(with_context(parts, 0.8)[i], expected)
    assert torch.equal(with_context(parts[:1], 0.8), parts[:1])


def test_a_cell_goes_to_the_class_with_the_best_part(shots):
    ppnet = built(PPNetConfig(backbone=small_backbone("layer3"), level="layer3", parts=3))
    images, masks = shots(1, 2)
    features = ppnet.extract(images[0])
    state = ppnet.encode_support(EncodedShots(features=features, masks=masks))
    maps = ppnet.extract(images[0])["embedding"]
    for j, parts in enumerate(state.sets[0, 0].unflatten(0, (2, 3))):
        cosine = torch.stack([F.cosine_similarity(maps, part[None, :, None, None]) for part in parts])
        expected = F.interpolate(
            20 * cosine.amax(dim=0)[:, None], (65, 65), mode="bilinear", align_corners=True
        )
        torch.testing.assert_close(ppnet.segment(features, state)[:, j], expected[:, 0], atol=1e-4, rtol=1e-4)


def test_amp_adds_the_cosines_of_its_levels(shots):
    amp = built(AMPConfig(backbone=small_backbone("layer2", "layer3"), levels=("layer2", "layer3")))
    images, masks = shots(1, 1)
    raw = amp.backbone(images[0])
    features = amp.extract(images[0])
    found = amp.segment(features, amp.encode_support(EncodedShots(features=features, masks=masks)))
    total = 0
    for level in ("layer2", "layer3"):
        unit = F.normalize(raw[level], dim=1)
        full = F.interpolate(unit, (65, 65), mode="bilinear", align_corners=True)
        proxy = full[0][:, masks[0, 0] == 1].mean(dim=1)
        total = total + 10 * F.cosine_similarity(unit, proxy[None, :, None, None])
    expected = F.interpolate(total[:, None], (65, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-3, rtol=1e-4)


def test_numbers_out_of_range_are_refused():
    for name in ("parts", "iterations"):
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            PPNetConfig(**{name: 0})
    with pytest.raises(ValueError, match="context must be 0 or more, got nan"):
        PPNetConfig(context=float("nan"))
