"""Keys, best matches, their normalisation and products of cells, against plain loops."""

import math

import pytest
import torch

from fewseg.ops.similarity import (
    MINMAX_EPS,
    best_match,
    foreground_keys,
    minmax,
    pointwise,
    products,
    unit_cells,
)


def cosine(a, b):
    return float((a * b).sum()) / (math.sqrt(float((a * a).sum())) * math.sqrt(float((b * b).sum())))


@pytest.fixture
def case():
    """Support and query maps (3, 4, 3, 5) and the support's cells: some, one, none."""
    generator = torch.Generator().manual_seed(0)
    support, query = torch.randn(2, 3, 4, 3, 5, generator=generator).unbind(0)
    cells = (torch.rand(3, 1, 3, 5, generator=generator) > 0.6).float() * 0.3  # soft cells count too
    cells[1] = 0
    cells[1, 0, 2, 4] = 1
    cells[2] = 0
    return support, query, cells


def test_keys_are_the_unit_features_of_the_foreground_cells_in_reading_order(case):
    support, _, cells = case
    keys, valid = foreground_keys(support, cells)
    assert keys.shape == (3, int((cells[0] > 0).sum()), 4)
    for i in range(3):
        inside = [support[i, :, y, x] for y in range(3) for x in range(5) if cells[i, 0, y, x] > 0]
        assert int(valid[i].sum()) == len(inside)
        for k, feature in enumerate(inside):
            assert bool(valid[i, k])
            torch.testing.assert_close(keys[i, k], feature / feature.norm())
        assert keys[i, len(inside) :].abs().sum() == 0


def test_cells_are_brought_to_unit_length_and_a_cell_of_zeros_stays_one():
    maps = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    torch.testing.assert_close(unit_cells(maps), torch.tensor([[0.6, 0.0], [0.8, 0.0]]).view(1, 2, 1, 2))


def test_the_best_match_is_the_largest_cosine_over_the_foreground_cells(case):
    support, query, cells = case
    found = best_match(unit_cells(query), *foreground_keys(support, cells))
    for i in (0, 1):
        inside = [(y, x) for y in range(3) for x in range(5) if cells[i, 0, y, x] > 0]
        for y in range(3):
            for x in range(5):
                best = max(cosine(query[i, :, y, x], support[i, :, v, u]) for v, u in inside)
                assert float(found[i, y, x]) == pytest.approx(best, abs=1e-5)


def test_without_foreground_the_match_is_zero_alone_and_beside_others(case):
    support, query, cells = case
    assert best_match(query, *foreground_keys(support, cells))[2].abs().max() == 0
    keys, valid = foreground_keys(support, torch.zeros_like(cells))
    assert keys.shape == (3, 0, 4)
    assert best_match(query, keys, valid).tolist() == torch.zeros(3, 3, 5).tolist()


def test_padding_never_matches_even_where_every_real_cosine_is_negative():
    keys = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    valid = torch.tensor([[True, False]])
    query = torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1)
    assert best_match(query, keys, valid).item() == pytest.approx(-1)


def test_a_map_is_stretched_to_0_1_on_its_own():
    maps = torch.tensor([[[2.0, 4.0], [3.0, 6.0]], [[-1.0, 0.0], [0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.5], [0.5, 1.0]]])
    torch.testing.assert_close(minmax(maps), expected)


def test_a_constant_map_becomes_zeros_and_a_flat_one_is_damped_by_the_eps():
    maps = torch.stack([torch.full((2, 2), 5.0), torch.zeros(2, 2)])
    maps[1, 0, 0] = MINMAX_EPS
    found = minmax(maps)
    assert found[0].abs().max() == 0
    assert float(found[1].max()) == pytest.approx(0.5)


def test_one_query_under_many_sets_of_keys_equals_the_query_repeated(case):
    support, query, cells = case
    keys, valid = foreground_keys(support, cells)
    alone = unit_cells(query[:1])
    repeated = alone.expand(3, -1, -1, -1)
    torch.testing.assert_close(best_match(alone, keys, valid), best_match(repeated, keys, valid))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n", [1, 3])
def test_every_cell_is_multiplied_by_the_matrix(n, layout):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(n, 5, 4, 7, generator=generator).contiguous(memory_format=layout)
    filters = torch.randn(6, 5, generator=generator)
    expected = torch.einsum("dc,nchw->ndhw", filters, maps)
    torch.testing.assert_close(pointwise(maps, filters), expected)


def test_products_are_those_of_every_cell_with_every_vector():
    cells, vectors = torch.randn(3, 5, 7).transpose(1, 2), torch.randn(3, 2, 5)
    expected = torch.einsum("npc,nkc->npk", cells, vectors)
    torch.testing.assert_close(products(cells, vectors), expected)
