"""The three metrics, cell by cell, against their written-out forms."""

import math

import pytest
import torch

from fewseg.methods.prototypes import Cosine, Fidelity, SquaredEuclidean

METRICS = (Cosine(), Fidelity(), SquaredEuclidean())


@pytest.fixture
def case():
    """Two maps of six channels, each with three prototypes of its own, of all lengths."""
    generator = torch.Generator().manual_seed(0)
    maps = 3 * torch.randn(2, 6, 4, 5, generator=generator)
    return maps, 0.2 * torch.randn(2, 3, 6, generator=generator)


def compared(metric, maps, prototypes):
    return metric.compare(metric.prepare(maps), prototypes)


def plain(maps, prototypes, distance):
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


def test_fidelity_is_that_of_the_density_matrices(case):
    found = compared(Fidelity(), *case)
    torch.testing.assert_close(found, plain(*case, by_density_matrices))
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_cosine_is_that_of_the_angle(case):
    found = compared(Cosine(), *case)
    torch.testing.assert_close(found, plain(*case, angle))
    assert float(found.min()) < -0.1  # half of the directions point away


def test_squared_euclidean_is_the_negated_squared_distance(case):
    found = compared(SquaredEuclidean(), *case)
    expected = plain(*case, lambda f, p: -sum((a - b) ** 2 for a, b in zip(f, p, strict=True)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert float(found.max()) <= 0


def test_a_right_angle_half_a_right_angle_and_the_opposite_by_hand():
    maps = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-3.0, 0.0]]).T.view(1, 2, 1, 3)
    prototypes = torch.tensor([[[0.0, 5.0], [4.0, 0.0]]])
    expected = {
        Cosine(): [[0, math.sqrt(0.5), 0], [1, math.sqrt(0.5), -1]],
        Fidelity(): [[0, 0.5, 0], [1, 0.5, 1]],
        SquaredEuclidean(): [[-29, -17, -34], [-4, -10, -49]],
    }
    for metric, rows in expected.items():
        found = compared(metric, maps, prototypes)[0, :, 0]
        torch.testing.assert_close(found, torch.tensor(rows, dtype=torch.float32), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("metric", [Cosine(), Fidelity()])
def test_lengths_do_not_count_for_angles(metric, case):
    maps, prototypes = case
    torch.testing.assert_close(
        compared(metric, 7 * maps, 0.01 * prototypes), compared(metric, maps, prototypes)
    )


def test_lengths_count_for_distances(case):
    maps, prototypes = case
    assert not torch.allclose(
        compared(SquaredEuclidean(), maps, 2 * prototypes), compared(SquaredEuclidean(), maps, prototypes)
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_zero_prototypes_and_zero_cells_are_finite_with_finite_gradients(metric, case):
    maps, prototypes = case[0].clone(), case[1].clone()
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
def test_iteration_starts_where_nothing_has_changed(metric, case):
    maps, prototypes = case
    start = metric.start(prototypes)
    torch.testing.assert_close(compared(metric, maps, start), compared(metric, maps, prototypes))
    if metric.kind != "squared-euclidean":  # Eq. 5
        torch.testing.assert_close(start.norm(dim=2), torch.ones(2, 3))


def test_the_layout_of_the_map_does_not_matter(case):
    maps, prototypes = case
    there = maps.contiguous(memory_format=torch.channels_last)
    for metric in METRICS:
        torch.testing.assert_close(compared(metric, there, prototypes), compared(metric, maps, prototypes))
