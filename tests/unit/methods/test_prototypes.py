"""Metrics cell by cell, and prototypes as means over the pixels of features at the masks' size."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.prototypes import Cosine, Fidelity, SquaredEuclidean, pool_prototypes

METRICS = (Cosine(), Fidelity(), SquaredEuclidean())


@pytest.fixture
def pair():
    """Two maps of six channels, each with three prototypes of its own, of all lengths."""
    generator = torch.Generator().manual_seed(0)
    maps = 3 * torch.randn(2, 6, 4, 5, generator=generator)
    return maps, 0.2 * torch.randn(2, 3, 6, generator=generator)


def compared(metric, maps, prototypes):
    return metric.compare(metric.prepare(maps), prototypes)


def cell_by_cell(maps, prototypes, distance):
    """One cell and one prototype at a time."""
    n, _, height, width = maps.shape
    found = torch.zeros(n, prototypes.shape[1], height, width)
    for i in range(n):
        for j in range(prototypes.shape[1]):
            for y in range(height):
                for x in range(width):
                    found[i, j, y, x] = distance(maps[i, :, y, x], prototypes[i, j])
    return found


def by_density_matrices(f, p):
    """SRPNet Eq. 5-6: F (p^T p) F^T of unit row vectors."""
    f, p = (f / f.norm()).view(1, -1), (p / p.norm()).view(1, -1)
    return float(f @ (p.T @ p) @ f.T)


def angle(f, p):
    return float((f * p).sum()) / math.sqrt(float((f * f).sum()) * float((p * p).sum()))


def test_fidelity_is_that_of_the_density_matrices(pair):
    found = compared(Fidelity(), *pair)
    torch.testing.assert_close(found, cell_by_cell(*pair, by_density_matrices))
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_cosine_is_that_of_the_angle(pair):
    found = compared(Cosine(), *pair)
    torch.testing.assert_close(found, cell_by_cell(*pair, angle))
    assert float(found.min()) < -0.1  # half of the directions point away


def test_squared_euclidean_is_the_negated_squared_distance(pair):
    found = compared(SquaredEuclidean(), *pair)
    expected = cell_by_cell(*pair, lambda f, p: -sum((a - b) ** 2 for a, b in zip(f, p, strict=True)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert float(found.max()) <= 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_zero_prototypes_and_zero_cells_are_finite_with_finite_gradients(metric, pair):
    maps, prototypes = pair[0].clone(), pair[1].clone()
    maps[0, :, 0, 0] = 0
    prototypes[0, 1] = 0
    maps.requires_grad_()
    prototypes.requires_grad_()
    found = compared(metric, maps, metric.start(prototypes))
    assert bool(torch.isfinite(found).all())
    found.sum().backward()
    assert bool(torch.isfinite(maps.grad).all())
    assert bool(torch.isfinite(prototypes.grad).all())
    if metric.kind != "squared-euclidean":
        assert float(found.detach()[0, 1].abs().max()) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_iteration_starts_where_nothing_has_changed(metric, pair):
    maps, prototypes = pair
    start = metric.start(prototypes)
    torch.testing.assert_close(compared(metric, maps, start), compared(metric, maps, prototypes))
    if metric.kind != "squared-euclidean":  # Eq. 5
        torch.testing.assert_close(start.norm(dim=2), torch.ones(2, 3))


SIZE = (17, 13)
CELLS = (3, 4)
BOTH = pytest.mark.parametrize("align_corners", [True, False])


def plain(maps, masks, way_of, align_corners):
    """SRPNet Eq. 1 and 2, a pixel at a time, on features at image size."""
    episodes, shots, height, width = masks.shape
    full = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=align_corners)
    full = full.unflatten(0, (episodes, shots))
    found = torch.zeros(episodes, 1 + max(way_of), maps.shape[1])
    for b in range(episodes):
        for j in range(1 + max(way_of)):
            means = []
            for k in range(shots):
                if j and way_of[k] != j:
                    continue
                places = [(y, x) for y in range(height) for x in range(width) if int(masks[b, k, y, x]) == j]
                if places:
                    means.append(sum(full[b, k, :, y, x] for y, x in places) / len(places))
            if means:
                found[b, j] = sum(means) / len(means)
    return found


@pytest.fixture
def case():
    """(ways, way_of) -> two episodes of random features and masks of every label, 255 included."""

    def make(ways, way_of, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shots = len(way_of)
        maps = torch.randn(2 * shots, 5, *CELLS, generator=generator)
        labels = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
        coarse = torch.randint(0, len(labels), (2, shots, 6, 5), generator=generator)
        masks = labels[coarse].repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
        return maps, masks[..., : SIZE[0], : SIZE[1]].contiguous()

    return make


@BOTH
@pytest.mark.parametrize(
    ("ways", "way_of"), [(1, (1,)), (1, (1, 1, 1)), (2, (1, 2)), (2, (2, 1, 1)), (3, (1, 2, 2, 3, 2))]
)
def test_prototypes_of_any_ways_and_shots_are_the_plain_means(case, ways, way_of, align_corners):
    maps, masks = case(ways, way_of)
    found = pool_prototypes(maps, masks, way_of, align_corners=align_corners)
    torch.testing.assert_close(found.vectors, plain(maps, masks, way_of, align_corners), atol=1e-4, rtol=1e-4)
    assert bool(found.present.all())


def test_ignored_pixels_count_nowhere():
    maps = torch.zeros(1, 1, 3, 3)
    maps[..., 2] = 1000
    masks = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    masks[..., :4, :] = 1
    masks[..., 5:] = 255  # all that the last column of cells reaches
    found = pool_prototypes(maps, masks, (1,))
    assert float(found.vectors.abs().max()) == 0
    everything = pool_prototypes(maps, torch.full_like(masks, 255), (1,))
    assert float(everything.vectors.abs().max()) == 0
    assert not bool(everything.present.any())
    assert not bool(everything.vanished.any())


def test_a_shot_without_its_class_takes_no_part_in_it_but_its_background_counts(case):
    maps, masks = case(1, (1, 1, 1))
    masks[:, 1][masks[:, 1] == 1] = 0
    found = pool_prototypes(maps, masks, (1, 1, 1))
    fewer = maps.unflatten(0, (2, 3))[:, [0, 2]].flatten(0, 1)
    torch.testing.assert_close(
        found.vectors[:, 1], pool_prototypes(fewer, masks[:, [0, 2]], (1, 1)).vectors[:, 1]
    )
    torch.testing.assert_close(found.vectors, plain(maps, masks, (1, 1, 1), True), atol=1e-4, rtol=1e-4)
    assert bool(found.present.all())


def test_a_shot_without_background_takes_no_part_in_it(case):
    maps, masks = case(1, (1, 1))
    masks[:, 0] = 1
    found = pool_prototypes(maps, masks, (1, 1))
    second = maps.unflatten(0, (2, 2))[:, 1]
    torch.testing.assert_close(
        found.vectors[:, 0], pool_prototypes(second, masks[:, 1:], (1,)).vectors[:, 0], atol=1e-5, rtol=1e-5
    )


def test_what_no_image_shows_is_absent_and_zero():
    maps = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 2, 9, 9, dtype=torch.uint8)
    masks[0, 0, :4] = 1
    masks[0, 1, :4] = 2
    masks[1, 0] = (
        1  # no background in this image, nor in the next; way 2 is shown by the image of way 1 alone
    )
    masks[1, 0, :3] = 2
    masks[1, 1] = 255
    found = pool_prototypes(maps, masks, (1, 2))
    assert found.present.tolist() == [[True, True, True], [False, True, False]]
    assert float(found.vectors[1, [0, 2]].abs().max()) == 0
    assert float(found.vectors[1, 1].abs().max()) > 0


def test_one_pixel_pools_the_feature_around_it():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 9, 9, generator=generator)
    masks = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    masks[0, 0, 20, 35] = 1  # between the cells (2, 4), (2, 5), (3, 4) and (3, 5)
    found = pool_prototypes(maps, masks, (1,))
    y, x = 20 / 8 - 2, 35 / 8 - 4
    corners = [(2, 4, (1 - y) * (1 - x)), (2, 5, (1 - y) * x), (3, 4, y * (1 - x)), (3, 5, y * x)]
    expected = sum(weight * maps[0, :, row, column] for row, column, weight in corners)
    torch.testing.assert_close(found.vectors[0, 1], expected, atol=1e-4, rtol=1e-4)
    assert found.vanished.tolist() == [[True]]
    assert found.present.tolist() == [[True, True]]


def test_vanished_tells_too_small_things_shot_by_shot():
    maps = torch.zeros(6, 1, 9, 9)
    masks = torch.zeros(1, 6, 65, 65, dtype=torch.uint8)
    masks[0, 0, 10:14, 10:14] = 1  # between all cells
    masks[0, 1, 12:21, 12:21] = 1  # around the cell (2, 2)
    masks[0, 2, :, 30:60] = 1
    masks[0, 4, 12:18, 12:18] = 1  # a third of the cell (2, 2)
    masks[0, 5, 11:19, 11:19] = 1  # a little more than half of it
    found = pool_prototypes(maps, masks, (1,) * 6)  # the fourth has nothing that could vanish
    assert found.vanished.tolist() == [[True, False, False, False, True, False]]


def test_gradients_reach_the_features_and_bfloat16_is_pooled_in_float32(case):
    maps, masks = case(1, (1, 1))
    maps.requires_grad_()
    pool_prototypes(maps, masks, (1, 1)).vectors.sum().backward()
    assert bool((maps.grad.abs().sum(dim=1) > 0).any())
    assert pool_prototypes(maps.detach().bfloat16(), masks, (1, 1)).vectors.dtype == torch.float32
